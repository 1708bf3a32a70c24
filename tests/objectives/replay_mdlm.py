"""MDLM: its loss and the variants of it, the laws its samplers draw from, the times it trains at."""

from __future__ import annotations

import math
from unittest.mock import patch

import torch
from references import Reference, close, network, same
from replay_schedules import even_weights
from torch import Tensor

from unmask.decoding.scores import analytic, clean
from unmask.layout import spread
from unmask.noise.schedule import Linear, LogLinear
from unmask.noise.tokens import Masking, TokenNoise

EPS = 1e-3
NOISE = LogLinear(EPS)


def law(noise: TokenNoise, x: Tensor, mu: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """p(x_s | x_t), as far as the factor that makes it one."""
    return noise.arrival(x, t, s).to(mu) * noise.marginal(mu.exp(), s)


def finite(published: Tensor) -> Tensor:
    """MDLM's -inf is -1e6."""
    return published.masked_fill(published < -1e5, -torch.inf)


def nelbo(case: Reference) -> None:
    for suffix, name in (("", "mdlm"), ("_timecond", "mdlm-timecond")):
        one = {key: case[key + suffix] for key in ("x0", "xt", "t", "u", "attention_mask", "sigma", "dsigma")}
        losses(case, suffix, name, **one)
        steps(case, suffix, name, one["xt"], one["t"])
    times(case)


def losses(case, suffix, name, x0, xt, t, u, attention_mask, sigma, dsigma) -> None:
    process, every = network(name).process, t[:, None].expand(x0.shape)
    assert process.schedule == NOISE
    close(-NOISE.alpha(t.double()).log(), sigma)
    close(process.speed(t), dsigma)
    same(torch.where(u < -torch.expm1(-sigma)[:, None], process.mask_id, x0), xt)

    def loss(variant: str, told: Tensor, noise: Masking, at: Tensor, factor: float = 1.0) -> None:
        nlls = factor * noise.nelbo(said(name, xt, told), x0, xt, at[:, None].expand(x0.shape)) * attention_mask
        close(nlls, case[f"nlls{variant}{suffix}"])
        close(nlls.sum() / attention_mask.sum(), case[f"loss{variant}{suffix}"])

    mu = process.beliefs(xt, said(name, xt, t), every)
    close(mu, finite(case["log_p_theta" + suffix]))
    loss("", t, process, t)
    even = Masking.over(process.vocab, process.mask_id, even_weights(NOISE, EPS))
    # the weight of its variants of even weights lets mask rates go up to 1, which its times do not
    least, most = even.schedule.least, even.schedule.most
    theirs = math.log(least) / math.log(least / most)
    loss("_importance_sampling", t, even, t, theirs)
    named = NOISE.time(torch.exp(-t.double())).float()  # the network is told t in the place of sigma
    loss("_change_of_variables", named, even, t, theirs)
    grid = (t * 100).floor() / 100 + 1 / 100  # a time step's weight is that of a line, whatever the noise
    loss("_T100", grid, Masking.over(process.vocab, process.mask_id, Linear()), grid)


def said(name: str, xt: Tensor, t: Tensor) -> Tensor:
    """mu (B, L, V)."""
    return network(name)(xt, t[:, None].expand(xt.shape)).mu().unflatten(0, xt.shape)


def steps(case: Reference, suffix: str, name: str, xt: Tensor, t: Tensor) -> None:
    """From t to t - dt, what a masked position would become; published for all, written where masked."""
    process, dt = network(name).process, case.said["dt"]
    mu, t = finite(case["log_p_theta" + suffix]).flatten(0, 1), t.double().repeat_interleave(xt.shape[1])
    masked = torch.full_like(xt, process.mask_id).flatten()

    def published(key: str) -> Tensor:
        return case[key + suffix].flatten(0, 1)

    # its cached sampler takes t itself for the mask rate: the step of a linear schedule
    line = TokenNoise(process.pi, Linear())
    close(law(line, masked, mu, t, t - dt), published("ddpm_cache_probs"))
    score = process.log_score(xt.flatten(), mu, t).exp()
    close(analytic(process, score, xt.flatten(), t, t - dt), published("analytic_probs"))
    if suffix:
        return
    close(law(process_as_any(process), masked, mu, t, t - dt), published("ddpm_probs"))
    late = case["denoiser_t"].double().expand(xt.shape).flatten()
    mu = process.beliefs(xt, said(name, xt, late.view(xt.shape)[:, 0].float()), late.view(xt.shape)).flatten(0, 1)
    score = process.log_score(xt.flatten(), mu, late).exp()
    close(clean(process, score, xt.flatten(), late), published("denoiser_probs"))


def process_as_any(process: Masking) -> TokenNoise:
    return TokenNoise(process.pi, process.schedule)


def times(case: Reference) -> None:
    """Its times are squeezed above eps, ours cut there."""
    u, even = case["sample_t_u"].double(), even_weights(NOISE, EPS)
    for antithetic, levels in ((0, u), (1, strata(u))):
        t = EPS + (1 - EPS) * levels
        close(t, case[f"sample_t_antithetic{antithetic}_importance0"])
        close(NOISE.time(even.alpha(t)), case[f"sample_t_antithetic{antithetic}_importance1"])


def strata(u: Tensor) -> Tensor:
    """Levels (N,) spread over N strata. Published rows jitter on their own inside theirs, ours all alike: here each row
    is that of a batch which jitters like it."""
    found = []
    for row, jitter in enumerate(u):
        with patch("torch.rand", return_value=jitter[None] / len(u)):
            found.append(spread(len(u), 1, torch.Generator())[row, 0])
    return torch.stack(found)
