"""What a model says of V tokens as what it says of K sorts and G groups of them, and back. Knows no order of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...noise.draws import categorical
from .reach import Reach
from .tokens import TokenAutomaton

LARGE = 16  # a sort that holds more than a share 1 / LARGE of the vocabulary is large
LEAST = math.log(torch.finfo(torch.float64).tiny)


class Sums:
    """All in logarithms; may_end (N,) bool: positions of texts that may end.

    Nearly all tokens are of a few large sorts. Tokens are put in order once, large sorts first, each in one piece, then
    the others; n of them, since those that are never written are left out.
    """

    def __init__(self, tokens: TokenAutomaton, reach: Reach) -> None:
        self.tokens, self.reach = tokens, reach
        size = tokens.sort.bincount(minlength=tokens.sorts + 1)[:-1]
        large = (size * LARGE > len(tokens.sort)).nonzero()[:, 0]
        place = torch.full_like(tokens.next[:, 0], len(large))  # of each sort in the order; all small ones come last
        place[large] = torch.arange(len(large), device=large.device)
        place[-1] = len(large) + 1
        order = place[tokens.sort].argsort(stable=True)
        ends = size[large].cumsum(0).tolist()
        self.pieces = dict(zip(large.tolist(), map(slice, [0, *ends], ends)))
        self.rest = slice(ends[-1] if ends else 0, int(size.sum()))
        self.order = order[: self.rest.stop]
        self.rest_sort = tokens.sort[self.order[self.rest]]

    def ordered(self, logp: Tensor) -> Tensor:
        """logp (N, V) -> (N, n), which all that follows is given."""
        return logp.index_select(1, self.order)

    def total(self, logp: Tensor, may_end: Tensor) -> Tensor:
        """logp (N, n) -> the probability of each sort (N, K) float64. What is possible never falls to zero: where all
        of it is below the smallest number, it is that."""
        out = torch.zeros(len(logp), self.tokens.sorts, dtype=torch.float64, device=logp.device)
        out.index_add_(1, self.rest_sort, logp[:, self.rest].double().exp())
        out = out.log()
        for sort, piece in self.pieces.items():
            out[:, sort] = logp[:, piece].logsumexp(1)
        return self._possible(out.clamp(min=LEAST), may_end)

    def best(self, logp: Tensor, may_end: Tensor) -> tuple[Tensor, Tensor]:
        """logp (N, n) -> the probability of each sort's likeliest token (N, K) float64, and which token that is."""
        out, rest = logp.new_full((len(logp), self.tokens.sorts), -torch.inf), logp[:, self.rest]
        index = self.rest_sort.expand_as(rest)
        out.scatter_reduce_(1, index, rest, "amax")
        none = len(self.order) - 1
        place = torch.arange(self.rest.start, self.rest.stop, device=logp.device)
        token = torch.full_like(out, none, dtype=torch.int64)
        token.scatter_reduce_(1, index, torch.where(rest == out.gather(1, index), place, none), "amin")
        for sort, piece in self.pieces.items():
            out[:, sort], found = logp[:, piece].max(1)
            token[:, sort] = found + piece.start
        return self._possible(out.double(), may_end), self.order[token]

    def _possible(self, sorts: Tensor, may_end: Tensor) -> Tensor:
        return sorts.masked_fill(~self.reach.sorts[may_end.long(), :-1], -torch.inf)

    def grouped(self, sorts: Tensor, *, largest: bool = False) -> Tensor:
        """(N, K) -> (N, G): the sum over a group's sorts, or the largest."""
        group, each = self.tokens.member_group, sorts[:, self.tokens.member_sort]
        peak = sorts.new_full((len(sorts), self.tokens.groups), -torch.inf)
        peak.scatter_reduce_(1, group.expand(len(sorts), -1), each, "amax")
        if largest:
            return peak
        share = (each - peak[:, group]).nan_to_num(-torch.inf, neginf=-torch.inf).exp()
        return peak + torch.zeros_like(peak).index_add_(1, group, share).log()

    def known(self, sort: Tensor) -> Tensor:
        """(M, G) for positions whose token is of this sort (M,): nothing but that is possible."""
        return torch.where(self.tokens.contains[:, sort].T, 0.0, -torch.inf).double()

    def unseen(self) -> Tensor:
        """(2, G) for open positions of which nothing is known, in texts that may not end, and that may."""
        return torch.where(self.reach.groups, 0.0, -torch.inf).double()

    def shift(self, posterior: Tensor, total: Tensor, group_total: Tensor, dtype: torch.dtype) -> Tensor:
        """What makes the law a posterior, (N, V) to be added to logp (N, V): the posterior (N, P) of the pairs of
        states is handed down to groups, sorts and tokens, in proportion to what each had before."""
        tokens = self.tokens
        groups = torch.zeros_like(group_total).index_add_(1, tokens.group, posterior)
        share = (total[:, tokens.member_sort] - group_total[:, tokens.member_group]).exp()
        handed = torch.nan_to_num(share) * groups[:, tokens.member_group]
        sorts = torch.zeros_like(total).index_add_(1, tokens.member_sort, handed)
        each = (sorts.log() - total).nan_to_num(-torch.inf).to(dtype)
        return torch.cat([each, torch.full_like(each[:, :1], -torch.inf)], 1).index_select(1, tokens.sort)

    def likeliest(self, best: Tensor, token: Tensor, group: Tensor) -> Tensor:
        """The best token (N,) of a group (N,), given the best of each sort."""
        sort = best.masked_fill(~self.tokens.contains[group, :-1], -torch.inf).argmax(1)
        return token.gather(1, sort[:, None])[:, 0]

    def drawn(self, law: Tensor, logp: Tensor, total: Tensor, group: Tensor, u: Sequence[Tensor]) -> Tensor:
        """A token (N,) of a group (N,) from the law (N, n), or from logp where the law has left none of it: first its
        sort, by the sorts' total (N, K), then itself. u: two uniforms (N,) each."""
        within = total.masked_fill(~self.tokens.contains[group, :-1], -torch.inf)
        sort = categorical(_shares(within), u[0])
        found = torch.zeros_like(sort)
        for piece, mine, inside in self._parts(sort):
            part = law[mine, piece].masked_fill(~inside, -torch.inf)
            none = part.amax(1, keepdim=True).isneginf()
            part = torch.where(none, logp[mine, piece].masked_fill(~inside, -torch.inf), part)
            found[mine] = piece.start + categorical(_shares(part), u[1][mine])
        return self.order[found]

    def _parts(self, sort: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """A stretch of the order, the positions (m,) whose token is to be found there, and which tokens it may be."""
        large = torch.zeros_like(sort, dtype=torch.bool)
        for k, piece in self.pieces.items():
            mine = sort == k
            large |= mine
            if bool(mine.any()):
                yield piece, mine.nonzero()[:, 0], mine.new_ones(1)
        if not bool(large.all()):
            mine = (~large).nonzero()[:, 0]
            yield self.rest, mine, self.rest_sort == sort[mine, None]


def _shares(logp: Tensor) -> Tensor:
    """In proportion to exp(logp), the largest 1; where nothing is possible, all the same."""
    return (logp - logp.amax(1, keepdim=True)).exp().nan_to_num(1.0)
