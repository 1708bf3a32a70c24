"""Which symbols are near which: groups of symbols, and which groups are near each, as jumps for `kernels`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Edges = tuple[tuple[int, ...], ...]  # of each group, the groups near it


def in_order(symbols: Sequence[int], vocab: int, groups: int, near: int) -> tuple[list[int], Edges]:
    """Groups of symbols whose ids follow each other, near those before and behind in a ring: (vocab,) and the edges.

    Ids of bytes are in the order of the alphabet, those of BPE in the order of their making: from common to rare.
    """
    count = min(groups, len(symbols))
    classes = [0] * vocab
    for rank, symbol in enumerate(symbols):
        classes[symbol] = rank * count // len(symbols)
    reach = [step for i in range(1, near // 2 + 1) for step in (-i, i)]
    return classes, tuple(tuple(sorted({(c + step) % count for step in reach} - {c})) for c in range(count))


def in_space(symbols: Sequence[int], vectors: Tensor, groups: int, near: int) -> tuple[list[int], Edges]:
    """Groups of symbols with like vectors (vocab, D), near those whose mean vectors are nearest by their angle."""
    classes = [0] * len(vectors)
    index = torch.tensor(list(symbols))
    points = torch.nn.functional.normalize(vectors[index].double(), dim=-1)
    parts = _halved(points, torch.arange(len(index)), groups)
    for number, part in enumerate(parts):
        for symbol in index[part].tolist():
            classes[symbol] = number
    means = torch.nn.functional.normalize(torch.stack([points[part].mean(0) for part in parts]), dim=-1)
    alike = (means @ means.T).fill_diagonal_(-torch.inf)
    nearest = alike.topk(min(near, len(parts) - 1)).indices
    return classes, tuple(tuple(sorted(row)) for row in nearest.tolist())


def _halved(points: Tensor, index: Tensor, groups: int) -> list[Tensor]:
    """index (n,) in at most `groups` parts of like size: halved across the direction that the points vary most in."""
    if groups < 2 or len(index) < 2:
        return [index]
    here = points[index] - points[index].mean(0)
    along = torch.linalg.eigh(here.T @ here).eigenvectors[:, -1]
    order = index[(here @ along).argsort(stable=True)]
    first = groups // 2
    cut = max(1, len(order) * first // groups)
    return _halved(points, order[:cut], first) + _halved(points, order[cut:], groups - first)


def jumps(classes: Tensor, real: Tensor, edges: Edges, anywhere: float) -> Tensor:
    """R over groups (C, C) float64: with probability `anywhere` to any real symbol (V,) bool, else to a near group.

    Nearness is made mutual, as in D3PM (arXiv 2107.03006, appendix A.2.3), and every edge is as likely, so that for
    groups of one size all symbols come about equally often.
    """
    count, sizes = len(edges), torch.zeros(len(edges), dtype=torch.float64).index_add(0, classes, real.double())
    adjacent = torch.zeros(count, count, dtype=torch.float64)
    for here, others in enumerate(edges):
        adjacent[here, list(others)] += 0.5
        adjacent[list(others), here] += 0.5
    adjacent *= (sizes > 0) * (sizes > 0)[:, None]  # nothing moves to where nothing real is
    local = adjacent / adjacent.sum(1).max().clamp(min=1)
    local += torch.diag(1 - local.sum(1))
    evenly = (sizes / sizes.sum()).expand(count, count)
    return torch.where((sizes > 0)[:, None], anywhere * evenly + (1 - anywhere) * local, evenly)
