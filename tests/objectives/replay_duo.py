"""Duo's code: the uniform bound and posterior (UDLM), and its masked ones."""

from __future__ import annotations

import torch
from references import Reference, close, network
from replay_mdlm import law
from torch import Tensor

from unmask.noise.schedule import LogLinear
from unmask.noise.tokens import Masking, TokenNoise, resting

EPS = 1e-3
FEW = 8  # positions of which some laws are recorded


def posterior(noise: TokenNoise, x: Tensor, mu: Tensor, t: Tensor, s: Tensor) -> Tensor:
    found = law(noise, x, mu, t, s)
    return found / found.sum(-1, keepdim=True)


def times(case: Reference, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """t and s (B, L), whose alphas are the recorded ones."""
    t, s = (case[name].double()[:, None] for name in ("t", "s"))
    noise = LogLinear(EPS)
    close(noise.alpha(t), case["alpha_t"])
    close(noise.alpha(s), case["alpha_s"])
    close(noise.slope(t), case["dalpha_t"])
    return t.expand(shape), s.expand(shape)


def uniform(case: Reference) -> None:
    x0, xt = case["x0"], case["xt"]
    noise = TokenNoise(resting(case.said["vocab_size"], []), LogLinear(case.said["eps"]))
    t, s = times(case, x0.shape)
    close(-noise.schedule.alpha(t[:, :1]).log(), case["sigma"])
    mu = network("duo")(xt, t.float()).mu().unflatten(0, xt.shape)
    close(mu, case["log_x_theta"], atol=1e-5)
    mu = case["log_x_theta"].double()
    nats = noise.nelbo(mu, x0, xt, t)
    close(nats, case["nll_per_token"])
    close(nats.mean(), case["loss"])
    close(posterior(noise, xt, mu, t, s), case["posterior_model"], atol=1e-8)
    sure = torch.nn.functional.one_hot(x0, noise.vocab).double().log()
    close(posterior(noise, xt, sure, t, s)[:, :FEW], case["posterior_true_x0"], atol=1e-8)
    close(noise.marginal(mu.exp(), s)[:, :FEW], case["forward_process_model"], atol=1e-8)


def masked(case: Reference) -> None:
    x0, xt, denoiser = case["x0"], case["xt"], network("mdlm")
    t, s = times(case, x0.shape)
    process = Masking.over(denoiser.vocab, case.said["mask_id"], LogLinear(EPS))
    mu = denoiser(xt, t.float()).mu().unflatten(0, xt.shape)
    close(process.nelbo(mu, x0, xt, t.float()), case["nll_per_token"])
    noise = TokenNoise(process.pi, process.schedule)
    close(posterior(noise, xt, process.beliefs(xt, mu, t), t, s), case["posterior"])
