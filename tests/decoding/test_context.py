"""Caches: the exact one changes nothing, the others are what their papers say, and each costs what it says."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from stand_ins import MASK, VOCAB, network
from test_sampler import bare, some_prompt, some_row
from torch import Tensor

from unmask.decoding.canvas import Canvas, Row
from unmask.decoding.context import CACHES, Context, Exact, Policy, predict
from unmask.decoding.sampler import Decoded, Sampler, decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits, Denoiser, Head, NextToken, ShiftedLogits
from unmask.errors import UserError
from unmask.models.attention import BlockCausal, Causal
from unmask.models.transformer import Transformer
from unmask.noise.tokens import Masking

MASKING = Masking.over(VOCAB, MASK)
SHAPES: list[dict[str, Any]] = [
    {},
    {"kv_heads": 1},
    {"qk_norm": False},
    {"time": "adaln", "time_width": 16},
    {"kv_heads": 1, "time": "adaln", "time_width": 16, "norm": "layer", "activation": "gelu"},
    {"layers": 1},
]
CASES = 105
APPROXIMATE = [name for name in CACHES if name not in ("none", "exact")]


def block_model(size: int, head: Head = CleanLogits(), **shape: Any) -> Denoiser:
    rule = Causal() if size == 1 else BlockCausal(size)
    return Denoiser(network(size, **shape), mask_id=MASK, rule=rule, head=head)


def written(text: Decoded) -> tuple:
    """What a cache must not change."""
    return text.tokens, text.canvas, text.settled_at, text.finish_reason, text.counts.forwards


def some_model(rng: random.Random) -> Denoiser:
    size = rng.choice([1, 2, 4, 8])
    head = rng.choice([CleanLogits(), ShiftedLogits(), *([NextToken(0)] if size == 1 else [])])
    return block_model(size, head, **rng.choice(SHAPES))


def some_settings(rng: random.Random, size: int) -> Decoding:
    forward = size == 1  # a model that reads left to right writes left to right, a token a step
    rule = "left_to_right" if forward else rng.choice(["confidence", "entropy", "random", "left_to_right", "ancestral"])
    return Decoding(
        rule=rule,
        steps=None if forward else rng.choice([None, None, 1, 5, 20]),
        block=rng.choice([None, size, 2 * size]),
        threshold=rng.choice([None, 0.4, 0.8]) if rule != "ancestral" and not forward else None,
        temperature=rng.choice([0.0, 0.0, 1.0]),
        top_p=rng.choice([1.0, 0.8]),
        eos_id=rng.choice([None, 3]),
    )


@pytest.mark.parametrize("case", range(CASES))
def test_exact_changes_nothing(case: int) -> None:
    """Models, heads, rules, temperatures, unequal prompts and lengths, batches of one to seven."""
    rng = random.Random(case)
    model, rows = some_model(rng), [some_prompt(rng) for _ in range(1 + case % 7)]
    settings = some_settings(rng, model.rule.size if isinstance(model.rule, BlockCausal) else 1)
    plain = decode(model, MASKING, rows, replace(settings, cache="none"))
    cached = decode(model, MASKING, rows, settings)
    for a, b in zip(plain, cached):
        assert written(a) == written(b)
        assert a.confidence == pytest.approx(b.confidence, abs=1e-5)
        assert a.exact
        assert b.exact
        assert b.counts.queries <= a.counts.queries


@pytest.mark.parametrize("cache", APPROXIMATE)
@pytest.mark.parametrize("case", range(8))
def test_a_row_becomes_the_same_alone_and_in_a_batch(case: int, cache: str, masked: Denoiser) -> None:
    rng = random.Random(case)
    rows = [some_row(rng) for _ in range(4)]
    settings = Decoding(
        cache=cache,
        block=rng.choice([None, 3, 4]),
        threshold=rng.choice([None, 0.3]),
        temperature=rng.choice([0.0, 1.0]),
        eos_id=rng.choice([None, 3]),
    )
    for row, text in zip(rows, decode(masked, MASKING, rows, settings)):
        (alone,) = decode(masked, MASKING, [row], settings)
        assert bare(alone) == bare(text)
        assert not text.exact


@pytest.mark.parametrize("case", range(8))
def test_exact_rows_become_the_same_alone_and_in_a_batch(case: int) -> None:
    rng = random.Random(case)
    model, rows = block_model(rng.choice([2, 4])), [some_prompt(rng) for _ in range(4)]
    settings = Decoding(threshold=rng.choice([None, 0.3]), temperature=1.0, eos_id=3)
    for row, text in zip(rows, decode(model, MASKING, rows, settings)):
        assert bare(decode(model, MASKING, [row], settings)[0]) == bare(text)


# -- whatever happens to the text, exact predictions are those of a full pass


@pytest.mark.parametrize("head", [CleanLogits(), ShiftedLogits()], ids=["own", "shifted"])
@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("case", range(4))
@torch.no_grad()
def test_exact_survives_any_revision(case: int, size: int, head: Head) -> None:
    """Tokens anywhere change again and again, rows leave, and any position is asked for, also one far behind."""
    rng = random.Random(case)
    model = block_model(size, head, **SHAPES[case % len(SHAPES)])
    canvas = Canvas.of([Row.after([1] * n, 12 - n) for n in (0, 3, 5, 12)], size, None, torch.device("cpu"))
    context = Context(model, Exact(size))
    context.join(canvas)
    for step in range(9):
        touched = torch.tensor([[rng.random() < 0.1 for _ in range(canvas.x.shape[1])] for _ in canvas.row])
        canvas = replace(
            canvas,
            x=torch.where(touched, (canvas.x + 1 + step) % MASK, canvas.x),
            t=torch.where(touched, canvas.t / 2, canvas.t),
        )
        asked = torch.zeros_like(touched)
        for row in range(len(canvas.row)):
            asked[row, rng.randrange(canvas.x.shape[1])] = True
        (said,) = predict(model, [context.look(canvas, asked)])
        torch.testing.assert_close(said.mu(), model(canvas.x, canvas.t, where=asked).mu(), rtol=1e-5, atol=1e-5)
        if step == 5:
            index = torch.tensor([0, 1, 3])
            canvas = canvas.only(index)
            context.only(index)


# -- what it costs


def cost(model: Denoiser, rows: list[Row], **fields: Any) -> tuple[int, list[int]]:
    """Passes of the batch, and tokens fed of each row; their sum is what the sampler counts."""
    sampler = Sampler(model, MASKING, Decoding(**fields))
    texts = sampler(rows)
    fed = [text.counts.queries for text in texts]
    assert sampler.counts.queries == sum(fed)
    return sampler.counts.forwards, fed


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("per_block", [1, 2, None])
def test_exact_feeds_a_block_while_it_is_written_and_once_after(size: int, per_block: int | None) -> None:
    """Whole blocks of prompt, then G / B blocks; the commit pass of a block is the first pass of the next."""
    prompt, new = 2 * size, 3 * size
    passes = per_block or size
    forwards, fed = cost(block_model(size), [Row.after([1] * prompt, new)], steps=3 * passes)
    assert forwards == 3 * passes, "no pass but those that write"
    assert fed == [prompt + 3 * passes * size + 2 * size]


def test_exact_shares_the_first_block_with_the_prompt() -> None:
    """Prompt of 6 in blocks of 4: two tokens to write in the second block; the row ends inside its fourth."""
    forwards, fed = cost(block_model(4), [Row.after([1] * 6, 8)])
    assert forwards == 8
    assert fed == [8 + 4 + (4 + 4) + 3 * 4 + (4 + 2) + 2]


def test_a_model_that_reads_left_to_right_is_fed_a_token_a_step() -> None:
    rows = [Row.after([1] * 6, 8), Row.after([2], 5), Row.after([], 3)]
    for head in (NextToken(0), ShiftedLogits()):
        forwards, fed = cost(block_model(1, head), rows)
        assert forwards == 8
        # output i speaks of token i: the start token and the prompt come first; shifted: the prompt alone, and a text
        # that begins with nothing is asked for its first token at its own place, which is fed again once it is written
        assert fed == ([6 + 8, 1 + 5, 3] if isinstance(head, NextToken) else [6 + 7, 1 + 4, 3])


def test_a_batch_is_fed_no_padding() -> None:
    """Rows at other blocks and passes cost what they cost alone."""
    rows = [Row.after([1] * n, 11 - n, seed=n) for n in (0, 3, 5, 9)]
    model = block_model(4)
    alone = [cost(model, [row], threshold=0.3, temperature=1.0) for row in rows]
    together = cost(model, rows, threshold=0.3, temperature=1.0)
    assert together == (max(forwards for forwards, _ in alone), [fed[0] for _, fed in alone])


P, G, B = 5, 12, 4  # three blocks of four passes each
W = P + G
COSTS = {
    "none": 12 * W,
    "prefix": 3 * W + 3 * (12 + 8 + 4),
    "dual": 3 * W + 9 * B,
    # passes 0 and 8 are full; else the masks that are left and the token written last, one a pass
    "delayed": 2 * W + sum(12 - k + 1 for k in range(12) if k not in (0, 8)),
    # all at 0, the answer at 7; else what is open of the block and, but for the first pass, the token written last
    "interval": W + G + sum(4 - k % 4 + 1 for k in range(12) if k not in (0, 7)),
}


@pytest.mark.parametrize("cache", COSTS)
def test_approximate_caches_cost_what_they_say(cache: str, masked: Denoiser) -> None:
    assert cost(masked, [Row.after([1] * P, G)], block=B, cache=cache) == (12, [COSTS[cache]])


def test_a_policy_takes_options(masked: Denoiser) -> None:
    spec = {"kind": "delayed", "every": 1}
    assert cost(masked, [Row.after([1] * P, G)], block=B, cache=spec) == (12, [12 * W])
    often = {"kind": "interval", "prompt": 1, "answer": 1}
    assert cost(masked, [Row.after([1] * P, G)], block=B, cache=often) == (12, [12 * W])


@pytest.mark.parametrize("cache", [{"kind": "delayed", "every": 1}, {"kind": "interval", "prompt": 1, "answer": 1}])
def test_refreshed_every_pass_nothing_is_approximate(cache: dict[str, Any], masked: Denoiser) -> None:
    row = Row.gaps([None, 3, None, None, 1, None, None], 4)
    plain = decode(masked, MASKING, [row], Decoding(temperature=1.0))
    assert written(decode(masked, MASKING, [row], Decoding(temperature=1.0, cache=cache))[0]) == written(plain[0])


# -- the published definitions, written out: one row, keys and values in plain arrays, sums by hand


@dataclass
class Naive:
    """A transformer of the plain shape, that keeps the keys and values of every position it was ever shown."""

    net: Transformer
    length: int

    def __post_init__(self) -> None:
        c = self.net.config
        self.keys = torch.zeros(c.layers, self.length, c.heads, c.head_dim)
        self.values = torch.zeros_like(self.keys)

    def __call__(self, x: Tensor, shown: list[int]) -> Tensor:
        """x (L,) -> logits (len(shown), V) of the positions shown, all others are as they were."""
        at = torch.tensor(shown)
        h = self.net.embed(x[at])
        for layer, block in enumerate(self.net.blocks):
            inner, a = block.norm1(h), block.attention
            q = a.q(inner).unflatten(-1, (-1, a.head))
            k, v = a.kv(inner).unflatten(-1, (-1, a.head)).chunk(2, 1)
            self.keys[layer, at], self.values[layer, at] = rotated(a.k_norm(k), at), v
            scores = torch.einsum("qhd,khd->hqk", rotated(a.q_norm(q), at), self.keys[layer]) / a.head**0.5
            h = h + a.out(torch.einsum("hqk,khd->qhd", scores.softmax(-1), self.values[layer]).flatten(1))
            h = h + block.mlp(block.norm2(h))
        return self.net.head(self.net.norm(h))


def rotated(x: Tensor, at: Tensor) -> Tensor:
    """RoPE of x (N, H, D) at positions (N,): the two halves of a head are the parts of complex numbers."""
    half = x.shape[-1] // 2
    angle = at[:, None, None] * 10_000.0 ** (-torch.arange(half) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


Shown = Callable[[list[int], int, int, int], list[int]]  # (all positions, start and end of the block, its calls so far)


def prefix(everything: list[int], start: int, end: int, call: int) -> list[int]:
    return everything if call == 0 else everything[start:]


def dual(everything: list[int], start: int, end: int, call: int) -> list[int]:
    return everything if call == 0 else everything[start:end]


def fast_dllm(
    net: Transformer, prompt: list[int], new: int, block: int, shown: Shown, threshold: float | None
) -> list[int]:
    """The surest token of the block a call, or all that are sure enough; no call once the block is full."""
    x = torch.tensor([*prompt, *[MASK] * new])
    model, everything = Naive(net, len(x)), list(range(len(x)))
    for start in range(len(prompt), len(x), block):
        end, call = min(start + block, len(x)), 0
        while MASK in x[start:end]:
            positions = shown(everything, start, end, call)
            found = surest(model, x, positions, start, end)
            for i, (p, position, token) in enumerate(found):
                if i == 0 or (threshold is not None and p >= threshold):
                    x[position] = token
            call += 1
    return x.tolist()


def surest(model: Naive, x: Tensor, positions: list[int], start: int, end: int) -> list[tuple[float, int, int]]:
    """(probability, position, token) at the masks of [start, end), the surest first."""
    logits = model(x, positions)
    logits[:, MASK] = -torch.inf
    p, best = logits.softmax(-1).max(-1)
    found = [(float(p[i]), at, int(best[i])) for i, at in enumerate(positions) if start <= at < end and x[at] == MASK]
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("block", [3, 4, 12])
@pytest.mark.parametrize("cache", [prefix, dual])
@torch.no_grad()
def test_fast_dllm_by_its_definition(cache: Shown, block: int, threshold: float | None) -> None:
    changed = 0
    for seed in range(4):
        net, rng = network(seed, kv_heads=2), random.Random(seed)
        prompt = [rng.randrange(MASK) for _ in range(rng.randrange(1, 7))]
        model = Denoiser(net, mask_id=MASK)
        settings = Decoding(block=block, threshold=threshold, cache=cache.__name__)
        (text,) = decode(model, MASKING, [Row.after(prompt, 12)], settings)
        (plain,) = decode(model, MASKING, [Row.after(prompt, 12)], replace(settings, cache="none"))
        assert text.canvas == fast_dllm(net, prompt, 12, block, cache, threshold)
        changed += text.canvas != plain.canvas
    assert changed or block == 12 or threshold, "if nothing were ever kept, this test would say nothing"


def dkv_cache(net: Transformer, prompt: list[int], new: int, every: int) -> list[int]:
    """A call sees the masks and the token written by the call before; every so many calls it sees all."""
    x = torch.tensor([*prompt, *[MASK] * new])
    model, last = Naive(net, len(x)), -1
    for call in range(new):
        masks = [p for p in range(len(x)) if x[p] == MASK]
        positions = list(range(len(x))) if call % every == 0 else sorted([last, *masks])
        _, last, token = surest(model, x, positions, 0, len(x))[0]
        x[last] = token
    return x.tolist()


@pytest.mark.parametrize("every", [2, 3, 8])
@torch.no_grad()
def test_dkv_cache_by_its_definition(every: int) -> None:
    for seed in range(4):
        net, rng = network(seed), random.Random(seed)
        prompt = [rng.randrange(MASK) for _ in range(rng.randrange(1, 7))]
        settings = Decoding(cache={"kind": "delayed", "every": every})
        (text,) = decode(Denoiser(net, mask_id=MASK), MASKING, [Row.after(prompt, 9)], settings)
        assert text.canvas == dkv_cache(net, prompt, 9, every)


# -- blocks of block-causal models


def block_diffusion(model: Denoiser, prompt: list[int], new: int, size: int) -> list[int]:
    """LLaDA 2's loop: blocks are multiples of the size, the prompt's end is fixed in the first; one token a call."""
    x = torch.tensor([[*prompt, *[MASK] * new]])
    for start in range(len(prompt) // size * size, len(prompt) + new, size):
        window = x[:, : start + size]
        while bool((window[:, start:] == MASK).any()):
            mu = model(window).mu().view(*window.shape, VOCAB)[0]
            sure, best = mu.max(-1)
            settled = (window[0] != MASK) | (torch.arange(window.shape[1]) < start)
            where = int(sure.masked_fill(settled, -torch.inf).argmax())
            window[0, where] = best[where]
    return x[0].tolist()


@pytest.mark.parametrize("size", [2, 4, 8])
@torch.no_grad()
def test_block_models_write_in_blocks_of_absolute_positions(size: int) -> None:
    model = block_model(size)
    prompts = [[1, 5, 2, 8, 4, 9, 7][:n] for n in range(1, 8)]  # masks alone all look the same
    texts = decode(model, MASKING, [Row.after(prompt, 11) for prompt in prompts])
    for prompt, text in zip(prompts, texts):
        assert text.canvas == block_diffusion(model, prompt, 11, size)
        order = [at for at in text.settled_at if at >= 0]
        blocks: dict[int, list[int]] = {}
        for position, at in enumerate(text.settled_at[len(prompt) :], len(prompt)):
            blocks.setdefault(position // size, []).append(at)
        assert sorted(order) == [at for block in blocks.values() for at in sorted(block)]


def test_a_gap_in_the_last_block_is_filled_and_none_before_it() -> None:
    model = block_model(4)
    assert decode(model, MASKING, [Row.gaps([1, 2, 3, 4, 5, None, 7])])[0].canvas[6] == 7
    with pytest.raises(UserError, match=r"prompt 1: has a gap.*from position 4 on"):
        decode(model, MASKING, [Row.after([1], 3), Row.gaps([1, None, 3, 4, 5])])


def test_bidirectional_models_count_blocks_from_the_first_open_position(masked: Denoiser) -> None:
    (text,) = decode(masked, MASKING, [Row.after([1, 2, 3], 6)], Decoding(block=4))
    assert sorted(text.settled_at[3:7]) == [0, 1, 2, 3]


# -- what a user may say


def test_what_suits_a_model_is_chosen(masked: Denoiser, forward: Denoiser) -> None:
    assert Decoding().for_model(masked, 4).cache == "none"
    assert Decoding().for_model(forward, 4).cache == "exact"
    chosen = Decoding().for_model(block_model(8), 4)
    assert (chosen.cache, chosen.block) == ("exact", 8)
    assert isinstance(chosen.policy(block_model(8)), Exact)


@dataclass(frozen=True)
class Mine(Policy):
    """What an outsider may write."""

    exact = False

    def feed(self, moment: Any) -> Tensor:
        return moment.changed


def test_a_policy_of_ones_own(masked: Denoiser) -> None:
    (text,) = decode(masked, MASKING, [Row.after([1, 2], 5)], Decoding(cache=f"{__name__}:Mine"))
    assert len(text.tokens) == 5
    assert not text.exact


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cache": "dua"}, "'dua' is unknown; did you mean 'dual'"),
        ({"cache": {"kind": "delayed", "evry": 2}}, "evry: delayed has no such option; did you mean 'every'"),
        ({"cache": "exact"}, "exact needs a model that never looks ahead; use none"),
    ],
)
def test_a_wrong_cache_is_told(fields: dict[str, Any], message: str, masked: Denoiser) -> None:
    with pytest.raises(UserError, match=message):
        decode(masked, MASKING, [Row.after([1], 2)], Decoding(**fields))


def test_a_block_that_does_not_fit_the_model_is_told() -> None:
    with pytest.raises(UserError, match="block=6: this model sees its text in blocks of 4; use a multiple of it"):
        decode(block_model(4), MASKING, [Row.after([1], 6)], Decoding(block=6))
