"""The command line: verbs only. Parse, call, print; what is wrong with the input is one sentence and exit code 2."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str | None, typer.Option(help="auto (bf16 in hardware, else fp32), fp32, bf16, or int8 to write.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Regex = Annotated[str | None, typer.Option(help="What is written matches this, for certain, as re.fullmatch has it.")]
JsonSchema = Annotated[str | None, typer.Option(help="What is written is JSON of this schema: a file, or the schema.")]
File = Annotated[str | None, typer.Option("--recipe", "-r", help="Options as a YAML file.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"unmask {__version__}")
        raise typer.Exit


@app.callback()
def unmask(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which this is.")
    ] = False,
) -> None:
    """Train, tune, run and measure diffusion language models."""


def _say(result: dict[str, Any], as_json: bool, lines: Callable[[], str]) -> None:
    print(json.dumps(result) if as_json else lines())


@app.command()
def train(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", show_default=False)] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model from nothing (or from base=MODEL on plain text).

    RECIPE is a YAML file or the name of a packaged recipe (`unmask info recipes`); without one the defaults train a
    small masked model on the Python standard library. Keys: data.source, model.width, method.kind, train.minutes, ...
    Type the same command again to go on with a run that was stopped.
    """
    from .run import train as run

    _train(run, words, as_json, quiet, out=out, seed=seed, device=device, dtype=dtype)


@app.command()
def tune(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] base=MODEL data.source=CHATS [KEY=VALUE]...")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run.")] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a saved model on conversations (JSON lines of {"messages": [...]}).

    Every assistant turn is learnt; prompts are shown as they are and cost nothing. End of text: each assistant turn
    ends with its end-of-turn token, which is learnt, and after the last one up to tune.pad_answers end-of-text tokens
    are learnt too, so that a canvas longer than the answer learns to end. Generation stops at the first end that has
    everything before it written. tune.lora.rank=16 trains low-rank adapters and merges them at the end.
    """
    from .run import tune as run

    _train(run, words, as_json, quiet, out=out, seed=seed, device=device, dtype=dtype)


def _train(run: Any, words: list[str] | None, as_json: bool, quiet: bool, **fixed: Any) -> None:
    from .recipe import load_recipe

    named, overrides = _recipe_and_overrides(words)
    recipe = load_recipe(named, overrides, **fixed)
    result = run(recipe, quiet=quiet or as_json)
    found = result.as_dict()
    if result.summary.interrupted:
        _say(found, as_json, lambda: f"stopped at step {found['steps']}; the same command goes on from there")
        raise typer.Exit(130)
    _say(found, as_json, lambda: _trained(found))


def _recipe_and_overrides(words: list[str] | None, what: str = "recipe") -> tuple[str | None, list[str]]:
    words = words or []
    named = [word for word in words if "=" not in word]
    if len(named) > 1:
        raise UserError(f"{what}: {named[0]!r} and {named[1]!r} are both given; name one {what}, options are key=value")
    return (named[0] if named else None), [word for word in words if "=" in word]


def _trained(found: dict[str, Any]) -> str:
    kind = "exact" if found["exact"] else f"bound, +- {found['stderr']:.3f}"
    return (
        f"{found['model']}: {found['parameters'] / 1e6:.2f}M parameters, {found['tokens']:,} tokens in "
        f"{found['seconds']:.0f} s, validation {found['bits_per_byte']:.3f} bits/byte ({kind})"
    )


@app.command()
def generate(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] PROMPT [KEY=VALUE]...")] = None,
    recipe: File = None,
    chat: Annotated[bool, typer.Option("--chat", help="PROMPT is a user's message to a tuned model.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="See the text appear in the terminal.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained replay page.")] = None,
    regex: Regex = None,
    json_schema: JsonSchema = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Write after a prompt. Without MODEL, the small model that comes with the package.

    Keys: max_tokens, steps, block, rule (confidence, entropy, margin, random, ancestral, ...), threshold, temperature,
    top_p, top_k, samples (texts with seeds of their own) and more; `unmask info keys` lists all. draft_for=OTHER: a
    causal model in `transformers` writes, and MODEL drafts for it. PROMPT - reads standard input.
    """
    from .recipe import read_tree
    from .request import Generate
    from .writing import Drafter, write

    model, prompt, overrides = _sort(words, "PROMPT", [*Drafter.model_fields, *Generate.model_fields])
    language = {"regex": regex, "json_schema": _text_of(json_schema)}
    options = read_tree(recipe, overrides, model=model, seed=seed, device=device, dtype=dtype, **language)
    done = write("chat" if chat else "generate", options, prompt, watch=watch and not as_json, html=html)
    _say(done.as_dict(), as_json, lambda: done.lines(prompt * (not chat)))


@app.command()
def fill(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] TEXT [KEY=VALUE]...")] = None,
    recipe: File = None,
    watch: Annotated[bool, typer.Option("--watch", help="See the text appear in the terminal.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained replay page.")] = None,
    regex: Regex = None,
    json_schema: JsonSchema = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Fill the gaps of a text, marked <gap> or <gap:12> (tokens), seeing both sides.

    Keys: gap_tokens (of a <gap> without a number) and those of `generate`. TEXT - reads standard input.
    """
    from .recipe import read_tree
    from .request import Fill
    from .writing import Place, write

    model, text, overrides = _sort(words, "TEXT", [*Place.model_fields, *Fill.model_fields])
    language = {"regex": regex, "json_schema": _text_of(json_schema)}
    options = read_tree(recipe, overrides, model=model, seed=seed, device=device, dtype=dtype, **language)
    done = write("fill", options, text, watch=watch and not as_json, html=html)
    _say(done.as_dict(), as_json, lambda: done.lines(""))


@app.command()
def score(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] FILE [KEY=VALUE]...")] = None,
    recipe: File = None,
    text: Annotated[str | None, typer.Option(help="Score this text instead of a file.")] = None,
    prompt: Annotated[str, typer.Option(help="Score the text as what follows this prompt.")] = "",
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How probable a model finds a file: nats, bits per byte, perplexity, with a standard error where it is a bound.

    FILE is anything `unmask train` reads (text, .gz, folder, glob, JSON lines). Keys: draws, field, split.
    """
    from .recipe import read_tree
    from .writing import ScoreOptions, score_text

    literal = text is not None or (words or [""])[-1] == "-"
    model, source, overrides = _sort(words, "FILE", ScoreOptions.model_fields, given=text)
    options = ScoreOptions.of(read_tree(recipe, overrides, model=model, seed=seed, device=device, dtype=dtype))
    found = score_text(options, source, prompt, literal=literal, quiet=quiet or as_json)
    _say(found, as_json, lambda: _scored(found))


def _scored(found: dict[str, Any]) -> str:
    kind = "exact" if found["exact"] else f"upper bound, standard error {found['bits_per_byte_stderr']:.4f} bits/byte"
    return (
        f"{found['bits_per_byte']:.4f} bits/byte, {found['nats']:.2f} nats, {found['perplexity']:.3f} perplexity/token "
        f"over {found['tokens']:,} tokens, {found['bytes']:,} bytes ({kind})"
    )


@app.command()
def info(
    what: Annotated[str | None, typer.Argument(metavar="[MODEL | recipes | keys]")] = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """What this machine offers; what a saved model is; which recipes come along; which keys every command takes."""
    from .writing import Place, describe

    found = describe(what, Place.of({"device": device or "auto", "dtype": dtype or "auto"}))
    _say(found, as_json, lambda: "\n".join(f"{key}: {value}" for key, value in found.items()))


@app.command()
def convert(
    model: Annotated[str, typer.Argument(metavar="SRC", help="A folder, or owner/name on the Hugging Face hub.")],
    out: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")],
    to: Annotated[str | None, typer.Option(help="A family's own layout: llama, qwen3, gpt2, llada, dream, ...")] = None,
    as_json: Json = False,
) -> None:
    """Bring a published checkpoint into a folder of ours, or with --to write a model under a family's own names.

    An autoregressive model (Llama, Qwen, GPT-2) gets room for a mask, so that `unmask tune base=DST method.kind=masked`
    makes a diffusion model of it. A model that came from a family goes back to it bit for bit.
    """
    from .convert import convert as run

    found = run(model, out, to)
    tail = "" if found["tokenizer"] else "; there was no tokenizer to take along"
    _say(found, as_json, lambda: f"{out}: {found['from']} as {found['to']}, {found['parameters']:,} parameters{tail}")


@app.command()
def compare(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", show_default=False)] = None,
    data: Annotated[str | None, typer.Option(help="Text to learn: a file, folder, glob, JSON lines, hf:NAME.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time a method and seed, on average. [10]")] = None,
    methods: Annotated[str | None, typer.Option(help="Like autoregressive,masked,block:size=4. [all]")] = None,
    seeds: Annotated[int | None, typer.Option(help="Models of each method. [1]")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report and of all models.")] = Path("comparison"),
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train every method on your text with one transformer and one budget, and write a report that sets them side by
    side: bits per byte, quality against network passes, speed, filled gaps, reversal.

    All methods get the same number of tokens: as many as take --minutes on average over the methods, whose speeds are
    measured first (equal=time gives each the minutes instead, tokens=N says the number). A method's options stand
    behind colons: block:size=4, masked:train.ema=0.999, my_package.my_module:MyMethod. Keys: tokens, equal, judge,
    samples, prompt, write, passes, rules, temperature, gaps, gap_tokens, facts, facts_tokens, and all of `unmask
    train`. Type the same command again to go on with a comparison that was stopped.
    """
    from .comparing import run
    from .grid import CompareOptions

    named, overrides = _recipe_and_overrides(words)
    if data is not None:
        overrides.append(f"data.source={data}")
    options, rest = CompareOptions.of(overrides, minutes=minutes, methods=methods, seeds=seeds)
    report = run(options, named, rest, out, quiet=quiet or as_json, seed=seed, device=device, dtype=dtype)
    _say({"rows": report.as_dict()["rows"]}, as_json, report.markdown)


@app.command()
def bench(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [KEY=VALUE]...", show_default=False)] = None,
    recipe: File = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Time how fast a model writes, beside the autoregressive model of the same shape in `transformers`.

    MODEL is small or large (random weights), or a saved model. Keys: ways (presets and rules), caches, batches, dtypes,
    each a list like none,dual; prompt, tokens, text (a file of prompts), rounds, peer, block_causal, and those of
    `generate`: block, steps, threshold, ... Tokens/s count what is written up to the end of text, none behind it; the
    speedup is against `transformers`; a pass: tokens of one text that a network pass writes, on average.
    """
    from rich.console import Console

    from .bench import BenchOptions, run, tables
    from .recipe import read_tree

    model, overrides = _recipe_and_overrides(words, "model")
    options = read_tree(recipe, overrides, model=model, seed=seed, device=device, dtypes=dtype)
    cases = run(BenchOptions.of(options))
    if as_json:
        print(json.dumps({"cases": [case.as_dict() for case in cases]}))
    else:
        Console(highlight=False).print(*tables(cases))


@app.command()
def serve(
    words: Annotated[list[str] | None, typer.Argument(metavar="[MODEL] [KEY=VALUE]...", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one. [8000]")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="One key a line; needed beyond this machine.")] = None,
    without_key: Annotated[bool, typer.Option("--without-key", help="Let other machines in without a key.")] = False,
    on_ray: Annotated[bool, typer.Option("--ray", help="Replicas on a Ray cluster.")] = False,
    recipe: File = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Serve a model: OpenAI's API, infilling, editing, and a page at / where one watches text appear.

    MODEL is a folder or hub id; without one the small model that comes with the package. Keys: name, max_tokens (where
    a request says none), rows (texts written at a time), waiting (texts that may wait), choices (texts of one request),
    slots (positions kept in exact caches), body (bytes of a request), timeout (seconds of a request), rate (requests a
    minute of one key), drain (seconds that running requests get at the end).
    With --ray also ray.address (of the cluster), ray.least and ray.most (replicas), ray.busy (requests of a replica,
    beyond which there is one more), ray.cpus and ray.gpus (of each).
    """
    from .extras import require
    from .recipe import read_tree

    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require(package, "serve", "serve")
    from .serving.run import serve as run
    from .serving.settings import ServeOptions

    model, overrides = _recipe_and_overrides(words, "model")
    fixed = {"model": model, "host": host, "port": port, "device": device, "dtype": dtype}
    guard = {"api_key_file": api_key_file, "without_key": without_key or None}
    tree = read_tree(recipe, overrides, **fixed, **guard)
    replicas = tree.pop("ray", {})
    options = ServeOptions.of(tree)
    if on_ray:
        require("ray", "--ray", "ray")
        from .serving.ray import Replicas
        from .serving.ray import serve as run_on_ray

        run_on_ray(options, Replicas.of(replicas))
    elif replicas:
        raise UserError(f"ray={replicas}: says how replicas are run; add --ray, or leave it out")
    else:
        run(options)


@app.command()
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Requests, a JSON object a line (OpenAI's format).")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Answers, added to a line at a time.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id. [the packaged model]")] = None,
    recipe: File = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a file of requests without a network: {"custom_id", "method": "POST", "url": "/v1/completions", "body"}.

    The endpoints are those of `unmask serve`; many requests share each pass. Type the same command again to go on with
    a run that was stopped or killed: what OUT answers already is not asked again. Keys: rows (texts written at a time),
    name, max_tokens, choices, slots.
    """
    from .extras import require
    from .recipe import read_tree

    for package in ("fastapi", "prometheus_client"):
        require(package, "batch", "serve")
    from .serving.offline import Tally, run
    from .serving.settings import ServeOptions
    from .training.progress import Display

    surplus, overrides = _recipe_and_overrides(words, "model")
    if surplus is not None:
        raise UserError(
            f"batch: {surplus!r} is one argument too many; name a model with --model, options are key=value"
        )
    options = ServeOptions.of(read_tree(recipe, overrides, model=model, device=device, dtype=dtype))
    display = Display("batch", quiet or as_json)

    def tell(tally: Tally) -> None:
        display.show(tally.done / tally.total, f"{tally.done:,} of {tally.total:,} answered, {tally.refused:,} refused")

    tally = run(source, target, options, tell)
    display.close()
    found = {"total": tally.total, "done": tally.done, "refused": tally.refused}
    _say(found, as_json, lambda: f"{target}: {tally.done:,} answers, {tally.refused:,} of the new ones refused")


@app.command()
def demo(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", show_default=False)] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time of each of the two models. [2]")] = None,
    out: Annotated[Path, typer.Option(help="Folder of everything the demo makes.")] = Path("demo"),
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a masked and an autoregressive model of one size; compare them, fill a gap, write, leave a replay.

    On the Python standard library, or on a text of yours: data.source=FILE. RECIPE and keys as for `unmask train`.
    """
    from .demo import run

    named, overrides = _recipe_and_overrides(words)
    budget = [] if minutes is None else [f"train.minutes={minutes}"]
    fixed = {"seed": seed, "device": device, "dtype": dtype}
    found = run(out, named or "demo", [*overrides, *budget], quiet=quiet or as_json, **fixed)
    if as_json:
        print(json.dumps(found))


def _text_of(named: str | None) -> str | None:
    """A file's content, if that is what it names, or the text itself."""
    if named is None or named.lstrip().startswith("{") or not Path(named).is_file():
        return named
    return Path(named).read_text(encoding="utf-8")


def _is_override(word: str, known: Iterable[str]) -> bool:
    """key=value whose key is an option, or nearly one (then it is a typo to be named); `x=1` is text."""
    key, equals, _ = word.partition("=")
    return bool(equals) and bool(difflib.get_close_matches(key, list(known), cutoff=0.6))


def _sort(
    words: list[str] | None, name: str, known: Iterable[str], given: str | None = None
) -> tuple[str | None, str, list[str]]:
    """[MODEL] TEXT [KEY=VALUE]... -> (model, text, overrides). A first or only word is never an override, unless the
    text is `given` by an option."""
    words, first = list(words or []), int(given is None)
    options = [word for word in words[first:] if _is_override(word, known)]
    words = [word for i, word in enumerate(words) if i < first or word not in options]
    words += [] if given is None else [given]
    if not words:
        raise UserError(f"{name}: is missing; give it as the last word, in quotes (--help shows more)")
    if len(words) > 2:
        raise UserError(f"{name}: {words[2]!r} is one argument too many; put the text in quotes, options are key=value")
    text = sys.stdin.read() if words[-1] == "-" and given is None else words[-1]
    return (words[0] if len(words) == 2 else None), text, options


def main() -> None:
    try:
        app()
    except UserError as error:
        print(f"unmask: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("unmask: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
