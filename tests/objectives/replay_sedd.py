"""SEDD: score entropy and its rates, kernels and sampler steps, on the absorbing and the uniform graph."""

from __future__ import annotations

import torch
from references import Reference, close, network
from torch import Tensor

from unmask.decoding.scores import analytic, before, clean, euler
from unmask.noise.schedule import Geometric, LogLinear, Schedule
from unmask.noise.tokens import Masking, TokenNoise, resting

FEW = 6  # positions of which rates and kernels are recorded


def absorb(case: Reference) -> None:
    graph(case, "sedd-absorb", Masking.over(case.said["dim"], case.said["tokens"]).pi)


def uniform(case: Reference) -> None:
    graph(case, "sedd-uniform", resting(case.said["dim"], []))


def graph(case: Reference, name: str, pi: Tensor) -> None:
    ends = case.said["geometric"]["sigma_min"], case.said["geometric"]["sigma_max"]
    schedules = {"loglinear": LogLinear(case.said["loglinear"]["eps"]), "geometric": Geometric(*ends)}
    for key, schedule in schedules.items():
        loss(case, name, key, TokenNoise(pi, schedule))
    used = case.said["sampler_schedule"]
    noise = TokenNoise(pi, schedules[used])
    score = case[f"log_score_{used}"].flatten(0, 1).double().exp()
    x, t = case[f"xt_{used}"], case[f"t_{used}"].double()
    steps(case, noise, x, t, score)
    rates(case, noise, x[:, :FEW])
    last(case, name, noise, x)


def scores(name: str, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """log p_t(y, rest) / p_t(x, rest) of a network that is told sigma, (B, L, V)."""
    return network(name).raw_logits(x, sigma=-schedule.alpha(t.double()).log().float())


def close_in_size(found: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest at a position: these are differences of large scores."""
    size = expected.abs().amax(-1, keepdim=True)
    close(found / size, expected / size, atol=1e-5)


def loss(case: Reference, name: str, key: str, noise: TokenNoise) -> None:
    """On the uniform graph the published code takes 1 - V / (V + e^sigma - 1) in float32, which loses digits where
    noise is little; in float64 it agrees with ours."""
    x0, xt, t = case[f"x0_{key}"], case[f"xt_{key}"], case[f"t_{key}"]
    sigma = -noise.schedule.alpha(t.double()).log()
    close(sigma, case[f"sigma_{key}"], atol=1e-7)
    close(noise.speed(t), case[f"dsigma_{key}"], atol=1e-7)
    found = scores(name, noise.schedule, xt, t)
    if key == case.said["sampler_schedule"]:
        close(found, case[f"log_score_{key}"], atol=1e-5)
    every = t[:, None].expand(xt.shape)
    nats = noise.score_entropy(found, x0, xt, every)
    for row, level in enumerate(sigma.tolist()):
        rtol = 2e-4 if name == "sedd-uniform" and level < 1 else 1e-5
        close((nats / noise.speed(every))[row], case[f"score_entropy_{key}"][row], rtol)
        close(nats[row].sum(), case[f"loss_{key}"][row], rtol)


def steps(case: Reference, noise: TokenNoise, x: Tensor, t: Tensor, score: Tensor) -> None:
    s = t - case.said["step_size"]
    sigma, then = (-noise.schedule.alpha(at).log()[:, None] for at in (t, s))
    close(sigma, case["sampler_sigma"])
    close(sigma - then, case["dsig_step"])
    close(noise.speed(t)[:, None], case["sampler_dsigma_rate"])
    flat, t, s = x.flatten(), t.repeat_interleave(x.shape[1]), s.repeat_interleave(x.shape[1])
    close_in_size(analytic(noise, score, flat, t, s), case["analytic_probs"].flatten(0, 1))
    step = euler(noise, score, flat, t, s)
    close(step, case["euler_probs"].flatten(0, 1))
    leaps = (step - torch.nn.functional.one_hot(flat, noise.vocab)) / ((t - s) * noise.speed(t))[:, None]
    close(leaps.view(*x.shape, -1)[:, :FEW], case["reverse_rate"])
    close_in_size(before(noise, score, t, s).view(*x.shape, -1)[:, :FEW], case["staggered_score"])
    kernels(case, noise, x[:, :FEW], t.view(x.shape)[:, :FEW])


def kernels(case: Reference, noise: TokenNoise, x: Tensor, t: Tensor) -> None:
    """From the clean text to time t; the absorbing graph has no `transition`, its code is a bare `pass`."""
    close(noise.likelihood(x, t), case["transp_transition"])
    if "transition" in case:
        after = torch.arange(noise.vocab).expand(*x.shape, -1)
        kernel = noise.likelihood(after, t[..., None].expand_as(after))  # (..., to, from)
        close(kernel.gather(-1, x[..., None, None].expand(*after.shape, 1))[..., 0], case["transition"])


def rates(case: Reference, noise: TokenNoise, x: Tensor) -> None:
    """Q, whose rows add up to 0: into[y, v] is how fast v becomes y."""
    into = noise.rates(torch.arange(noise.vocab)).clone().fill_diagonal_(0)
    generator = into.T - torch.diag(into.sum(0))
    close(generator[x], case["rate"])
    close(generator.T[x], case["transp_rate"])


def last(case: Reference, name: str, noise: TokenNoise, x: Tensor) -> None:
    t = case["denoiser_t"][:, 0]
    score = scores(name, noise.schedule, x, t).flatten(0, 1).double().exp()
    found = clean(noise, score, x.flatten(), t.double().repeat_interleave(x.shape[1]))
    # 1 - exp(-1e-5) in float32 has five digits
    close(found[:, : case.said["tokens"]], case["denoiser_probs"].flatten(0, 1), rtol=4e-5)
