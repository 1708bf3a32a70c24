"""Structured kernels: given the Bayes-optimal denoiser the bound is -log p(x) for every x (what the schedule leaves at
t = 1 taken into account, as in test_uniform.py), and the ancestral sampler draws from p."""

import pytest
import torch
from noisy import Enumerated, as_many, drawn, p_value
from toy import MASK, SYMBOLS, Toy

from unmask.decoding.settings import Decoding
from unmask.methods.structured import Structured
from unmask.noise.kernels import KernelNoise
from unmask.noise.schedule import Geometric, LogLinear

LOPSIDED = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.3, 0.7], [0.6, 0.2, 0.2]], dtype=torch.float64)
PAIRED = torch.tensor([[0.4, 0.6], [0.5, 0.5]], dtype=torch.float64)
TO_MASK = torch.tensor(
    [[0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)
KERNELS = {
    "any matrix": lambda schedule: KernelNoise.over(LOPSIDED, schedule, torch.tensor([0, 1, 2, 0]), [MASK], rate=2.0),
    "groups": lambda schedule: KernelNoise.over(PAIRED, schedule, torch.tensor([0, 0, 1, 0]), [MASK]),
    "absorbing in steps": lambda schedule: KernelNoise.over(TO_MASK, schedule),
    "the method": lambda schedule: Structured(schedule=schedule, near=2, groups=3).noise(SYMBOLS, MASK, [MASK]),
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


@pytest.mark.parametrize("schedule", [LogLinear(), Geometric(high=10.0)], ids=repr)
@every_kernel
def test_the_bound_is_tight_for_every_text(kernel, schedule):
    process = kernel(schedule)
    all = Enumerated(process, Toy(2))
    exact = all.divergence(0.0) - all.divergence(1.0)
    assert (all.integral(process.nelbo) - exact).abs().max() < 1e-4
    assert (exact - all.toy.nats).abs().max() < 0.25


@every_kernel
@as_many
def test_the_ancestral_sampler_draws_from_the_data(kernel, draws):
    """Most of the text is written near t = 0, where jumps to near tokens are undone: that takes many steps."""
    toy, process = Toy(2), kernel(LogLinear())
    settings = Decoding(rule="ancestral", temperature=1.0, steps=240 if draws > 4000 else 120)
    assert p_value(drawn(process, toy, settings, [None] * 2, draws), toy.joint) > 1e-3
