"""Training runs from beginning to end: recipe -> corpus -> model -> trainer -> saved model and its score."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from .corpus import Corpus, prepare
from .data.packing import Batch, Loader, windows
from .data.tokenizer import Tokenizer, load_tokenizer
from .denoiser import Denoiser
from .device import pick_device, pick_dtype
from .errors import UserError
from .evaluation.likelihood import Score, score_batches
from .methods.method import Symbols
from .models.checkpoint import load_model, read_config, resolve, save_model
from .models.transformer import Transformer
from .recipe import Recipe, method_of
from .training.lora import add_lora, merge_lora
from .training.progress import Display, plot_losses, read_metrics
from .training.train import Summary, Trainer

FINAL_ROWS = 256  # rows of the score at the end of a run; `unmask score` measures whole files


@dataclass(frozen=True)
class Result:
    """What a run leaves: a model folder, its training figures and its validation score."""

    folder: Path
    summary: Summary
    score: Score | None
    parameters: int

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"model": str(self.folder), "parameters": self.parameters} | asdict(self.summary)
        if self.score is not None:
            found |= {"bits_per_byte": self.score.bits_per_byte, "stderr": self.score.bits_per_byte_stderr}
            found |= {"nats_per_token": self.score.nats / self.score.tokens, "exact": self.score.exact}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}


def symbols_of(tokenizer: Tokenizer, vocab: int) -> Symbols:
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return Symbols(vocab, tokenizer.mask_id, start, tuple(range(len(tokenizer), vocab)))


def train(recipe: Recipe, *, corpus: Corpus | None = None, quiet: bool = False, title: str = "train") -> Result:
    """Train from nothing, or from `base` on plain text. The same call goes on where a stopped one left off.

    corpus: prepared before, where several runs share one.
    """
    recipe = _resolved(recipe)
    check_claim(recipe)
    accelerator = accelerate_for(recipe)
    network, tokenizer = _base(recipe) if recipe.base else (None, None)
    with accelerator.main_process_first():  # the others read what the first has prepared
        corpus = corpus or prepare(recipe, tokenizer)
        folder = claim(recipe)
    if network is None:
        network = fresh(recipe, len(corpus.tokenizer))
    return _run(recipe, accelerator, folder, corpus, network, tuning=False, quiet=quiet, title=title)


def tune(recipe: Recipe, *, quiet: bool = False, title: str = "tune") -> Result:
    """Fine-tune `base` on conversations: only answers are noised and scored."""
    if recipe.base is None:
        raise UserError("base: is not set; name the saved model to tune, for example base=runs/default/model")
    recipe = _resolved(recipe)
    check_claim(recipe)
    accelerator = accelerate_for(recipe)
    network, tokenizer = _base(recipe)
    with accelerator.main_process_first():
        corpus = prepare(recipe, tokenizer, chats=True)
        folder = claim(recipe)
    return _run(recipe, accelerator, folder, corpus, network, tuning=True, quiet=quiet, title=title)


def _run(
    recipe: Recipe,
    accelerator: Accelerator,
    folder: Path,
    corpus: Corpus,
    network: Transformer,
    *,
    tuning: bool,
    quiet: bool,
    title: str,
) -> Result:
    method, symbols = recipe.build_method(), symbols_of(corpus.tokenizer, network.config.vocab)
    if tuning and recipe.tune.lora is not None:
        add_lora(network, recipe.tune.lora, recipe.seed)
    denoiser = method.denoiser(network, symbols)
    rows = _valid_rows(recipe, corpus, tuning)

    def score(denoiser: Denoiser, draws: int, limit: int) -> Score:
        n_bytes = round(sum(b.n_scored for b in rows(limit)) * corpus.bytes_per_token)
        return score_batches(denoiser, rows(limit), method.estimator(draws), seed=recipe.seed, n_bytes=n_bytes)

    def validate(denoiser: Denoiser) -> dict[str, float]:
        found = score(denoiser, 2, recipe.train.eval_rows)
        return {"valid_loss": found.nats / max(found.tokens, 1), "valid_bits_per_byte": found.bits_per_byte}

    world = accelerator.num_processes
    trainer = Trainer(
        denoiser,
        method.tuning(symbols) if tuning else method.objective(symbols),
        corpus.loader(recipe, rank=accelerator.process_index, world=world, whole=tuning or recipe.data.whole),
        recipe.build_plan(),
        recipe.train,
        folder,
        accelerator=accelerator,
        seed=recipe.seed,
        bytes_per_token=corpus.bytes_per_token,
        validate=validate,
        title=title,
        quiet=quiet,
    )
    summary = trainer.run()
    if trainer.average is not None:
        trainer.average.swap(denoiser)
    found = None
    if accelerator.is_main_process:
        found = None if summary.interrupted else score(denoiser, recipe.train.eval_draws, FINAL_ROWS)
        merge_lora(network)
        extra = {"method": recipe.method, "training": _facts(summary, found)}
        save_model(folder / "model", network, extra, corpus.tokenizer.save)
        _plot(folder, title, quiet)
    accelerator.wait_for_everyone()
    return Result(folder / "model", summary, found, sum(p.numel() for p in network.parameters()))


def _valid_rows(recipe: Recipe, corpus: Corpus, tuning: bool) -> Callable[[int], list[Batch]]:
    """Validation rows: contiguous windows of the text, or whole conversations. The argument is how many."""
    pad = corpus.tokenizer.pad_id
    if not tuning:
        return lambda n: [
            b for b, _ in zip(windows(corpus.valid, recipe.length, batch=16, pad_id=pad), range(-(-n // 16)))
        ]
    count = corpus.valid.n_documents

    def conversations(n: int) -> list[Batch]:
        loader = Loader(corpus.valid, length=recipe.length, batch=1, seed=0, pad_id=pad, pack=False, keep_whole=True)
        return [next(loader) for _ in range(min(n, count))]

    return conversations


def accelerate_for(recipe: Recipe) -> Accelerator:
    device = pick_device(recipe.device)
    dtype = pick_dtype(recipe.dtype, device)
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process may have used another
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if dtype == torch.bfloat16 else "no")
    world = accelerator.num_processes
    share = recipe.train.micro_batch or 1
    if recipe.train.batch % (world * share):
        raise UserError(
            f"train.batch: {recipe.train.batch} rows cannot be shared by {world} processes with {share} rows a pass; "
            f"use a multiple of {world * share}"
        )
    return accelerator


def fresh(recipe: Recipe, vocab: int) -> Transformer:
    wanted = recipe.model.vocab
    if wanted and wanted < vocab:
        raise UserError(f"model.vocab: {wanted} is smaller than the tokenizer's {vocab}; raise it, or leave it out")
    config = recipe.model.model_copy(update={"vocab": wanted or vocab, "context": recipe.length})
    config = recipe.build_method().shape(config)
    return Transformer(config).initialise(torch.Generator().manual_seed(recipe.seed))


def _resolved(recipe: Recipe) -> Recipe:
    """What the recipe leaves open: a base keeps its own method and context (naming another method converts it)."""
    base = read_config(model_folder(recipe.base)) if recipe.base else {}
    method = recipe.method or base.get("method") or {"kind": "masked"}
    method_of(method, imports=recipe.method is not None)
    length = recipe.train.length or base.get("model", {}).get("context")
    return recipe.model_copy(update={"method": method, "train": recipe.train.model_copy(update={"length": length})})


def _base(recipe: Recipe) -> tuple[Transformer, Tokenizer]:
    folder = model_folder(str(recipe.base))
    network, _ = load_model(folder, dtype=torch.float32)
    tokenizer = load_tokenizer(folder)
    return grow(network, len(tokenizer)), tokenizer


def grow(network: Transformer, vocab: int) -> Transformer:
    """Room for symbols that the network has not met (a mask, say); new rows start at the mean of the old ones."""
    old = network.config.vocab
    if vocab <= old:
        return network
    config = network.config.model_copy(update={"vocab": vocab})
    larger = Transformer(config)
    weights = network.state_dict()
    for name in ("embed.weight", "head.weight"):
        mean = weights[name].mean(0, keepdim=True)
        weights[name] = torch.cat([weights[name], mean.expand(config.vocab - old, -1)])
    larger.load_state_dict(weights)
    return larger


def model_folder(path_or_hub_id: str) -> Path:
    """A run's folder stands for the model in it."""
    inner = Path(path_or_hub_id).expanduser() / "model"
    return inner if (inner / "config.json").is_file() else resolve(path_or_hub_id)


def check_claim(recipe: Recipe) -> None:
    """UserError where the folder holds a run of another recipe: nothing there is overwritten."""
    kept, mine = Path(recipe.out) / "recipe.yaml", recipe.model_dump()
    theirs = yaml.safe_load(kept.read_text(encoding="utf-8")) if kept.is_file() else None
    if not isinstance(theirs, dict):
        return
    for key in sorted({*mine, *theirs} - {"out", "device"}):
        if mine.get(key) != theirs.get(key):
            what = _difference(key, theirs.get(key), mine.get(key))
            raise UserError(
                f"out: {recipe.out} holds a run of another recipe ({what}); choose another out=, or delete that folder"
            )


def claim(recipe: Recipe) -> Path:
    """The run's folder, with its recipe in it; only once the data could be read, so that a typo claims nothing."""
    folder = Path(recipe.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(), sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise UserError(f"out: {folder} cannot be written ({error.strerror}); choose another out=") from error
    return folder


def _difference(key: str, theirs: Any, mine: Any) -> str:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        inner = next(k for k in sorted({*theirs, *mine}) if theirs.get(k) != mine.get(k))
        return _difference(f"{key}.{inner}", theirs.get(inner), mine.get(inner))
    return f"{key}={theirs!r} there, {mine!r} here"


def _facts(summary: Summary, score: Score | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"steps": summary.steps, "tokens": summary.tokens}
    if score is not None:
        facts["valid_bits_per_byte"] = round(score.bits_per_byte, 4)
    return json.loads(json.dumps(facts))


def _plot(folder: Path, title: str, quiet: bool) -> None:
    drawn = plot_losses({title: read_metrics(folder / "metrics.jsonl")}, folder / "loss.png")
    if not drawn:
        Display(title, quiet).say("no loss.png: install unmask[plots] for it")
