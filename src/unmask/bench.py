"""`unmask bench`: how fast texts are written, by preset, cache, batch and number format, beside the autoregressive
model of the same shape in `transformers`, all in one run and in turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from rich.table import Table
from torch import nn

from .data.tokenizer import Tokenizer
from .decoding.context import CACHES
from .decoding.presets import PRESETS
from .decoding.settings import RULES, Decoding, default_settings
from .denoiser import Denoiser
from .device import pick_device, pick_weights
from .errors import UserError, nearest
from .evaluation.judge import Judge, Verdict
from .evaluation.peer import Peer
from .evaluation.rounding import Rounding, rounding_of
from .evaluation.samples import Variety
from .evaluation.speed import Diffusion, Prompts, Speed, Writer, prompts_of, race
from .lm import load
from .models.attention import BlockCausal, Everything, block_size
from .models.config import ModelConfig
from .models.int8 import use_int8
from .models.transformer import Transformer
from .noise.process import Process
from .noise.tokens import Masking
from .recipe import sentence
from .request import DECODING
from .training.work import matmul_peak

SHAPES = {
    "small": ModelConfig(vocab=8192, width=512, layers=8, heads=8, hidden=1536, qk_norm=False),
    "large": ModelConfig(vocab=32768, width=1024, layers=16, heads=16, hidden=3072, qk_norm=False),
}
WAYS = {**{rule: {"rule": rule} for rule in RULES}, **{preset: {"preset": preset} for preset in PRESETS}}
SURE = 4.0  # standard deviation of the logits of random weights: at some positions sure of a symbol, as if trained
PEER = "transformers (AR)"


def _parts(said: Any) -> Any:
    """a,b is a list of two; so is a single number of one."""
    if isinstance(said, str):
        return [part for part in said.split(",") if part]
    return [said] if isinstance(said, (int, float)) else said


Names = Annotated[list[str], BeforeValidator(_parts), Field(min_length=1)]
Sizes = Annotated[list[Annotated[int, Field(gt=0)]], BeforeValidator(_parts), Field(min_length=1)]


class _Own(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    model: str = Field(default="small", description=f"{' or '.join(SHAPES)}, of random weights, or a saved model")
    ways: Names = Field(default=["llada", "fast-dllm"], description="presets or rules, divided by commas")
    caches: Names | None = Field(default=None, description="default none and the one that suits the model")
    batches: Sizes = Field(default=[1, 8], description="texts written at a time")
    dtypes: Names = Field(default=["auto"], description="fp32, bf16, int8 or several")
    prompt: int = Field(default=128, gt=0, description="tokens before each text")
    tokens: int = Field(default=256, gt=0, description="new tokens of each")
    text: str | None = Field(default=None, description="a file whose words are the prompts; default random tokens")
    rounds: int = Field(default=1, gt=0, description="each way writes so often, in turns; the median counts")
    peer: bool = Field(default=True, description="time `transformers` too")
    judge: str | None = Field(default=None, description="a saved autoregressive or joint model that reads the texts")
    block_causal: int | None = Field(default=None, gt=0, description="random weights see their text in such blocks")
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"


class BenchOptions(create_model("Asked", __base__=_Own, **{n: f for n, f in DECODING.items() if n != "cache"})):  # type: ignore[misc]
    """What is timed, and on top any field of `Decoding`, for every way alike."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> BenchOptions:
        try:
            found = cls(**options)
        except ValidationError as error:
            raise UserError(sentence(error, cls)) from error
        for name in found.ways:
            if name not in WAYS:
                raise UserError(f"ways: {name!r} is neither a preset nor a rule; {nearest(name, WAYS)}")
            found.way(name, Decoding(eos_id=0))
        for name in found.caches or []:
            if name not in CACHES:
                raise UserError(f"caches: {name!r} is unknown; {nearest(name, CACHES)}")
        for name in found.dtypes:
            pick_weights(name, torch.device("cpu"))
        if found.model not in SHAPES and found.block_causal is not None:
            raise UserError(f"block_causal={found.block_causal}: {found.model} knows what it sees; leave it out")
        if found.model in SHAPES and found.text is not None:
            raise UserError(f"text={found.text!r}: random weights read no words; leave it out, or name a saved model")
        if found.model in SHAPES and found.judge is not None:
            raise UserError(
                f"judge={found.judge!r}: random weights write no words; leave it out, or name a saved model"
            )
        return found

    def way(self, name: str, usual: Decoding) -> Decoding:
        """A preset or rule, with what the user says on top; UserError where they do not fit."""
        said = {field: getattr(self, field) for field in DECODING if field in self.model_fields_set}
        return usual.saying(WAYS[name] | said)


@dataclass(frozen=True)
class Entrant:
    denoiser: Denoiser
    process: Process
    usual: Decoding
    prompts: list[list[int]]  # as many as the largest batch
    tokenizer: Tokenizer | None = None  # of a saved model


@dataclass(frozen=True)
class Quality:
    """How likely a judge finds the texts after their prompts, and the entropy of a text's own tokens, nats: either can
    be bought with the other."""

    nats: float
    stderr: float
    entropy: float

    @classmethod
    def of(cls, judge: Judge, tokenizer: Tokenizer, prompts: Prompts, texts: Sequence[Sequence[int]]) -> Quality:
        verdict = Verdict.over(judge(list(zip(prompts, texts)), tokenizer))
        return cls(round(verdict.nats, 4), round(verdict.stderr, 4), round(Variety.of(texts).entropy, 4))

    def __str__(self) -> str:
        return f"judge {self.nats:.2f} ± {self.stderr:.2f} nats a token, entropy {self.entropy:.2f}"


@dataclass(frozen=True)
class Case:
    """way, cache: who wrote; exact: whether no cache was in the way; share: of the matmul peak; speedup: against
    `transformers` in the same batch, None without it; rounding: what 8 bits cost, where they are used; quality: of what
    was written, where there is a judge."""

    dtype: str
    batch: int
    way: str
    cache: str
    exact: bool
    speed: Speed
    share: float
    speedup: float | None
    rounding: Rounding | None = None
    quality: Quality | None = None

    def as_dict(self) -> dict[str, Any]:
        speed, work = self.speed, self.speed.work
        return {
            "dtype": self.dtype,
            "batch": self.batch,
            "way": self.way,
            "cache": self.cache,
            "exact": self.exact,
            "tokens": speed.tokens,
            "seconds": round(speed.seconds, 4),
            "tokens_per_second": round(speed.tokens_per_second, 2),
            "speedup": None if self.speedup is None else round(self.speedup, 3),
            "forwards": work.forwards,
            "tokens_per_pass": round(speed.tokens_per_pass, 3),
            "queries": work.queries,
            "peak_share": round(self.share, 4),
            "memory": speed.memory,
            "rounding": None if self.rounding is None else asdict(self.rounding),
            "quality": None if self.quality is None else asdict(self.quality),
        }


def run(options: BenchOptions) -> list[Case]:
    """Time everything; what cannot be done is said before anything is timed."""
    device, cases = pick_device(options.device), []
    judge = _judge(options)
    for name in options.dtypes:
        dtype, int8 = pick_weights(name, device)
        entrant = _entrant(options, device, name)
        rounding = rounding_of(entrant.denoiser, entrant.prompts) if int8 else None
        ways = list(_ways(options, entrant))
        writers: list[Writer] = [Diffusion(entrant.denoiser, entrant.process, how, options.seed) for _, how in ways]
        labels = [(way, str(how.cache), how.policy(entrant.denoiser).exact) for way, how in ways]
        network = entrant.denoiser.network
        if options.peer and network.config.moe is None:  # no Llama has experts
            writers, labels = [Peer(network, device, dtype), *writers], [(PEER, "exact", True), *labels]
        peak = matmul_peak(device, dtype)
        for batch in options.batches:
            speeds = race(writers, entrant.prompts[:batch], options.tokens, device, options.rounds)
            peer = speeds[0].tokens_per_second if labels[0][0] == PEER else None
            for label, speed in zip(labels, speeds):
                speedup = None if peer is None else speed.tokens_per_second / peer
                kind = name if int8 else str(dtype).removeprefix("torch.")
                quality = None
                if judge is not None and entrant.tokenizer is not None and label[0] != PEER:  # whose weights are random
                    quality = Quality.of(judge, entrant.tokenizer, entrant.prompts, speed.texts)
                cases.append(Case(kind, batch, *label, speed, speed.share(peak), speedup, rounding, quality))
    return cases


def _judge(options: BenchOptions) -> Judge | None:
    if options.judge is None:
        return None
    lm = load(options.judge, device=options.device, dtype="auto")
    if options.tokens > lm.context:  # its own tokens may be more still: then it says so when it reads
        raise UserError(f"judge: its context is {lm.context} tokens, the texts have {options.tokens}; use fewer")
    return Judge(options.judge, lm.denoiser, lm.tokenizer, lm.method.estimator(1))


def _ways(options: BenchOptions, entrant: Entrant) -> Iterator[tuple[str, Decoding]]:
    """Each way with each cache; a preset that names its own keeps it."""
    suits = "dual" if block_size(entrant.denoiser.rule) is None else "exact"
    for name in options.ways:
        how = options.way(name, entrant.usual)
        for cache in [how.cache] if how.cache else options.caches or ["none", suits]:
            yield name, replace(how, cache=cache).for_model(entrant.denoiser, options.tokens)


def _entrant(options: BenchOptions, device: torch.device, name: str) -> Entrant:
    rows, length = max(options.batches), options.prompt
    if options.model in SHAPES:
        shape = SHAPES[options.model].model_copy(update={"context": length + options.tokens})
        dtype, int8 = pick_weights(name, device)
        denoiser, process = of_shape(shape, device, dtype, options.block_causal)
        if int8:
            use_int8(denoiser.network)
        return Entrant(denoiser, process, default_settings(denoiser), _random(denoiser, rows, length))
    lm = load(options.model, device=options.device, dtype=name)
    if length + options.tokens > lm.context:
        asked = f"prompt={length}, tokens={options.tokens}"
        raise UserError(f"{asked}: the model's context is {lm.context} tokens; use fewer of either")
    subject = lm.subject
    settings = subject.settings.saying({"eos_id": lm.tokenizer.eos_id})
    ids = None if options.text is None else lm.tokenizer.encode_plain(_read(options.text))
    if ids is not None and len(ids) < rows * length:
        raise UserError(f"text: {options.text} has {len(ids)} tokens for {rows} prompts of {length}; use a longer text")
    if ids is None:
        prompts = _random(subject.denoiser, rows, length)
    else:
        prompts = [ids[i * length : (i + 1) * length] for i in range(rows)]
    return Entrant(subject.denoiser, subject.process, settings, prompts, lm.tokenizer)


def _random(denoiser: Denoiser, rows: int, length: int) -> list[list[int]]:
    """Of any symbols that the model may emit."""
    symbols = torch.arange(denoiser.vocab)
    return prompts_of(symbols[~torch.isin(symbols, denoiser.banned.cpu())], rows, length)


def of_shape(
    shape: ModelConfig, device: torch.device, dtype: torch.dtype, block_causal: int | None = None
) -> tuple[Denoiser, Process]:
    """A masked model of random weights, all of them, so that no two symbols are as likely; the last is the mask."""
    network, rng = Transformer(shape), torch.Generator().manual_seed(0)
    for p in network.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=p.shape[-1] ** -0.5, generator=rng)
    nn.init.normal_(network.head.weight, std=SURE * shape.width**-0.5, generator=rng)
    rule = Everything() if block_causal is None else BlockCausal(block_causal)
    denoiser = Denoiser(network, mask_id=shape.vocab - 1, rule=rule).to(device=device, dtype=dtype).eval()
    return denoiser, Masking.over(shape.vocab, shape.vocab - 1)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"text: {path!r} cannot be read ({error}); name a UTF-8 file") from error


def tables(cases: Sequence[Case]) -> Iterator[Table]:
    """One for each number format and batch, narrow enough for a terminal."""
    for (dtype, batch), group in groupby(cases, lambda case: (case.dtype, case.batch)):
        some = list(group)
        notes = ["~ approximate cache", *{str(case.rounding) for case in some if case.rounding}]
        notes += [f"{case.way}, {case.cache}: {case.quality}" for case in some if case.quality]
        found = Table(title=f"{dtype}, batch {batch}", title_justify="left", caption="; ".join(notes))
        for head in ("way", "cache"):
            found.add_column(head)
        for head in ("tokens/s", "speedup", "passes", "a pass", "queries", "of peak", "MB"):
            found.add_column(head, justify="right")
        for case in some:
            found.add_row(*_cells(case))
        yield found


def _cells(case: Case) -> list[str]:
    speed, work = case.speed, case.speed.work
    return [
        case.way,
        case.cache if case.exact else f"{case.cache} ~",
        f"{speed.tokens_per_second:,.1f}",
        "-" if case.speedup is None else f"{case.speedup:.2f}x",
        f"{work.forwards:,}",
        f"{speed.tokens_per_pass:.2f}",
        f"{work.queries:,}",
        f"{case.share:.0%}",
        "-" if speed.memory is None else f"{speed.memory / 2**20:,.0f}",
    ]
