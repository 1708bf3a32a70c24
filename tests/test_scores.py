"""A network that speaks of scores: how its output is read, and what else can be asked of it."""

import pytest
import torch

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits, Denoiser
from unmask.errors import UserError
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer
from unmask.noise.schedule import Geometric, LogLinear
from unmask.noise.tokens import Masking, TokenNoise, resting
from unmask.scores import LogScore

V, MASK = 9, 8
NOISES = {
    "absorb": (Masking.over(V, MASK, LogLinear()), True),
    "uniform": (TokenNoise(resting(V, [MASK]), Geometric(1e-4)), False),
}
every_graph = pytest.mark.parametrize("graph", NOISES)


def denoiser(graph, head=None):
    network = Transformer(ModelConfig(vocab=V, width=16, layers=1, heads=2, time="adaln", time_width=8))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.3)
    noise, scaled = NOISES[graph]
    return Denoiser(network, mask_id=MASK, head=LogScore(noise, scaled) if head is None else head)


def case(graph):
    x = torch.tensor([[0, 3, 5, 1], [2, 7, 4, 6]])
    x = torch.where(torch.tensor([[True, False, True, True], [False, True, True, False]]), x, MASK)
    if graph == "uniform":
        x = x.clamp(max=MASK - 1)
    return x, torch.where(torch.arange(4) < 4, 0.4, 0.0).expand(2, 4)


@every_graph
def test_log_scores_are_the_networks_word_less_what_is_known(graph):
    x, t = case(graph)
    sigma = -NOISES[graph][0].schedule.alpha(t.double()).log()
    raw = denoiser(graph, CleanLogits())(x, t).logits()
    known = torch.expm1(sigma).log().flatten()[:, None] + torch.tensor(V - 1.0).log() if graph == "absorb" else 0.0
    found = denoiser(graph)(x, t).log_score()
    expected = (raw - known).float().scatter(1, x.flatten()[:, None], 0.0)
    torch.testing.assert_close(found, expected)
    assert (found.gather(1, x.flatten()[:, None]) == 0).all()


@every_graph
def test_mu_has_these_scores(graph):
    """Under masking any scores have a mu, up to their sum, which is then right."""
    x, t = case(graph)
    prediction, noise = denoiser(graph)(x, t), NOISES[graph][0]
    mu = prediction.mu()
    torch.testing.assert_close(mu.exp().sum(1), torch.ones(8))
    assert (mu[:, MASK] == -torch.inf).all()
    if graph == "absorb":
        open = (x == MASK).flatten()
        torch.testing.assert_close(mu[open], denoiser(graph, CleanLogits())(x, t).mu()[open], rtol=1e-4, atol=1e-4)
        back = noise.log_score(x.flatten(), mu, t.flatten())[open, :MASK]
        gap = back - prediction.log_score()[open, :MASK]
        torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), rtol=1e-3, atol=1e-3)


@every_graph
def test_costs_are_those_of_what_is_held_in_full(graph):
    x, t = case(graph)
    model = denoiser(graph)
    weights, targets = torch.rand(8), torch.arange(8) % MASK
    prediction = model(x, t)
    total, nats = prediction.cross_entropy(targets, weights)
    torch.testing.assert_close(nats, -prediction.mu().gather(1, targets[:, None])[:, 0])
    found, _ = prediction.score_cost(lambda score, rows: score.clamp(min=-9).exp().sum(-1), weights)
    torch.testing.assert_close(found, (weights * prediction.log_score().clamp(min=-9).exp().sum(-1)).sum())
    found.backward()
    assert all(p.grad.isfinite().all() for p in model.network.parameters() if p.grad is not None)
    assert total.isfinite()


@pytest.mark.parametrize("rule", ["euler", "analytic"])
def test_score_samplers_want_scores(rule):
    model = denoiser("absorb", CleanLogits())
    with pytest.raises(UserError, match="sedd"):
        decode(model, NOISES["absorb"][0], [Row.gaps([None, 1])], Decoding(rule=rule))


@pytest.mark.parametrize("rule", ["confidence", "entropy", "random", "left_to_right", "ancestral"])
def test_other_rules_write_with_an_absorbing_score_model_too(rule):
    rows = [Row.gaps([None, 1, None, None], seed) for seed in range(3)]
    for text in decode(denoiser("absorb"), NOISES["absorb"][0], rows, Decoding(rule=rule, temperature=0.5)):
        assert MASK not in text.tokens
        assert text.tokens[1] == 1
