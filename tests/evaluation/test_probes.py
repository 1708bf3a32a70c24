"""The probes of networks whose every answer is known."""

import math

import pytest
import torch
from torch import nn

from unmask.data.packing import Batch
from unmask.denoiser import Prediction
from unmask.evaluation.probes import by_distance, frequencies, smoothness

V, MASK = 5, 4


class Parrot(nn.Module):
    """Says with chance `sure` that a token is like the nearest visible one to its left, and knows nothing else."""

    echo, mask_id = None, MASK

    def __init__(self, sure: float):
        super().__init__()
        self.sure = sure
        self.register_buffer("banned", torch.tensor([MASK]))

    def forward(self, x, t, *, places, where):
        last = x.clone()
        for i in range(1, x.shape[1]):
            last[:, i] = torch.where(x[:, i] == MASK, last[:, i - 1], x[:, i])
        p = torch.full((*x.shape, V), (1 - self.sure) / (V - 2))
        p[..., MASK] = 0
        p = torch.where((last == MASK)[..., None], torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0]), p)
        p = p.scatter(-1, last[..., None], torch.where(last == MASK, 0.0, self.sure)[..., None])
        return Prediction(p[where].log().clamp(min=-1e4), torch.eye(V), self.banned)


def test_frequencies_add_one():
    found = frequencies([[0, 0, 1], [0]], 4)
    torch.testing.assert_close(found, torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64) / 8)


def test_distance_by_hand():
    """After the prompt 1 1 the parrot says 1 for ever; every text says 1 2 2."""
    [one, two, three] = by_distance(Parrot(0.7), [[1, 1, 1, 2, 2]] * 3, 2, frequencies([[1, 1, 2]], V), top=1, batch=2)
    assert [d.distance for d in (one, two, three)] == [1, 2, 3]
    assert (one.right, two.right, three.right) == (1, 0, 0)
    assert (one.frequent, two.frequent) == (1, 1)
    assert (one.truly, two.truly) == (1, 0)
    assert one.nats == pytest.approx(-math.log(0.7), rel=1e-5)
    assert two.nats == pytest.approx(-math.log(0.1), rel=1e-5)
    assert three.entropy == pytest.approx(-0.7 * math.log(0.7) - 0.3 * math.log(0.1), rel=1e-5)


def test_information_fades_with_the_noise():
    """A text of one token again and again: with anything visible to its left the parrot is 0.9 sure."""
    tokens = torch.full((200, 12), 2)
    zeros = torch.zeros_like(tokens)
    batch = Batch(tokens, zeros, torch.arange(12).expand(200, 12), torch.ones_like(tokens, dtype=torch.bool))
    uniform = torch.full((V,), 0.25, dtype=torch.float64)
    found = smoothness(Parrot(0.9), [batch], uniform, [0.25, 0.5, 1.0])
    assert [level.level for level in found] == [0.25, 0.5, 1.0]
    assert found[0].nats < found[1].nats < found[2].nats
    blank = found[-1]
    assert (blank.nats, blank.recovered, blank.spread) == pytest.approx((math.log(4), 0.0, 0.0), abs=1e-5)
    assert found[0].recovered == pytest.approx(math.log(4) - found[0].nats)
