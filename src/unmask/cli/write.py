"""Verbs about a text: generate, fill, score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .app import app, say
from .options import Device, Dtype, File, Json, JsonSchema, Quiet, Regex, Seed
from .words import text_and_overrides, text_of


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
    from ..recipe import read_tree
    from ..request import Generate
    from ..writing import Drafter, write

    model, prompt, overrides = text_and_overrides(words, "PROMPT", [*Drafter.model_fields, *Generate.model_fields])
    language = {"regex": regex, "json_schema": text_of(json_schema)}
    options = read_tree(recipe, overrides, model=model, seed=seed, device=device, dtype=dtype, **language)
    done = write("chat" if chat else "generate", options, prompt, watch=watch and not as_json, html=html)
    say(done.as_dict(), as_json, lambda: done.lines(prompt * (not chat)))


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
    from ..recipe import read_tree
    from ..request import Fill
    from ..writing import Place, write

    model, text, overrides = text_and_overrides(words, "TEXT", [*Place.model_fields, *Fill.model_fields])
    language = {"regex": regex, "json_schema": text_of(json_schema)}
    options = read_tree(recipe, overrides, model=model, seed=seed, device=device, dtype=dtype, **language)
    done = write("fill", options, text, watch=watch and not as_json, html=html)
    say(done.as_dict(), as_json, lambda: done.lines(""))


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
    from ..recipe import read_tree
    from ..writing import ScoreOptions, score_text

    literal = text is not None or (words or [""])[-1] == "-"
    model, source, overrides = text_and_overrides(words, "FILE", ScoreOptions.model_fields, given=text)
    options = ScoreOptions.of(read_tree(recipe, overrides, model=model, seed=seed, device=device, dtype=dtype))
    found = score_text(options, source, prompt, literal=literal, quiet=quiet or as_json)
    say(found, as_json, lambda: _scored(found))


def _scored(found: dict[str, Any]) -> str:
    kind = "exact" if found["exact"] else f"upper bound, standard error {found['bits_per_byte_stderr']:.4f} bits/byte"
    return (
        f"{found['bits_per_byte']:.4f} bits/byte, {found['nats']:.2f} nats, {found['perplexity']:.3f} perplexity/token "
        f"over {found['tokens']:,} tokens, {found['bytes']:,} bytes ({kind})"
    )
