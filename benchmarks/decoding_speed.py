"""Decoding speed against the published loops, on the same weights, for the same tokens.

    python benchmarks/decoding_speed.py --shape small --batch 1 --quick

Random weights, a prompt of 128 tokens, greedy, blocks of 32, a token a step; all in one process, in turns, medians.

    naive         LLaDA's published loop: every pass feeds the whole row, logits at every position, a softmax over them
                  (in float64 as published, or in the model's dtype), the surest of the block is written
    naive dual    the same with Fast-dLLM's dual cache: a whole pass at the start of a block, keys and values
                  concatenated, then the block alone against them
    transformers  greedy `generate` of a Llama of the same shape with its key/value cache
    ours          `unmask`, without a cache, with the dual cache, and with a threshold

The naive loops run on the same layers as ours with torch's own products, so what differs is what is computed, and that
our weights are packed; their tokens are asserted equal to ours in float32. Positions that are equally sure to five
decimals go from left to right on both sides. In bf16 sums in another order differ in more than that: there the share of
equal tokens is printed.
How many tokens a pass a threshold writes says nothing on random weights; see `unmask bench MODEL` for a trained one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.bench import SHAPES, of_shape
from unmask.decoding.select import steady
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser
from unmask.evaluation.peer import Peer
from unmask.evaluation.speed import Diffusion, Prompts, Speed, Work, Writer, prompts_of, race
from unmask.models.config import ModelConfig
from unmask.models.linear import unpacked
from unmask.models.rope import rope
from unmask.models.transformer import Block

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WIDE = ModelConfig(vocab=126_464, width=512, layers=8, heads=8, hidden=1536, qk_norm=False)
CASES = {**SHAPES, "vocabulary": WIDE}
Kept = list[tuple[Tensor, Tensor]]  # keys and values (B, H, L, D) of each layer


@dataclass
class Sees:
    """What one layer's queries see in a naive pass: the tokens beside them, written over what is kept from `start`."""

    kept: tuple[Tensor, Tensor] | None
    start: int
    now: tuple[Tensor, Tensor] | None = None

    def only(self, index: Tensor) -> Sees:
        raise NotImplementedError("a naive pass asks for every position")

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if self.kept is not None:
            stop = self.start + k.shape[2]
            k, v = (
                torch.cat([old[:, :, : self.start], new, old[:, :, stop:]], 2) for old, new in zip(self.kept, (k, v))
            )
        self.now = k, v
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Naive:
    """The published loop on the same weights."""

    def __init__(self, denoiser: Denoiser, block: int, *, exact: bool, dual: bool) -> None:
        """exact: softmax in float64."""
        self.network, self.mask, self.block = denoiser.network, denoiser.mask_id, block
        self.softmax, self.dual = torch.float64 if exact else None, dual

    @property
    def n_bytes(self) -> int:
        return sum(p.nbytes for p in self.network.parameters())

    @unpacked()
    @torch.inference_mode()
    def write(self, prompts: Prompts, length: int) -> tuple[list[list[int]], Work]:
        device, before = self.network.embed.weight.device, len(prompts[0])
        x = torch.tensor([[*prompt, *[self.mask] * length] for prompt in prompts], device=device)
        fed, flops, forwards = 0, 0.0, 0
        for start in range(before, before + length, self.block):
            stop, kept = min(start + self.block, x.shape[1]), None
            for step in range(stop - start):
                first, last = (start, stop) if self.dual and step else (0, x.shape[1])
                logits, seen = self._pass(x[:, first:last], first, kept)
                kept = kept if not self.dual or step else seen
                self._write_one(x[:, first:last], logits, start - first, stop - first)
                fed, forwards = fed + x[:, first:last].numel(), forwards + 1
                flops += x[:, first:last].numel() * self.network.matmul_flops(x.shape[1])
        return x[:, before:].tolist(), Work(forwards, fed, flops)

    def _pass(self, x: Tensor, start: int, kept: Kept | None) -> tuple[Tensor, Kept]:
        """Logits (B, L, V) of every position fed, in the model's dtype."""
        network = self.network
        hidden = network.embed(x)
        cos, sin = rope(torch.arange(start, start + x.shape[1], device=x.device)[None], network.config)
        sights = [Sees(None if kept is None else kept[i], start) for i in range(len(network.blocks))]
        for block, see in zip(network.blocks, sights):
            hidden = cast(Block, block)(hidden, cos, sin, see, None)
        return network.head(network.norm(hidden)), [cast(tuple[Tensor, Tensor], see.now) for see in sights]

    def _write_one(self, x: Tensor, logits: Tensor, start: int, stop: int) -> None:
        """The surest masked position of [start, stop) in every row."""
        logits[..., self.mask] = -torch.inf
        best = logits.argmax(-1)
        p = (logits if self.softmax is None else logits.to(self.softmax)).softmax(-1)
        sure = steady(p.gather(-1, best[..., None]).squeeze(-1))
        sure = sure.masked_fill(x != self.mask, -torch.inf)
        sure[:, :start] = sure[:, stop:] = -torch.inf
        for row in range(len(x)):
            chosen = sure[row].argmax()
            x[row, chosen] = best[row, chosen]


def race_of(a: argparse.Namespace, name: str, batch: int) -> dict[str, float]:
    """Tokens/s of every side on one shape and batch."""
    device, dtype = torch.device(a.device), DTYPES[a.dtype]
    shape = CASES[name].model_copy(update={"context": a.prompt + a.tokens})
    denoiser, process = of_shape(shape, device, dtype)

    def ours(**said: Any) -> Diffusion:
        return Diffusion(denoiser, process, Decoding(rule="confidence", block=a.block, **said))

    sides: dict[str, Writer] = {
        "naive float64": Naive(denoiser, a.block, exact=True, dual=False),
        "naive": Naive(denoiser, a.block, exact=False, dual=False),
        "naive dual": Naive(denoiser, a.block, exact=False, dual=True),
        "transformers": Peer(denoiser.network, device, dtype),
        "ours": ours(),
        "ours dual": ours(cache="dual"),
        "ours dual, threshold": ours(cache="dual", threshold=a.threshold),
    }
    prompts = prompts_of(torch.arange(shape.vocab - 1), batch, a.prompt)
    speeds = dict(zip(sides, race(list(sides.values()), prompts, a.tokens, device, a.rounds)))
    for side, speed in speeds.items():
        ratio = speed.tokens_per_second / speeds["naive"].tokens_per_second
        print(
            f"{name:>10} {a.dtype} batch {batch}  {side:22} {speed.tokens_per_second:8.1f} tokens/s {ratio:6.2f}x naive"
            f" {speed.work.forwards:5} passes {speed.tokens_per_pass:5.2f} tokens a pass",
            flush=True,
        )
    for mine, theirs in (("ours", "naive"), ("ours dual", "naive dual")):
        check(speeds[mine], speeds[theirs], f"{mine} and {theirs}", a.dtype == "fp32")
    return {side: round(speed.tokens_per_second, 2) for side, speed in speeds.items()}


def check(mine: Speed, theirs: Speed, who: str, exact: bool) -> None:
    """The same tokens, or how many are."""
    pairs = [pair for texts in zip(mine.texts, theirs.texts) for pair in zip(*texts)]
    share = sum(a == b for a, b in pairs) / len(pairs)
    print(f"{who}: {share:.1%} of {len(pairs)} tokens are equal", flush=True)
    if exact and share < 1:
        raise SystemExit(f"{who} write other tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--threshold", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="the small shape, batch 1, 32 tokens, one round")
    a = parser.parse_args()
    if a.quick:
        a.shape, a.batch, a.tokens, a.rounds = ["small"], [1], 32, 1
    torch.set_num_threads(a.threads)
    for name in a.shape:
        for batch in a.batch:
            found = {"shape": name, "batch": batch, "dtype": a.dtype, "tokens_per_second": race_of(a, name, batch)}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
