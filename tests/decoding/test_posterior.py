"""Guidance of steps: the guided law is what its definition says, by enumeration; under masking it writes the tokens
that guidance of tokens would, sooner where the given text decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import chains
import pytest
import torch
from stand_ins import MASK, Oracle, network
from test_exact import LENGTH, TOKENS, p_value, texts

from unmask.decoding.canvas import Row
from unmask.decoding.posterior import Posterior
from unmask.decoding.propose import Proposal
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser
from unmask.errors import UserError
from unmask.noise.draws import FromCounters
from unmask.noise.kernels import KernelNoise
from unmask.noise.schedule import Cosine, Geometric, Linear
from unmask.noise.tokens import Masking, TokenNoise

V = 5
NOISES = {
    "masks": Masking.over(V, V - 1, Cosine()),
    "uniform": TokenNoise(torch.full((V,), 1 / V, dtype=torch.float64), Linear()),
    "hybrid": TokenNoise(torch.tensor([0.1, 0.2, 0.3, 0.0, 0.4], dtype=torch.float64), Geometric(0.01, 3.0)),
}
TIMES = [(0.9, 0.4), (0.5, 0.45), (0.3, 0.01)]
SCALES = [0.0, 0.7, 3.0]
every = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
when = pytest.mark.parametrize(("t", "s"), TIMES)
how_much = pytest.mark.parametrize("scale", SCALES)
PLAIN = Proposal(temperature=1.0)


def views(seed: int = 0, n: int = V) -> torch.Tensor:
    """(n, 2, V): what is said of n positions with the given text in sight and without; never the mask."""
    values = 1.5 * torch.randn(n, 2, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[..., V - 1] = -torch.inf
    return values.log_softmax(-1)


def reachable(noise: TokenNoise) -> torch.Tensor:
    """States (N,) that are noise, or may be."""
    return (noise.pi > 0).nonzero()[:, 0]


def number(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def filled(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.full_like(x, t, dtype=torch.float64)


@every
@when
@how_much
def test_a_guided_step_is_the_power_of_two_posteriors(noise: TokenNoise, t: float, s: float, scale: float) -> None:
    """p(x_s | x_t, given) ^ (1 + w) / p(x_s | x_t) ^ w, normalised, each p summed over all clean tokens."""
    x, both = reachable(noise), views()[: len(reachable(noise))]
    sees, blind = (chains.posterior(noise, x[None], mu[None], number(t), number(s))[0] for mu in both.unbind(1))
    expected = torch.where(sees > 0, sees ** (1 + scale) / blind.clamp(min=1e-300) ** scale, 0.0)
    expected /= expected.sum(-1, keepdim=True)
    found = Posterior(scale).step(noise, x, both, filled(x, t), filled(x, s))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_under_any_kernel() -> None:
    """Structured noise: its kernel written out by a matrix exponential."""
    moves = torch.rand(V, V, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moves /= moves.sum(1, keepdim=True)
    noise, scale, t, s = KernelNoise.over(moves, Linear()), 1.3, number(0.6), number(0.3)
    rates = moves - torch.eye(V, dtype=torch.float64)
    early, step = ((-gone.log() * rates).matrix_exp() for gone in (1 - s, (1 - t) / (1 - s)))  # (from, to)
    x, both = torch.arange(V), views()
    each = both.exp() @ early * step.T[x][:, None]  # p(x_s) q(x_t | x_s), (N, 2, V)
    sees, blind = (each / each.sum(-1, keepdim=True)).unbind(1)
    expected = sees ** (1 + scale) / blind**scale
    found = Posterior(scale).step(noise, x, both, filled(x, 0.6), filled(x, 0.3))
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True), rtol=1e-9, atol=1e-12)


@when
@how_much
def test_under_masking_it_writes_the_same_tokens_at_other_times(t: float, s: float, scale: float) -> None:
    noise, both, guidance = NOISES["masks"], views(), Posterior(scale)
    x = torch.full((len(both),), V - 1)
    found = guidance.step(noise, x, both, filled(x, t), filled(x, s))
    written = found[:, :-1] / found[:, :-1].sum(-1, keepdim=True)
    torch.testing.assert_close(written, guidance.tokens(both).exp()[:, :-1])
    sees, blind = both[..., :-1].exp().unbind(1)
    gain = (sees ** (1 + scale) / blind**scale).sum(-1)
    assert (gain >= 1 - 1e-12).all()
    a_t, a_s = (noise.schedule.alpha(number(at)) for at in (t, s))
    lifted = (a_s - a_t) * gain / ((a_s - a_t) * gain + 1 - a_s)
    torch.testing.assert_close(1 - found[:, -1], lifted)


def test_in_small_steps_it_is_guidance_of_rates() -> None:
    """Discrete guidance (Nisonoff et al.): the rate of every jump to the power 1 + w, over the blind one's to the w."""
    noise, both, scale, step = NOISES["uniform"], views(), 1.7, 1e-6
    x = torch.arange(V)
    found = Posterior(scale).step(noise, x, both, filled(x, 0.5), filled(x, 0.5 - step)) / step
    rates = noise.rates(x)[:, None] * noise.speed(number(0.5)) * torch.stack(
        [noise.log_score(x, mu, filled(x, 0.5)) for mu in both.unbind(1)], 1
    ).exp()  # fmt: skip
    expected = rates[:, 0] ** (1 + scale) / rates[:, 1] ** scale
    elsewhere = ~torch.eye(V, dtype=torch.bool)
    torch.testing.assert_close(found[elsewhere], expected[elsewhere], rtol=1e-4, atol=0)


@every
def test_without_a_scale_it_is_the_reverse_process(noise: TokenNoise) -> None:
    x, both = reachable(noise), views()[: len(reachable(noise))]
    t, s = filled(x, 0.8), filled(x, 0.5)
    plain = noise.arrival(x, t, s) * noise.marginal(both[:, 0].exp(), s)
    torch.testing.assert_close(Posterior(0.0).step(noise, x, both, t, s), plain / plain.sum(-1, keepdim=True))


@pytest.mark.parametrize("proposal", [Proposal(), Proposal(0.5), Proposal(1.0, top_p=0.6), Proposal(2.0, top_k=2)])
def test_what_a_proposal_leaves_of_it_is_what_it_leaves_of_guided_tokens(proposal: Proposal) -> None:
    both, guidance = views(3, 40), Posterior(1.2)
    law = guidance.law(both, proposal)
    torch.testing.assert_close(guidance.tokens(law), proposal.law(guidance.tokens(both)))


def test_draws_follow_the_law() -> None:
    noise, n = NOISES["hybrid"], 40_000
    x, both = torch.full((n,), 1), views()[:1].expand(n, -1, -1)
    rng = FromCounters(torch.arange(n), torch.zeros(n, 1, dtype=torch.int64))
    drawn = Posterior(2.0).reverse(noise, x, both, filled(x, 0.7), filled(x, 0.2), rng.at(torch.ones(n, 1).bool()))
    law = Posterior(2.0).step(noise, x[:1], both[:1], filled(x[:1], 0.7), filled(x[:1], 0.2))[0]
    assert (torch.bincount(drawn, minlength=V) / n - law).abs().max() < 4.5 * 0.5 / n**0.5


# -- in the loop

GIVEN: list[int | None] = [1, None, None]
SAMPLED = {
    "masks": Masking.over(TOKENS + 1, TOKENS),
    "uniform": TokenNoise(torch.tensor([1 / TOKENS] * TOKENS + [0.0], dtype=torch.float64), Linear()),
}


class Told(Oracle):
    """An oracle of every text under uniform noise, or masks, told the time of each position."""

    def __init__(self, process: TokenNoise) -> None:
        super().__init__(process, TOKENS, LENGTH)
        self.mask_id, self.network.told = TOKENS, lambda t: t


def way(rule: str | dict[str, Any], scale: float, steps: int) -> Decoding:
    return Decoding(rule=rule, guidance={"kind": "posterior", "scale": scale}, temperature=1.0, steps=steps)


@pytest.mark.parametrize("noise", SAMPLED)
@pytest.mark.parametrize("rule", ["ancestral", {"kind": "psi", "early": 0.3, "middle": 0.3, "late": 0.3}], ids=str)
def test_whole_texts_follow_the_guided_chain(noise: str, rule: str | dict[str, Any]) -> None:
    """Chi-square of what the loop writes against the chain of guided steps, every state of it enumerated. Blind, the
    given token is pure noise: known noise, so it says nothing, whatever it is."""
    process, scale, steps = SAMPLED[noise], 1.5, 3
    oracle, renewed = Told(process), 0.0 if rule == "ancestral" else 0.3

    def kernel(x: torch.Tensor, mu: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        both = torch.stack([mu, hidden(oracle, x, t)], 2)
        sees, blind = (chains.posterior(process, x, part, t, s) for part in both.unbind(2))
        step = powers(sees, blind, scale)
        sure = (chains.beliefs(process, x, part, t) for part in both.unbind(2))
        return (1 - renewed) * step + renewed * chains.noised(process, powers(*sure, scale), s)

    def ends(process: TokenNoise, x: torch.Tensor, mu: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return powers(*(chains.beliefs(process, x, part, t) for part in (mu, hidden(oracle, x, t))), scale)

    expected = chains.law(oracle, [1.0, 2 / 3, 1 / 3, 0.0], kernel, GIVEN, ends)
    drawn = texts(oracle, process, way(rule, scale, steps), GIVEN, 4000)
    assert p_value(drawn, oracle, expected) > 1e-3
    plain = texts(oracle, process, replace(way(rule, scale, steps), guidance=0.0), GIVEN, 1000)
    assert p_value(plain, oracle, expected) < 1e-6, "the chi-square would notice"


def powers(sees: torch.Tensor, blind: torch.Tensor, scale: float) -> torch.Tensor:
    found = torch.where((sees > 0) & (blind > 0), sees ** (1 + scale) / blind.clamp(min=1e-300) ** scale, 0.0)
    return found / found.sum(-1, keepdim=True)


def hidden(oracle: Oracle, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """What the oracle says without the given text."""
    unknown = torch.tensor([v is not None for v in GIVEN])
    noise = int(oracle.process.pi.argmax())
    return oracle.table(torch.where(unknown, noise, x), torch.where(unknown, 1.0, t.float()).expand(x.shape))


def test_the_best_tokens_are_those_of_guided_tokens(masked: Denoiser, masking: Masking) -> None:
    """At temperature 0 and in one step there is nothing else to it."""
    rows = [Row.after([1, 2, seed], 6, seed) for seed in range(4)]
    of_steps = Decoding(rule="ancestral", guidance={"kind": "posterior", "scale": 2.0}, steps=1)
    of_tokens = replace(of_steps, guidance=2.0)
    assert [t.tokens for t in decode(masked, masking, rows, of_steps)] == [
        t.tokens for t in decode(masked, masking, rows, of_tokens)
    ]


def test_of_scale_0_it_is_not_there(masked: Denoiser, masking: Masking) -> None:
    rows = [Row.after([1, 2], 6, seed) for seed in range(4)]
    found = [
        decode(masked, masking, rows, how)
        for how in (way("ancestral", 0, 6), replace(way("ancestral", 0, 6), guidance=0.0))
    ]
    assert [t.tokens for t in found[0]] == [t.tokens for t in found[1]]
    assert found[0][0].counts.queries == found[1][0].counts.queries


def test_banned_tokens_stay_out(masked: Denoiser, masking: Masking) -> None:
    rows = [Row.after([1, 2], 9, seed) for seed in range(6)]
    how = replace(way("remdm_cap", 1.0, 12), ban=list(range(6)))
    assert not {token for text in decode(masked, masking, rows, how) for token in text.tokens} & set(range(6))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"rule": "confidence"}, "guidance: the confidence rule takes no steps that could be guided"),
        ({"rule": "first_hitting"}, "guidance: the first_hitting rule takes no steps"),
        ({"rule": "ancestral", "regex": "a*"}, "guidance: of steps, it does not go with regex"),
        ({"rule": "ancestral", "guidance": {"kind": "posterior", "scale": -1}}, "guidance=-1.0 is not a number"),
        ({"rule": "ancestral", "guidance": {"kind": "posteriors"}}, "did you mean 'posterior'"),
        ({"rule": "ancestral", "guidance": {"kind": "posterior", "w": 1}}, "guidance.w: posterior has no such option"),
    ],
)
def test_what_does_not_go_together_is_said(how: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Decoding(**{"guidance": {"kind": "posterior", "scale": 1.0}, **how})


def test_a_model_whose_own_rule_takes_no_steps_says_so(masked: Denoiser, masking: Masking) -> None:
    with pytest.raises(UserError, match="guidance: the confidence rule takes no steps"):
        decode(masked, masking, [Row.after([1], 3)], Decoding(guidance={"kind": "posterior"}))


def test_a_network_that_is_told_the_noise_of_each_token_needs_no_mask() -> None:
    """Uniform noise: the given text is hidden behind random tokens that the network knows for such."""
    process = TokenNoise(torch.tensor([1 / MASK] * MASK + [0.0]), Linear())
    told = {scope: Denoiser(network(time="adaln", time_scope=scope), mask_id=MASK) for scope in ("position", "row")}
    how = Decoding(rule="ancestral", guidance=1.0, temperature=1.0, steps=4)
    assert len(decode(told["position"], process, [Row.after([1, 2], 5)], how)[0].tokens) == 5
    with pytest.raises(UserError, match="guidance: it hides the given text behind noise"):
        decode(told["row"], process, [Row.after([1, 2], 5)], how)
