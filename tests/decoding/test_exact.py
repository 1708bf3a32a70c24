"""Sampling draws from the model's own distribution: held by chi-square against an oracle that knows it."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from stand_ins import Oracle
from torch import Tensor

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.noise.schedule import Cosine, Geometric, Linear
from unmask.noise.tokens import Masking, TokenNoise

TOKENS, LENGTH, DRAWS = 3, 3, 20_000
SCHEDULES = {"linear": Linear(), "cosine": Cosine()}
ONE_A_STEP = {
    "random": Decoding(rule="random", temperature=1.0),
    "left_to_right": Decoding(rule="left_to_right", temperature=1.0),
    "random in blocks": Decoding(rule="random", temperature=1.0, block=2),
    "random, looking": Decoding(rule="random", temperature=1.0, threshold=0.9999),
}


def masking(schedule: str = "linear") -> Masking:
    return Masking.over(TOKENS + 1, TOKENS, SCHEDULES[schedule])


def p_value(drawn: Tensor, oracle: Oracle, law: Tensor) -> float:
    """Chi-square of texts drawn (N, L) against law over oracle.texts; texts that are rarely expected are pooled."""
    power = torch.tensor([TOKENS ** (LENGTH - 1 - i) for i in range(LENGTH)])
    counts = torch.bincount((drawn * power).sum(1), minlength=len(law)).double()
    assert counts[law == 0].sum() == 0
    expected = law * len(drawn)
    often = expected >= 8
    seen = [*counts[often].tolist(), *([float(counts[~often].sum())] if expected[~often].sum() > 0 else [])]
    hoped = [*expected[often].tolist(), *([float(expected[~often].sum())] if expected[~often].sum() > 0 else [])]
    return float(stats.chisquare(seen, hoped, sum_check=False).pvalue)


def texts(
    oracle: Oracle, process: TokenNoise, settings: Decoding, known: list[int | None], draws: int = DRAWS
) -> Tensor:
    rows = [Row.gaps(known, seed=seed) for seed in range(draws)]
    return torch.tensor([text.tokens for text in decode(oracle, process, rows, settings)])


@pytest.mark.parametrize("settings", ONE_A_STEP.values(), ids=ONE_A_STEP)
def test_one_token_a_step_is_exact(settings: Decoding) -> None:
    oracle = Oracle(masking(), TOKENS, LENGTH)
    assert p_value(texts(oracle, masking(), settings, [None] * LENGTH), oracle, oracle.joint) > 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_ancestral_rule_is_exact_with_many_steps(schedule: str) -> None:
    process = masking(schedule)
    oracle = Oracle(process, TOKENS, LENGTH)
    oracle.network.time = None  # under masking the oracle's answer does not depend on t
    drawn = texts(oracle, process, Decoding(rule="ancestral", temperature=1.0, steps=80), [None] * LENGTH)
    assert p_value(drawn, oracle, oracle.joint) > 1e-3


@pytest.mark.parametrize("share", [0.0, 0.4], ids=["uniform", "hybrid"])
def test_the_ancestral_rule_undoes_other_token_noise(share: float) -> None:
    process = TokenNoise(torch.tensor([(1 - share) / TOKENS] * TOKENS + [share]), Cosine())
    oracle = Oracle(process, TOKENS, LENGTH)
    drawn = texts(oracle, process, Decoding(rule="ancestral", temperature=1.0, steps=40), [None] * LENGTH)
    assert p_value(drawn, oracle, oracle.joint) > 1e-3


@pytest.mark.parametrize(
    ("rule", "known"),
    [
        ("random", (None, 1, None)),
        ("left_to_right", (2, None, None)),
        ("left_to_right", (None, 1, None)),
        ("ancestral", (None, None, 0)),
    ],
)
def test_gaps_are_filled_from_the_conditional_distribution(rule: str, known: tuple[int | None, ...]) -> None:
    oracle = Oracle(masking(), TOKENS, LENGTH)
    oracle.network.time = None
    fits = torch.stack([oracle.texts[:, i] == v for i, v in enumerate(known) if v is not None]).all(0)
    law = oracle.joint * fits
    steps = 80 if rule == "ancestral" else None
    drawn = texts(oracle, masking(), Decoding(rule=rule, temperature=1.0, steps=steps), list(known))
    assert p_value(drawn, oracle, law / law.sum()) > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_no_mask_is_left_where_even_clean_text_is_a_little_noisy(steps: int) -> None:
    """Geometric noise has alpha(0) < 1: the reverse process alone would leave masks behind."""
    process = Masking.over(TOKENS + 1, TOKENS, Geometric(low=0.5))
    oracle = Oracle(process, TOKENS, LENGTH)
    rows = [Row.gaps([None] * LENGTH, seed) for seed in range(200)]
    for text in decode(oracle, process, rows, Decoding(rule="ancestral", temperature=1.0, steps=steps)):
        assert TOKENS not in text.tokens


def test_the_chi_square_would_notice() -> None:
    """Everything in one step draws every position on its own, and must fail."""
    oracle = Oracle(masking(), TOKENS, LENGTH)
    drawn = texts(oracle, masking(), Decoding(rule="random", temperature=1.0, steps=1), [None] * LENGTH)
    assert p_value(drawn, oracle, oracle.joint) < 1e-6


def test_commit_reaches_the_best_text_under_any_noise() -> None:
    """Greedy and one a step: an open token is pure noise and a settled one certain, whatever the noise is."""
    rested = {"masking": masking(), "uniform": TokenNoise(torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]), Linear())}
    rows = [Row.gaps([None] * LENGTH, seed=seed) for seed in range(5)]
    found = {name: decode(Oracle(p, TOKENS, LENGTH), p, rows, Decoding()) for name, p in rested.items()}
    assert [t.tokens for t in found["masking"]] == [t.tokens for t in found["uniform"]]
    assert len({tuple(t.tokens) for t in found["masking"]}) == 1
