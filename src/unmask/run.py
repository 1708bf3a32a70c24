"""Training runs from beginning to end: recipe -> corpus -> model -> trainer -> saved model and its score."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from .base import open_base, resolved, symbols_of
from .claim import check_claim, claim
from .corpus import Corpus
from .denoiser import Denoiser
from .device import pick_device, pick_dtype
from .errors import UserError
from .evaluation.likelihood import Score, score_batches
from .extras import require
from .models.checkpoint import save_model
from .models.transformer import Transformer
from .recipe import Recipe, for_tuning
from .task import Answers, Task, Texts, bytes_of
from .training.lora import add_lora, merge_lora
from .training.progress import Display, plot_clips, plot_losses, read_metrics
from .training.train import Summary, Trainer

FINAL_ROWS = 256  # rows of the score at the end of a run; `unmask score` measures whole files
ADAPT_ROWS = 32  # held-out rows that an objective which adapts is shown


@dataclass(frozen=True)
class Result:
    """What a run leaves: a model folder, its training figures and its validation score. notes: about its data."""

    folder: Path
    summary: Summary
    score: Score | None
    parameters: int
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"model": str(self.folder), "parameters": self.parameters} | asdict(self.summary)
        found["notes"] = list(self.notes)
        if self.score is not None:
            found |= {"bits_per_byte": self.score.bits_per_byte, "stderr": self.score.bits_per_byte_stderr}
            found |= {"nats_per_token": self.score.nats / self.score.tokens, "exact": self.score.exact}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}


def train(recipe: Recipe, *, corpus: Corpus | None = None, quiet: bool = False, title: str = "train") -> Result:
    """Train from nothing, or from `base` on plain text. The same call goes on where a stopped one left off.

    corpus: prepared before, where several runs share one.
    """
    return _run(recipe, Texts(), corpus, quiet, title)


def tune(recipe: Recipe, *, quiet: bool = False, title: str = "tune") -> Result:
    """Fine-tune `base` on conversations: only answers are noised and scored. What the recipe leaves open is as in the
    packaged recipe `tune`."""
    if recipe.base is None:
        raise UserError("base: is not set; name the saved model to tune, for example base=runs/default/model")
    return _run(for_tuning(recipe), Answers(), None, quiet, title)


def _run(recipe: Recipe, task: Task, corpus: Corpus | None, quiet: bool, title: str) -> Result:
    recipe = resolved(recipe)
    _check_extras(recipe)
    check_claim(recipe)
    accelerator = accelerate_for(recipe)
    network, tokenizer = open_base(recipe) if recipe.base else (None, None)
    with accelerator.main_process_first():  # the others read what the first has prepared
        corpus = corpus or task.corpus(recipe, tokenizer)
        folder = claim(recipe)
    network = network or fresh(recipe, len(corpus.tokenizer))
    quiet = quiet or not accelerator.is_main_process
    for note in corpus.notes:
        Display(title, quiet).say(note)
    if recipe.tune.lora is not None:
        add_lora(network, recipe.tune.lora, recipe.seed)
    denoiser = recipe.build_method().denoiser(network, symbols_of(corpus.tokenizer, network.config.vocab))
    summary, score = _fitted(recipe, task, corpus, denoiser, folder, accelerator, quiet=quiet, title=title)
    if accelerator.is_main_process:
        merge_lora(network)
        extra = {"method": recipe.method, "training": _facts(summary, score)}
        save_model(folder / "model", network, extra, corpus.tokenizer.save)
        _plot(folder, title, quiet)
    accelerator.wait_for_everyone()
    return Result(folder / "model", summary, score, sum(p.numel() for p in network.parameters()), corpus.notes)


def _fitted(
    recipe: Recipe,
    task: Task,
    corpus: Corpus,
    denoiser: Denoiser,
    folder: Path,
    accelerator: Accelerator,
    *,
    quiet: bool,
    title: str,
) -> tuple[Summary, Score | None]:
    """The denoiser trained, its averaged weights in place; and its score on held-out rows, if it came to its end."""
    method, symbols = recipe.build_method(), symbols_of(corpus.tokenizer, denoiser.vocab)

    def score(draws: int, most: int) -> Score:
        rows = task.held_out(recipe, corpus, most)
        n_bytes = bytes_of(rows, corpus.tokenizer)
        return score_batches(denoiser, rows, method.estimator(draws), seed=recipe.seed, n_bytes=n_bytes)

    def validate() -> dict[str, float]:
        found = score(2, recipe.train.eval_rows)
        return {"valid_loss": found.nats / max(found.tokens, 1), "valid_bits_per_byte": found.bits_per_byte}

    rank, world = accelerator.process_index, accelerator.num_processes
    trainer = Trainer(
        denoiser,
        task.objective(method, symbols),
        corpus.loader(recipe, rank=rank, world=world, whole=task.whole(recipe)),
        recipe.build_plan(),
        recipe.train,
        folder,
        accelerator=accelerator,
        seed=recipe.seed,
        bytes_per_token=corpus.bytes_per_token,
        validate=validate,
        held_out=lambda: task.held_out(recipe, corpus, ADAPT_ROWS),
        title=title,
        quiet=quiet,
    )
    summary = trainer.run()
    if trainer.average is not None:
        trainer.average.swap(denoiser)
    unscored = summary.interrupted or not accelerator.is_main_process
    return summary, None if unscored else score(recipe.train.eval_draws, FINAL_ROWS)


def _check_extras(recipe: Recipe) -> None:
    """What is asked for and cannot be had is said at once."""
    for name in recipe.train.log_to:
        require(name, "train.log_to", extra=name)
    if recipe.tune.lora is not None:
        require("peft", "tune.lora", extra="lora")
        if recipe.base is None:
            raise UserError("tune.lora: there is no model to adapt; name one with base=, or leave tune.lora out")


def accelerate_for(recipe: Recipe) -> Accelerator:
    device = pick_device(recipe.device)
    dtype = pick_dtype(recipe.dtype, device)
    if device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one; of many processes, each its own
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


def _facts(summary: Summary, score: Score | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"steps": summary.steps, "tokens": summary.tokens, "finished": not summary.interrupted}
    if score is not None:
        facts["valid_bits_per_byte"] = round(score.bits_per_byte, 4)
    return json.loads(json.dumps(facts))


def _plot(folder: Path, title: str, quiet: bool) -> None:
    records = read_metrics(folder / "metrics.jsonl")
    drawn = plot_losses({title: records}, folder / "loss.png") and plot_clips(records, folder / "clip.png")
    if not drawn:
        Display(title, quiet).say("no loss.png: install unmask[plots] for it")
