"""How a network's output is read: which token it speaks of, what it may never say, and only where it is asked."""

import pytest
import torch

from unmask.denoiser import CleanLogits, Denoiser, NextToken, ShiftedLogits
from unmask.models.attention import Causal, Everything, Places
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

V, MASK = 20, 19
PLACES = {
    "single": None,
    "packed": Places(torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]] * 2), torch.tensor([[0] * 3 + [1] * 5] * 2)),
}
packed_or_not = pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)


@pytest.fixture(scope="module")
def network():
    model = Transformer(ModelConfig(vocab=V, width=16, layers=2, heads=2))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.3)
    return model.eval()


@pytest.fixture
def x():
    return torch.randint(0, MASK, (2, 8), generator=torch.Generator().manual_seed(1))


def wheres():
    rng = torch.Generator().manual_seed(2)
    yield from (torch.rand(2, 8, generator=rng) < share for share in (0.2, 0.5, 0.9))
    yield torch.ones(2, 8, dtype=torch.bool)
    yield torch.zeros(2, 8, dtype=torch.bool)
    first_two = torch.zeros(2, 8, dtype=torch.bool)
    first_two[:, :2] = True
    yield first_two


def raw(network, x, places, rule=Everything()):
    """(B, L, V) log-probabilities of the bare network, the mask banned."""
    logits = network.head(network(x, places, rule))
    return logits.index_fill(-1, torch.tensor([MASK]), -torch.inf).log_softmax(-1)


@packed_or_not
@torch.no_grad()
def test_clean_logits_speak_of_their_own_position(network, x, places):
    denoiser, full = Denoiser(network, mask_id=MASK), raw(network, x, places)
    for where in wheres():
        torch.testing.assert_close(denoiser(x, places=places, where=where).mu(), full[where], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(denoiser(x, places=places).mu(), full.flatten(0, 1), rtol=1e-5, atol=1e-5)


@packed_or_not
@torch.no_grad()
def test_shifted_logits_speak_of_the_next_position(network, x, places):
    """Dream's rule: cat([logits[:, :1], logits[:, :-1]]), begun anew with each document."""
    full = raw(network, x, places)
    position = Places.of(x).position if places is None else places.position
    expected = torch.where((position == 0)[..., None], full, full.roll(1, 1))
    denoiser = Denoiser(network, mask_id=MASK, head=ShiftedLogits())
    for where in wheres():
        torch.testing.assert_close(denoiser(x, places=places, where=where).mu(), expected[where], rtol=1e-5, atol=1e-5)


@packed_or_not
@torch.no_grad()
def test_next_token_sees_only_what_stands_before(network, x, places):
    denoiser = Denoiser(network, mask_id=MASK, rule=Causal(), head=NextToken(start=7))
    before = denoiser(x, places=places).mu().view(2, 8, V)
    position = Places.of(x).position if places is None else places.position
    for i in range(8):
        other = x.clone()
        other[:, i:] = (other[:, i:] + 1) % MASK
        after = denoiser(other, places=places).mu().view(2, 8, V)
        torch.testing.assert_close(after[:, : i + 1], before[:, : i + 1], rtol=1e-5, atol=1e-5)
        if i + 1 < 8 and position[0, i + 1] > 0:
            assert not torch.allclose(after[:, i + 1], before[:, i + 1])


@torch.no_grad()
def test_next_token_is_the_plain_shift_of_a_causal_network(network, x):
    """Fed [start, x_0, ...], the output at i is a usual causal model's at the token before: the familiar shift."""
    denoiser = Denoiser(network, mask_id=MASK, rule=Causal(), head=NextToken(start=7))
    fed = torch.cat([torch.full((2, 1), 7), x[:, :-1]], 1)
    torch.testing.assert_close(denoiser(x).mu().view(2, 8, V), raw(network, fed, None, Causal()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", [CleanLogits(), ShiftedLogits(), NextToken(0)], ids=repr)
def test_the_mask_is_never_a_prediction_and_cross_entropy_is_mus(network, x, head):
    denoiser, where = Denoiser(network, mask_id=MASK, head=head), x % 3 == 0
    prediction = denoiser(x, where=where)
    mu, targets, weights = prediction.mu(), x[where], torch.rand(int(where.sum()))
    assert (mu[:, MASK] == -torch.inf).all()
    torch.testing.assert_close(mu.exp().sum(1), torch.ones(len(mu)))
    total, nll = prediction.cross_entropy(targets, weights)
    torch.testing.assert_close(nll, -mu.gather(1, targets[:, None])[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total, (weights * nll).sum())


def test_the_banned_symbols_are_no_weight(network):
    denoiser = Denoiser(network, mask_id=MASK)
    assert not any("banned" in name for name in denoiser.state_dict())
    assert denoiser.vocab == V
