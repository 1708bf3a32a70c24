"""From what the model says of each position alone to one text that matches. Knows no rules and no noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..propose import Proposal
from .chains import OPEN, Chains, Window
from .program import Program
from .reach import Reach
from .sums import Sums
from .tokens import TokenAutomaton


@dataclass(frozen=True)
class Sight:
    """B rows: text (B, W) tokens, OPEN where they are still to be written; written, real (B, W) bool: what was open at
    first, what is no padding; infill (B,) bool: rows that are gaps inside a text."""

    text: Tensor
    written: Tensor
    real: Tensor
    infill: Tensor


class Keeper:
    """whole: rows must match with all that was given in them, not only each run of what is written. may_end: rows that
    are no infill may end before their last position. allowed (V,) bool: tokens that may be written at all."""

    def __init__(self, tokens: TokenAutomaton, allowed: Tensor, *, whole: bool, may_end: bool) -> None:
        self.tokens, self.whole, self.may_end = tokens, whole, may_end
        self.reach = Reach(tokens, allowed)
        self.sums = Sums(tokens, self.reach)

    def possible(self, sight: Sight) -> Tensor:
        """(B,) bool: rows that can be written so that they match."""
        chains, may_end = self._chains(sight)
        start = torch.zeros_like(chains.length)
        can = self.reach.completed(chains.of_canvas(sight.text), chains.length, start, may_end)
        failed = chains.row[~can[:, self.tokens.start]]
        return torch.ones_like(sight.infill).index_fill(0, failed, False)

    def propose(
        self, sight: Sight, wanted: Tensor, asked: Tensor, logp: Tensor, proposal: Proposal, u: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Tokens (N,) that are part of one text that matches, and what to add to logp (N, V) to have the posterior, up
        to a constant a position. N: the asked (B, W); wanted (B, W) bool: those of them that are open, for the others
        anything is said. u: three uniforms a position, (B, W) each."""
        chains, may_end = self._chains(sight)
        held = (chains.of_canvas(wanted) & chains.inside).any(1)
        chains, may_end = chains.only(held), may_end[held]
        window = Window(chains.of_canvas(sight.text), chains.of_canvas(wanted) & chains.inside, chains.length)
        rank = window.of_chains(chains.of_canvas((asked.flatten().cumsum(0) - 1).view_as(asked)))
        frame = _Frame(self, window, rank, may_end)
        ends = frame.of_asked(may_end[:, None].expand_as(rank), len(logp))

        ordered = self.sums.ordered(logp)
        total = self.sums.total(ordered, ends)
        groups = self.sums.grouped(total)
        belief = frame.program(groups)
        if proposal.temperature == 0:
            best, token = self.sums.best(ordered, ends)
            pair = frame.program(self.sums.grouped(best, largest=True)).best()
            tokens = self.sums.likeliest(best, token, frame.group(pair, len(logp)))
        else:
            plain = proposal == Proposal(temperature=1.0)
            law = ordered if plain else self.sums.ordered(proposal.law(logp))
            drawn_from = total if plain else self.sums.total(law, ends)
            path = belief if plain else frame.program(self.sums.grouped(drawn_from))
            pair = path.draw(window.of_chains(chains.of_canvas(u[0])).T)
            rest = [one[asked] for one in u[1:]]
            tokens = self.sums.drawn(law, ordered, drawn_from, frame.group(pair, len(logp)), rest)
        posterior = frame.of_asked(belief.marginals().transpose(0, 1), len(logp))
        return tokens, self.sums.shift(posterior, total, groups, logp.dtype)

    def _chains(self, sight: Sight) -> tuple[Chains, Tensor]:
        chains = Chains.of(sight.written, sight.real, self.whole)
        return chains, chains.closing & ~sight.infill[chains.row] & self.may_end


class _Frame:
    """Everything about a window but the laws of the positions that are asked about. rank (C, l): which of the N asked
    each of its positions is, where it is wanted."""

    def __init__(self, keeper: Keeper, window: Window, rank: Tensor, may_end: Tensor) -> None:
        self.tokens, self.sums, self.starts = keeper.tokens, keeper.sums, window.starts.T
        self.rank, self.here = rank, window.of_chains(window.wanted) & window.valid
        text = window.of_chains(window.text)
        known = window.valid & (text != OPEN)
        sorts, which = self.tokens.sort[text.clamp(min=0)][known].unique(return_inverse=True)
        self.fixed = torch.cat([self.sums.unseen(), self.sums.known(sorts)])
        self.column = may_end.long()[:, None].expand_as(rank).masked_scatter(known, 2 + which)
        self.state = keeper.reach.run(window.text, window.first)
        self.last = keeper.reach.completed(window.text, window.length, window.last + 1, may_end)

    def program(self, groups: Tensor) -> Program:
        """groups (N, G): the laws."""
        column = torch.where(self.here, self.rank + len(self.fixed), self.column)
        weights = torch.cat([self.fixed, groups])[column.T]
        return Program(self.tokens, weights, self.starts, self.state, self.last)

    def group(self, pair: Tensor, n: int) -> Tensor:
        """pair (l, C) of each position -> the group (N,) of tokens that leads from its first state to its second."""
        return self.of_asked(self.tokens.group[pair.T], n)

    def of_asked(self, values: Tensor, n: int) -> Tensor:
        """(C, l, ...) -> (N, ...), zero where nothing is wanted."""
        out = values.new_zeros(n, *values.shape[2:])
        out[self.rank[self.here]] = values[self.here]
        return out
