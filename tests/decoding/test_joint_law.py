"""Samplers that take back what they wrote, against the law of whole texts. Each moves a position by a kernel that keeps
the law of noised texts exactly, which is algebra; it moves all positions at once, which is the error of steps and goes
away with them; and what the loop writes, of whatever so many steps make, is drawn from the law of that very chain."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import chains
import pytest
import torch
import torch.nn.functional as F
from stand_ins import Oracle
from test_exact import LENGTH, TOKENS, masking, p_value, texts
from torch import Tensor

from unmask.decoding.ancestral import Ancestral
from unmask.decoding.settings import Decoding
from unmask.noise.tokens import TokenNoise

MASK = TOKENS
Sigma = Callable[[float, float], float]  # of alpha_s and the most that it may be


def remdm(sigma: Sigma, still: bool = False) -> chains.Kernel:
    """ReMDM, eq. 6: written tokens are masked with probability sigma, masks written so that the marginals hold. still:
    only while time stands still."""

    def kernel(x: Tensor, mu: Tensor, t: Tensor, s: Tensor) -> Tensor:
        a_t, a_s = 1 - float(t), 1 - float(s)
        most = min(1.0, (1 - a_s) / a_t) if a_t > 0 else 1.0
        back = min(sigma(a_s, most), 1 - a_s) if t == s or not still else 0.0
        mask = F.one_hot(torch.tensor(MASK), TOKENS + 1).double()
        kept = (1 - back) * F.one_hot(x, TOKENS + 1).double() + back * mask
        write = ((a_s - (1 - back) * a_t) / (1 - a_t)) * mu.exp() + ((1 - a_s - back * a_t) / (1 - a_t)) * mask
        return torch.where((x == MASK)[..., None], write, kept)

    return kernel


def psi(process: TokenNoise, chance: float) -> chains.Kernel:
    """Posterior, or with that chance predicted and noised anew."""

    def kernel(x: Tensor, mu: Tensor, t: Tensor, s: Tensor) -> Tensor:
        anew = chains.noised(process, chains.beliefs(process, x, mu, t), s)
        return (1 - chance) * chains.posterior(process, x, mu, t, s) + chance * anew

    return kernel


def even(steps: int) -> list[float]:
    return [left / steps for left in range(steps, -1, -1)]


def looped(steps: int) -> list[float]:
    """ReMDM-loop: to a share 0.9 written at 0.55 of the way, there until 0.05, then on."""
    return [0.1 + (u - 0.55) / 0.45 * 0.9 if u > 0.55 else 0.1 if u > 0.05 else u / 0.05 * 0.1 for u in even(steps)]


@dataclass(frozen=True)
class Corrector:
    rule: dict[str, Any]
    process: TokenNoise
    kernel: chains.Kernel
    times: Callable[[int], Sequence[float]] = even


UNIFORM = TokenNoise(torch.tensor([1 / TOKENS] * TOKENS + [0.0], dtype=torch.float64), masking().schedule)


def correctors(eta: float) -> dict[str, Corrector]:
    always = {"kind": "psi", "early": eta, "middle": eta, "late": eta}
    return {
        "cap": Corrector({"kind": "remdm_cap", "eta": eta}, masking(), remdm(lambda a_s, most: min(eta, most))),
        "rescale": Corrector({"kind": "remdm_rescale", "eta": eta}, masking(), remdm(lambda a_s, most: eta * most)),
        "loop": Corrector(
            {"kind": "remdm_loop", "eta": eta}, masking(), remdm(lambda a_s, most: min(eta, most), True), looped
        ),
        "psi": Corrector(always, masking(), psi(masking(), eta)),
        "psi, uniform": Corrector(always, UNIFORM, psi(UNIFORM, eta)),
    }


every = pytest.mark.parametrize("name", correctors(0.3))


@every
def test_one_position_after_another_it_is_exact(name: str) -> None:
    """In any number of steps, however much is taken back."""
    found = correctors(0.3)[name]
    oracle = Oracle(found.process, TOKENS, LENGTH)
    torch.testing.assert_close(chains.one_by_one(oracle, found.times(4), found.kernel), oracle.joint)


@every
def test_all_at_once_the_error_goes_away_with_the_steps(name: str) -> None:
    """Half of it with twice the steps, where as much is taken back in all."""

    def off(steps: int) -> float:
        found = correctors(1 / steps)[name]
        oracle = Oracle(found.process, TOKENS, LENGTH)
        return float((chains.law(oracle, found.times(steps), found.kernel) - oracle.joint).abs().sum() / 2)

    errors = [off(steps) for steps in (20, 40, 80)]
    assert errors[0] < 0.1
    assert all(0.4 < after / before < 0.6 for before, after in itertools.pairwise(errors)), errors


@every
def test_what_is_written_is_drawn_from_the_chain(name: str) -> None:
    found, steps = correctors(0.3)[name], 20 if name == "loop" else 5
    oracle = Oracle(found.process, TOKENS, LENGTH)
    oracle.network.time = None if found.process is not UNIFORM else oracle.network.time
    law = chains.law(oracle, found.times(steps), found.kernel)
    drawn = texts(oracle, found.process, Decoding(rule=found.rule, temperature=1.0, steps=steps), [None] * LENGTH, 2500)
    assert p_value(drawn, oracle, law) > 1e-3


@every
def test_the_chance_of_noising_anew_is_that_of_the_published_kernel(name: str) -> None:
    """(1 - r) p(x_s | x_t) + r q_s(. | x0): the one law of `ancestral` is ReMDM's."""
    found = correctors(0.3)[name]
    denoiser = SimpleNamespace(network=SimpleNamespace(time=None), echo=None)
    stepper = Decoding(rule=found.rule, temperature=1.0).stepper(denoiser)
    assert isinstance(stepper, Ancestral)
    oracle = Oracle(found.process, TOKENS, LENGTH)
    x = chains.states(found.process, LENGTH)
    for t, s in itertools.pairwise(found.times(20)[1:-1]):  # before the first step, all is noise
        t, s = (torch.tensor(at, dtype=torch.float64) for at in (t, s))
        mu = oracle.table(x, t.expand(x.shape))
        chance = stepper.renewal(found.process, t, s, torch.zeros(()).double())
        expected = psi(found.process, float(chance))(x, mu, t, s)
        torch.testing.assert_close(found.kernel(x, mu, t, s), expected, equal_nan=True, rtol=1e-6, atol=1e-7)
