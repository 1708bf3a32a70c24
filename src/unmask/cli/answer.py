"""Verbs that answer requests: serve, batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .app import app, say
from .options import Device, Dtype, File, Json, Quiet
from .words import recipe_and_overrides


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
    a request says none), length (most tokens of a text, prompt included), rows (texts written at a time), waiting
    (texts that may wait), choices (texts of one request), slots (positions kept in exact caches), prefixes (positions
    of prompts kept for others that begin alike), body (bytes of a request), timeout (seconds of a request), rate
    (requests a minute of one key), drain (seconds that running requests get at the end).
    With --ray also ray.address (of the cluster), ray.least and ray.most (replicas), ray.busy (requests of a replica,
    beyond which there is one more), ray.cpus and ray.gpus (of each).
    """
    from ..extras import require
    from ..recipe import read_tree

    for package in ("fastapi", "uvicorn", "prometheus_client"):
        require(package, "serve", "serve")
    from ..serving.run import serve as run
    from ..serving.settings import ServeOptions

    model, overrides = recipe_and_overrides(words, "model")
    fixed = {"model": model, "host": host, "port": port, "device": device, "dtype": dtype}
    guard = {"api_key_file": api_key_file, "without_key": without_key or None}
    tree = read_tree(recipe, overrides, **fixed, **guard)
    replicas = tree.pop("ray", {})
    options = ServeOptions.of(tree)
    if on_ray:
        require("ray", "--ray", "ray")
        from ..serving.ray import Replicas
        from ..serving.ray import serve as run_on_ray

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
    from ..extras import require
    from ..recipe import read_tree

    for package in ("fastapi", "prometheus_client"):
        require(package, "batch", "serve")
    from ..serving.offline import Tally, run
    from ..serving.settings import ServeOptions
    from ..training.progress import Display

    surplus, overrides = recipe_and_overrides(words, "model")
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
    say(found, as_json, lambda: f"{target}: {tally.done:,} answers, {tally.refused:,} of the new ones refused")
