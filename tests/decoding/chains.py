"""What a sampler writes, worked out: the law over whole texts of a Markov chain whose positions move given what all of
them look like, all at once (as samplers do) or one after another. Every state is enumerated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from stand_ins import Oracle
from torch import Tensor

from unmask.noise.tokens import TokenNoise

# states (S, L), mu (S, L, V), t, s () -> (S, L, V): what each position may be next
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def states(process: TokenNoise, length: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(process.vocab), repeat=length)))


def at_once(kernel: Tensor, to: Tensor) -> Tensor:
    """(S, S'): all positions move at once, each on its own."""
    each = [kernel[:, i][:, to[:, i]] for i in range(to.shape[1])]
    return torch.stack(each).prod(0)


def posterior(process: TokenNoise, x: Tensor, mu: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """p(x_s | x_t) = sum over x0 of p(x0 | x_t) q(x_s | x_t, x0), by Bayes' rule on q(x_s | x0) and q(x_t | x_s): it is
    worked out from alpha and pi alone."""
    a_t, a_s = process.schedule.alpha(t.double()), process.schedule.alpha(s.double())
    pi, eye = process.pi.double(), torch.eye(process.vocab, dtype=torch.float64)
    from_clean_s, from_clean_t = a_s * eye + (1 - a_s) * pi, a_t * eye + (1 - a_t) * pi  # (x0, x_s), (x0, x_t)
    step = (a_t / a_s) * eye + (1 - a_t / a_s) * pi  # (x_s, x_t)
    joint = mu.exp() * from_clean_t.T[x]  # (S, L, x0)
    clean = joint / joint.sum(-1, keepdim=True)
    path = from_clean_s[None] * step.T[:, None]  # (x_t, x0, x_s)
    path = path / path.sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.einsum("slx,slxy->sly", clean, path[x])


def beliefs(process: TokenNoise, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
    """p(x0 | x_t), of a position's own noisy value too: (S, L, V)."""
    a = process.schedule.alpha(t.double())
    seen = a * F.one_hot(x, process.vocab).double() + (1 - a) * process.pi.double()[x][..., None]
    found = mu.exp() * seen
    return found / found.sum(-1, keepdim=True)


def noised(process: TokenNoise, clean: Tensor, s: Tensor) -> Tensor:
    """q_s(. | clean ~ (S, L, V))."""
    a = process.schedule.alpha(s.double())
    return a * clean + (1 - a) * process.pi.double()


def law(
    oracle: Oracle,
    times: Sequence[float],
    kernel: Kernel,
    given: Sequence[int | None] | None = None,
    ends: Callable[[TokenNoise, Tensor, Tensor, Tensor], Tensor] = beliefs,
) -> Tensor:
    """Over oracle.texts: from pure noise at times[0] by the kernel from time to time, and at the last of them, 0, from
    what is believed then. given: what stands there from the start."""
    process, known = oracle.process, given or [None] * oracle.length
    open = torch.tensor([v is None for v in known])
    stands = torch.tensor([0 if v is None else v for v in known])
    every = states(process, oracle.length)
    every = every[(open | (every == stands)).all(1)]
    found = torch.where(open, process.pi.double()[every], 1.0).prod(1)
    for before, after in itertools.pairwise(times):
        t, s = (torch.tensor(at, dtype=torch.float64) for at in (before, after))
        mu = oracle.table(every, (open * before).expand(every.shape))
        moves = kernel(every, mu, t, s) if after > 0 else ends(process, every, mu, t)
        moves = moves.nan_to_num(0.0)  # of states that noise never makes
        found = found @ at_once(torch.where(open[:, None], moves, F.one_hot(every, process.vocab).double()), every)
    assert abs(float(found.sum()) - 1) < 1e-9
    return (oracle.texts[:, None] == every).all(-1).double() @ found


def one_by_one(oracle: Oracle, times: Sequence[float], kernel: Kernel) -> Tensor:
    """The same, but in every step a position moves after the one before it has, and is told so."""
    process = oracle.process
    every = states(process, oracle.length)
    found = process.pi.double()[every].prod(1)
    for before, after in itertools.pairwise(times):
        t, s = (torch.tensor(at, dtype=torch.float64) for at in (before, after))
        for i in range(oracle.length):
            here = torch.arange(oracle.length) == i
            mu = oracle.table(every, torch.where(torch.arange(oracle.length) < i, s, t).expand(every.shape))
            moves = kernel(every, mu, t, s) if after > 0 else beliefs(process, every, mu, t)
            stays = F.one_hot(every, process.vocab).double()
            found = found @ at_once(torch.where(here[:, None], moves.nan_to_num(0.0), stays), every)
    return (oracle.texts[:, None] == every).all(-1).double() @ found
