"""The published noise schedules on their grids of times. What their float32 loses at the very ends is theirs: there
cos(pi / 2) is -4e-8, not 0, and 1 - cos(t) has few digits."""

from __future__ import annotations

import torch
from references import Reference, close
from torch import Tensor

from unmask.noise.schedule import (
    Cosine,
    Exponential,
    Geometric,
    Linear,
    Logarithmic,
    LogLinear,
    LogUniform,
    Polynomial,
    Schedule,
    Sine,
    Within,
)
from unmask.noise.tokens import Masking, TokenNoise, resting


def sigma(schedule: Schedule, t: Tensor) -> Tensor:
    return -schedule.alpha(t.double()).log()


def rate(schedule: Schedule, t: Tensor) -> Tensor:
    """d sigma / dt."""
    return TokenNoise(resting(2, []), schedule).speed(t.double())


def close_but_at_the_end(found: Tensor, expected: Tensor) -> None:
    close(found[:-1], expected[:-1])
    close(found[-1], expected[-1], rtol=5e-5, atol=2e-4)


def even_weights(schedule: Schedule, eps: float = 0.0) -> LogUniform:
    """MDLM's importance sampling: mask rates even in their logarithm between the schedule's ends, eps later each."""
    ends = schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)) * torch.tensor(-eps).double().exp()
    return LogUniform(*(1 - ends).tolist())


def mdlm(case: Reference) -> None:
    t, said = case["t"], case.said["args"]
    schedules = {
        "loglinear": LogLinear(said["loglinear"]["eps"]),
        "cosine": Within(Cosine(), last=said["cosine"]["eps"]),
        "cosinesqr": Within(Cosine(2.0), last=said["cosinesqr"]["eps"]),
        "linear": Exponential(said["linear"]["sigma_min"], said["linear"]["sigma_max"]),
        "geometric": Geometric(said["geometric"]["sigma_min"], said["geometric"]["sigma_max"]),
    }
    for name, schedule in schedules.items():
        close(sigma(schedule, t), case[f"{name}_sigma"], atol=2e-7)
        close_but_at_the_end(rate(schedule, t), case[f"{name}_dsigma"])
    times = schedules["loglinear"].time(even_weights(schedules["loglinear"], eps=1e-3).alpha(t.double()))
    close(times, case["loglinear_importance_t"])


def bd3lm(case: Reference) -> None:
    """Its move chance is 1 - alpha, its loss scale our weight, negative. Two of its own: no power of t is less than
    1e-3, and the cosine's weight has the epsilon a second time, below the line."""
    t, eps = case["t"].double(), case.said["args"]["eps"]
    schedules = {
        "loglinear": (Linear(), lambda chance: chance),
        "log": (Logarithmic(), lambda chance: chance),
        "square": (Polynomial(2.0), lambda chance: chance.clamp(min=eps)),
        "square_root": (Polynomial(0.5), lambda chance: chance.clamp(min=eps)),
        "cosine": (Within(Cosine(), first=1 - eps, last=0.0), lambda chance: chance + eps),
    }
    for name, (schedule, below) in schedules.items():
        chance = 1 - schedule.alpha(t)
        close(chance.clamp(min=eps), case[f"{name}_move_chance"], atol=2e-7)
        weight = Masking.over(4, 3, schedule).weight(t) * chance / below(chance)
        close(-weight, case[f"{name}_loss_scaling"])
    told = LogLinear(eps)  # by this our BD3-LM is told its noise; it ends where theirs is cut off
    at = told.time(1 - case["sigma_from_p_in"].double()).clamp(max=1)
    close(sigma(told, at), case["sigma_from_p_out"], atol=2e-7)
    close(sigma(told, torch.ones(())), case["sigma_max"])


def duo(case: Reference) -> None:
    """Its times stop short of the end by eps."""
    eps = case.said["args"]["eps"]
    t = case["t"].double()
    for name, schedule, at in (("loglinear", LogLinear(eps), t), ("cosine", Sine(), (1 - eps) * t)):
        close(schedule.alpha(at), case[f"{name}_alpha"], atol=2e-7)
        close(schedule.slope(at), case[f"{name}_dalpha"], atol=2e-7)


def sedd(case: Reference) -> None:
    t, said = case["t"], case.said["args"]
    ends = said["geometric"]["sigma_min"], said["geometric"]["sigma_max"]
    for name, schedule in (("loglinear", LogLinear(said["loglinear"]["eps"])), ("geometric", Geometric(*ends))):
        close(sigma(schedule, t), case[f"{name}_sigma"], atol=2e-7)
        close_but_at_the_end(rate(schedule, t), case[f"{name}_dsigma"])
