"""Second thoughts: at first nobody listens, a network that does is told the right thing, and learns from it."""

import pytest
import torch
from torch import nn

from unmask.denoiser import Denoiser
from unmask.echo import SoftMask, believed
from unmask.layout import Whole
from unmask.methods.continuous import Continuous
from unmask.methods.masked import Masked
from unmask.methods.method import Symbols
from unmask.models.attention import Places
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer
from unmask.objectives.reflection import asked

V, MASK = 11, 10
SYMBOLS = Symbols(V, MASK, 0)
ECHOES = {"added": believed, "soft": SoftMask(MASK, 3)}


def network(feedback, seed=0):
    net = Transformer(ModelConfig(vocab=V, width=16, layers=2, heads=2, context=16, feedback=feedback))
    rng = torch.Generator().manual_seed(seed)
    net.initialise(rng)
    nn.init.normal_(net.head.weight, std=0.7, generator=rng)
    for block in net.blocks:
        nn.init.normal_(block.attention.out.weight, std=0.3, generator=rng)
    return net


@pytest.fixture
def view():
    tokens = torch.randint(0, MASK, (3, 8), generator=torch.Generator().manual_seed(1))
    masked = torch.rand(3, 8, generator=torch.Generator().manual_seed(2)) < 0.5
    noisy = tokens.masked_fill(masked, MASK)
    return Whole().view(tokens, noisy, masked.float(), Places.of(tokens), masked)


@pytest.mark.parametrize("feedback", ECHOES)
def test_at_first_it_is_the_model_without(feedback, view):
    listening, deaf = network(feedback), network("none")
    deaf.load_state_dict(listening.state_dict(), strict=False)
    denoiser = Denoiser(listening, mask_id=MASK, echo=ECHOES[feedback])
    plain = asked(Denoiser(deaf, mask_id=MASK), view, again=True).mu()
    for again in (False, True):
        torch.testing.assert_close(asked(denoiser, view, again).mu(), plain)


@pytest.mark.parametrize("feedback", ECHOES)
def test_a_network_that_listens_is_told_its_first_word(feedback, view):
    net = network(feedback)
    with torch.no_grad():
        for p in net.feedback.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    denoiser = Denoiser(net, mask_id=MASK, echo=ECHOES[feedback])
    first = asked(denoiser, view, again=False).mu()
    told = torch.zeros(*view.x.shape, 16)
    if feedback == "added":
        told[view.where] = first.exp() @ net.embed.weight
    else:
        entropy = -torch.special.xlogy(first.exp(), first.exp()).sum(-1)
        s, a, b = net.feedback.scale, net.feedback.steepness, net.feedback.offset
        best = first.exp().topk(3)
        mean = torch.einsum(
            "nk,nkd->nd", best.values / best.values.sum(-1, keepdim=True), net.embed.weight[best.indices]
        )
        share = s / (1 + torch.exp(-a * (-entropy - b)))
        told[view.where] = share[:, None] * (mean - net.embed.weight[MASK])
    expected = denoiser(view.x, view.t, places=view.places, where=view.where, feedback=told).mu()
    second = asked(denoiser, view, again=True).mu()
    torch.testing.assert_close(second, expected)
    assert (second - first)[:, :MASK].abs().max() > 1e-3


def test_a_full_share_of_a_sure_belief_is_the_token_itself(view):
    """With lam = 1 and all belief in one token, the position looks as if that token stood there."""
    net = network("soft")
    with torch.no_grad():
        net.feedback.scale.fill_(1.0)
        net.feedback.steepness.fill_(1000.0)
    mu = torch.full((1, V), -torch.inf).index_fill(1, torch.tensor([4]), 0.0)
    told = torch.zeros(1, 2, 16)
    told[0, 1] = SoftMask(MASK)(net, mu, torch.tensor([MASK]), torch.ones(1))[0]
    soft = net(torch.tensor([[3, MASK]]), feedback=told)
    torch.testing.assert_close(soft, net(torch.tensor([[3, 4]])))


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("feedback", ECHOES)
def test_all_weights_learn_in_every_step(feedback, again, view):
    net = network(feedback)
    said = asked(Denoiser(net, mask_id=MASK, echo=ECHOES[feedback]), view, again)
    targets = torch.arange(len(said.hidden)) % MASK
    said.cross_entropy(targets, torch.ones(len(targets)))[0].backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    moved = any(bool(p.grad.abs().sum() > 0) for p in net.feedback.parameters())
    assert moved == again


@pytest.mark.parametrize(
    ("method", "input"),
    [
        (Masked(), "none"),
        (Masked(feedback="beliefs"), "added"),
        (Masked(feedback="soft"), "soft"),
        (Continuous(), "added"),
    ],
    ids=repr,
)
def test_a_method_shapes_its_network(method, input):
    config = method.shape(ModelConfig(vocab=V, width=16, heads=2, layers=1))
    assert config.feedback == input
    denoiser = method.denoiser(Transformer(config), SYMBOLS)
    assert (denoiser.echo is None) == (input == "none")
