"""What a model says of V tokens as what it says of K sorts and G groups of them, and back. Knows no order of tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...noise.draws import categorical
from .reach import Reach
from .tokens import TokenAutomaton

LARGE = 16  # a sort that holds more than a share 1 / LARGE of the vocabulary is added up where it stands


class Sums:
    """All in logarithms; may_end (N,) bool: positions of texts that may end."""

    def __init__(self, tokens: TokenAutomaton, reach: Reach) -> None:
        self.tokens, self.reach = tokens, reach
        size = tokens.sort.bincount(minlength=tokens.sorts + 1)
        self.large = [k for k in range(tokens.sorts) if int(size[k]) * LARGE > len(tokens.sort)]
        spread = torch.ones(tokens.sorts + 1, dtype=torch.bool, device=size.device)
        spread[[*self.large, tokens.sorts]] = False
        self.small = spread[tokens.sort].nonzero()[:, 0]  # tokens of the other sorts
        self.inside = {k: tokens.sort == k for k in self.large}

    def total(self, logp: Tensor, may_end: Tensor) -> Tensor:
        """logp (N, V) -> the probability of each sort (N, K) float64. What is possible never falls to zero: where all
        of it is below the smallest number, it is that."""
        p, k = logp.exp(), self.tokens.sorts
        out = torch.zeros(len(p), k, dtype=torch.float64, device=p.device)
        out.index_add_(1, self.tokens.sort[self.small], p.index_select(1, self.small).double())
        for sort in self.large:
            out[:, sort] = (p * self.inside[sort]).sum(1)
        least = math.log(torch.finfo(p.dtype).tiny)
        return out.log().clamp(min=least).masked_fill(~self.reach.sorts[may_end.long(), :k], -torch.inf)

    def best(self, logp: Tensor, may_end: Tensor) -> Tensor:
        """logp (N, V) -> the probability of each sort's likeliest token, (N, K) float64."""
        k = self.tokens.sorts
        out = torch.full((len(logp), k), -torch.inf, dtype=logp.dtype, device=logp.device)
        index = self.tokens.sort[self.small].expand(len(logp), -1)
        out.scatter_reduce_(1, index, logp.index_select(1, self.small), "amax")
        for sort in self.large:
            out[:, sort] = logp.masked_fill(~self.inside[sort], -torch.inf).amax(1)
        return out.double().masked_fill(~self.reach.sorts[may_end.long(), :k], -torch.inf)

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

    def shift(self, posterior: Tensor, total: Tensor, group_total: Tensor) -> Tensor:
        """What makes the law a posterior, (N, V) to be added to logp (N, V): the posterior (N, P) of the pairs of
        states is handed down to groups, sorts and tokens, in proportion to what each had before."""
        tokens = self.tokens
        groups = torch.zeros_like(group_total).index_add_(1, tokens.group, posterior)
        share = (total[:, tokens.member_sort] - group_total[:, tokens.member_group]).exp()
        handed = torch.nan_to_num(share) * groups[:, tokens.member_group]
        sorts = torch.zeros_like(total).index_add_(1, tokens.member_sort, handed)
        each = torch.cat([(sorts.log() - total).nan_to_num(-torch.inf), torch.full_like(total[:, :1], -torch.inf)], 1)
        return each.index_select(1, tokens.sort)

    def likeliest(self, logp: Tensor, group: Tensor) -> Tensor:
        """The best token (N,) of a group (N,)."""
        return logp.masked_fill(~self._within(group), -torch.inf).argmax(-1)

    def drawn(self, law: Tensor, logp: Tensor, group: Tensor, u: Tensor) -> Tensor:
        """A token (N,) of a group (N,) from the law (N, V), or from logp where the law has left none of it; u (N,)."""
        inside = self._within(group)
        law = law.masked_fill(~inside, -torch.inf)
        peak = law.amax(-1, keepdim=True)
        rest = peak[:, 0].isneginf()
        if bool(rest.any()):
            law[rest] = logp[rest].masked_fill(~inside[rest], -torch.inf).to(law)
            peak = law.amax(-1, keepdim=True)
        return categorical((law - peak).exp(), u)

    def _within(self, group: Tensor) -> Tensor:
        """(N, V) bool."""
        return self.tokens.contains[group].index_select(1, self.tokens.sort)
