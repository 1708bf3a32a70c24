"""Ranks and quotas by themselves, against the published rules."""

from __future__ import annotations

import pytest
import torch

from unmask.decoding.canvas import shares
from unmask.decoding.propose import Proposal
from unmask.decoding.quotas import Above, Evenly, Offer
from unmask.decoding.select import LOOKING, Asked, confidence, entropy, left_to_right, margin
from unmask.noise.draws import FromCounters


def asked(probs: list[list[float]]) -> Asked:
    p = torch.tensor(probs)
    position = torch.arange(len(probs))
    rng = FromCounters(torch.zeros(1, dtype=torch.int64), position[None])
    return Asked(p.log(), p.argmax(-1), position, rng.at(position[None] >= 0), Proposal())


def offer(score: torch.Tensor, open: torch.Tensor, left: torch.Tensor) -> Offer:
    """Positions as sure as their score."""
    return Offer(score, score, open, left, left, asked([[0.5, 0.5]]))


def llada(masks: int, steps: int) -> list[int]:
    """get_num_transfer_tokens of LLaDA's generate.py."""
    return [masks // steps + (step < masks % steps) for step in range(steps)]


def test_an_even_split_is_lladas() -> None:
    for masks in range(1, 18):
        for steps in range(1, 22):
            open, taken = torch.ones(1, masks, dtype=torch.bool), []
            for left in range(steps, 0, -1):
                if not open.any():
                    break  # LLaDA pays for these passes, and writes nothing in them
                score = torch.rand(1, masks)
                chosen = Evenly()(offer(score, open, torch.tensor([left])))
                assert (score[chosen].min() >= score[open & ~chosen]).all()
                open = open & ~chosen
                taken.append(int(chosen.sum()))
            assert taken == [k for k in llada(masks, steps) if k]


def test_steps_are_shared_out_over_blocks() -> None:
    assert shares([32, 32, 32, 32], 128) == [32] * 4
    assert shares([8, 8], 6) == [3, 3]
    for sizes in ([4, 4, 2], [3, 3, 3, 1], [1, 1, 1], [7]):
        for steps in range(1, 60):
            out = shares(sizes, steps)
            assert min(out) >= 1
            assert steps < len(sizes) or abs(sum(out) - steps) <= len(sizes) - 1
            assert steps < sum(sizes) or (sum(out) == steps and all(a >= b for a, b in zip(out, sizes)))


def test_even_splits_are_counted_row_by_row() -> None:
    """Dream takes the mean of the batch, so that a row depends on its neighbours."""
    open = torch.tensor([[True] * 8, [True, True, *[False] * 6]])
    score = torch.rand(2, 8)
    assert Evenly()(offer(score, open, torch.tensor([2, 2]))).sum(1).tolist() == [4, 1]
    assert Evenly()(offer(score, open, torch.tensor([8, 1]))).sum(1).tolist() == [1, 2]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_above_commits_all_that_are_sure_and_at_least_one(threshold: float) -> None:
    rng = torch.Generator().manual_seed(0)
    sure, open = torch.rand(500, 6, generator=rng), torch.rand(500, 6, generator=rng) < 0.5
    open[:, 0] |= ~open.any(1)
    chosen = Above(threshold)(offer(sure, open, torch.full((500,), 9)))
    assert chosen.any(1).all()
    assert not (chosen & ~open).any()
    assert (chosen | ~open | (sure < threshold)).all()
    unsure = chosen & (sure < threshold)
    assert (unsure.sum(1) <= 1).all()
    best = sure.masked_fill(~open, -1).amax(1, keepdim=True)
    assert (sure == best)[unsure].all()
    assert (Above(threshold)(offer(sure, open, torch.ones(500))) == open).all(), "the last step leaves nothing"


def test_the_least_uncertain_is_first() -> None:
    """llama.cpp has this sign wrong and writes the most uncertain token first."""
    sharp, flat = [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]
    for rank in LOOKING.values():
        score = rank(asked([flat, sharp]))
        assert score[1] > score[0], rank
    exact = -sum(p * torch.tensor(p).log() for p in sharp)
    assert entropy(asked([sharp]))[0] == pytest.approx(-float(exact), rel=1e-5)
    assert entropy(asked([[0.5, 0.5, 0.0, 0.0]]))[0] == pytest.approx(-0.693147, rel=1e-5), "0 log 0 is 0"


def test_ranks_differ_where_they_should() -> None:
    two_horses, clear = [0.48, 0.47, 0.05, 0.0], [0.46, 0.2, 0.18, 0.16]
    sure = asked([two_horses, clear])
    assert confidence(sure).argmax() == 0
    assert margin(sure).argmax() == 1
    assert entropy(sure).argmax() == 0
    assert left_to_right(sure).argmax() == 0
    assert margin(sure)[1] == pytest.approx(0.26)


def test_equal_scores_go_from_left_to_right() -> None:
    open = torch.tensor([[False, True, True, True]])
    equal = torch.ones(1, 4)
    assert Evenly()(offer(equal, open, torch.tensor([3]))).tolist() == [[False, True, False, False]]
