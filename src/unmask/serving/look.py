"""One look of the network at texts with some of their tokens hidden: how sure it would be of them. Nothing is written.

What is least expected in a text is found so, and how long a gap should be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..decoding.canvas import Canvas, Row
from ..denoiser import Denoiser
from ..noise.draws import FromCounters
from ..noise.process import Process

PARTS = 4  # a text is read so many times at once, each time with another part of it hidden
BORDER = 8  # hidden tokens behind a gap: if the gap has the right length, they stand where they are expected
CANDIDATES = 8  # lengths of a gap that are tried


@torch.inference_mode()
def surprises(denoiser: Denoiser, process: Process, rows: Sequence[Row]) -> list[tuple[Tensor, Tensor]]:
    """One pass over rows whose open positions are hidden. For each row: log-probabilities (n,) of the tokens that it
    holds there, and of the best ones."""
    canvas = Canvas.of(rows, None, None, denoiser.banned.device)
    rng = FromCounters(canvas.seed, canvas.position)
    rng.begin(-1)
    hidden = canvas.t > 0
    x = process.write(process.prior(canvas.x, rng), canvas.x, ~hidden)
    token = canvas.x[hidden]
    said = denoiser(x, canvas.t, places=canvas.places, where=hidden)

    def read(mu: Tensor, part: slice) -> Tensor:
        return torch.stack([mu.gather(-1, token[part][:, None]).squeeze(-1), mu.amax(-1)], -1)

    return [both.unbind(-1) for both in said.map(read).split(hidden.sum(1).tolist())]  # type: ignore[misc]


def expected(denoiser: Denoiser, process: Process, ids: Sequence[int]) -> list[float]:
    """For each token of a text, its log-probability given those around it: every fourth is hidden at a time, all four
    times in one pass. (With one hidden at a time this would be its pseudo-likelihood, at a pass a token.)"""
    rows = [Row(list(ids), [at % PARTS == part for at in range(len(ids))]) for part in range(min(PARTS, len(ids)))]
    found = [0.0] * len(ids)
    for part, (said, _) in enumerate(surprises(denoiser, process, rows)):
        found[part::PARTS] = said.tolist()
    return found


def lengths(
    denoiser: Denoiser, process: Process, parts: Sequence[Sequence[int]], bounds: Sequence[tuple[int, int]]
) -> list[int]:
    """How many tokens to give each gap between the parts, gap by gap from the left, a pass each.

    Up to eight lengths between the bounds are tried at once, with the text's next tokens hidden too. Best is where the
    network is surest of what would be in the gap and finds those tokens behind it most probable, on average a token.
    """
    sizes = [least for least, _ in bounds]
    for gap, (least, most) in enumerate(bounds):
        if least < most:
            tried = _between(least, most)
            rows = [_opened(parts, [*sizes[:gap], size, *sizes[gap + 1 :]], gap) for size in tried]
            before, behind = sum(sizes[:gap]), min(BORDER, len(parts[gap + 1]))
            seen = surprises(denoiser, process, rows)
            scores = [_fit(said, best, before, size, behind) for size, (said, best) in zip(tried, seen)]
            sizes[gap] = tried[scores.index(max(scores))]
    return sizes


def _between(least: int, most: int) -> list[int]:
    """Both bounds, and lengths between them that grow in proportion."""
    if most - least < CANDIDATES:
        return list(range(least, most + 1))
    growth = math.log(most / least) / (CANDIDATES - 1)
    return sorted({least, most} | {round(least * math.exp(i * growth)) for i in range(CANDIDATES)})


def _opened(parts: Sequence[Sequence[int]], sizes: Sequence[int], gap: int) -> Row:
    """The text with its gaps open, and the tokens behind one of them too."""
    tokens, open = list(parts[0]), [False] * len(parts[0])
    for number, (size, part) in enumerate(zip(sizes, parts[1:])):
        hide = min(BORDER, len(part)) if number == gap else 0
        tokens += [0] * size + list(part)
        open += [True] * (size + hide) + [False] * (len(part) - hide)
    return Row(tokens, open)


def _fit(said: Tensor, best: Tensor, before: int, size: int, behind: int) -> float:
    """Of a row's hidden tokens: those of the gap begin at `before`, and those behind it follow them."""
    border = said[before + size : before + size + behind]
    return float(best[before : before + size].mean()) + (float(border.mean()) if behind else 0.0)
