"""The spread of a loss whose noise and whose texts are known."""

import pytest
import torch
from torch import nn

from unmask.data.packing import Batch
from unmask.evaluation.variance import gradient_noise, loss_spread
from unmask.objectives.objective import Loss


class Scale(nn.Module):
    """A denoiser of two weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("banned", torch.tensor([0]))


class Noisy:
    """The batch's first token, and a normal draw times `size`, both times the first weight: their gradient too."""

    def __init__(self, size):
        self.size = size

    def count(self, batch):
        return 2

    def __call__(self, denoiser, batch, rng):
        draw = torch.randn((), generator=rng.generator)
        return Loss(2 * denoiser.weight[0] * (float(batch.tokens[0, 0]) + self.size * draw), 2)


def batch(first: int) -> Batch:
    zeros = torch.zeros(1, 2, dtype=torch.int64)
    return Batch(torch.tensor([[first, 1]]), zeros, zeros, torch.ones(1, 2, dtype=torch.bool))


def test_a_loss_without_noise_has_the_spread_of_its_texts():
    found = loss_spread(Scale(), Noisy(0.0), [batch(1), batch(3)], draws=3)
    assert (found.mean, found.noise, found.total) == pytest.approx((2.0, 0.0, 2.0))


def test_noise_and_texts_are_told_apart():
    texts = [batch(n % 5) for n in range(200)]
    found = loss_spread(Scale(), Noisy(0.5), texts, draws=4)
    assert found.noise == pytest.approx(0.25, rel=0.25)
    assert found.total == pytest.approx(0.25 + 2.0, rel=0.25)


def test_the_gradients_mean_and_variance():
    square, variance = gradient_noise(Scale(), Noisy(0.5), batch(3), draws=600)
    assert variance == pytest.approx(0.25, rel=0.2)
    assert square == pytest.approx(9.0, rel=0.02)
