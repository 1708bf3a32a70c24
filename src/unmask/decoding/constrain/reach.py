"""From which states a text can still be completed in the positions that are left. Knows no probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from .chains import OPEN
from .tokens import TokenAutomaton


class Reach:
    """allowed (V,) bool: tokens that may be written at all.

    A text that may end is complete once its end is written in an accepting state; one that may not, a gap for one, is
    complete when its last position leaves it in such a state.
    """

    def __init__(self, tokens: TokenAutomaton, allowed: Tensor) -> None:
        self.tokens = tokens
        sorts = tokens.sort[allowed].bincount(minlength=tokens.sorts + 1) > 0
        sorts[-1] = False
        self.sorts = torch.stack([sorts, sorts])  # (2, K + 1): of texts that may not end, and that may
        if tokens.end is not None:
            self.sorts[0, tokens.end] = False
        self.groups = (tokens.contains & self.sorts[:, None]).any(2)  # (2, G)
        self.after = torch.cat([tokens.next, torch.full_like(tokens.next[:, :1], tokens.states)], 1)  # (K + 1, S + 1)
        self._within = tokens.accepts.expand(1, 2, -1)  # (n + 1, 2, S)

    def within(self, n: Tensor, may_end: Tensor) -> Tensor:
        """n (C,) open positions are left -> the states (C, S) bool from which they can complete the text."""
        most = int(n.max()) if len(n) else 0
        rows = [self._within]
        while sum(map(len, rows)) <= most:
            rows.append(self._before(rows[-1][-1], self.groups)[None])
        self._within = torch.cat(rows)
        return self._within[n, may_end.long()]

    def fewest(self, most: int) -> int | None:
        """The least number of tokens, up to `most`, of a text that matches; None: more than that."""
        n = torch.arange(most + 1, device=self.tokens.sort.device)
        fits = self.within(n, torch.zeros_like(n, dtype=torch.bool))[:, self.tokens.start]
        return int(fits.int().argmax()) if bool(fits.any()) else None

    def before(self, can: Tensor, token: Tensor, may_end: Tensor) -> Tensor:
        """can (C, S): states that lead to completion -> those that do one position earlier, with the token (C,) or OPEN
        there."""
        sort = self.tokens.sort[token.clamp(min=0)]
        padded = torch.cat([can, torch.zeros_like(can[:, :1])], 1)
        known = padded.gather(1, self.tokens.next[sort])
        return torch.where((token == OPEN)[:, None], self._before(can, self.groups[may_end.long()]), known)

    def _before(self, can: Tensor, groups: Tensor) -> Tensor:
        """(C, S), groups (C, G) -> (C, S): some group leads on."""
        tokens = self.tokens
        leads = (can[:, tokens.target] & groups[:, tokens.group]).to(torch.int32)
        return torch.zeros_like(can, dtype=torch.int32).index_add_(1, tokens.source, leads) > 0

    def completed(self, token: Tensor, length: Tensor, since: Tensor, may_end: Tensor) -> Tensor:
        """token (C, L), OPEN where there is none, padded behind length (C,) -> the states (C, S) bool before position
        since (C,) from which the rest can be completed."""
        position = torch.arange(token.shape[1], device=token.device)
        rest = (position >= since[:, None]) & (position < length[:, None])
        tied = (rest & (token != OPEN)) * (position + 1)
        free = length - torch.maximum(tied.amax(1) if token.shape[1] else since, since)  # all open, up to the end
        can = self.within(free, may_end)
        due = rest & (position < (length - free)[:, None])
        for j in due.any(0).nonzero()[:, 0].flip(0).tolist():
            can = torch.where(due[:, j, None], self.before(can, token[:, j], may_end), can)
        return can

    def run(self, token: Tensor, until: Tensor) -> Tensor:
        """The state (C,) after the first `until` (C,) of the tokens (C, L); S where there is none."""
        state = torch.full_like(until, self.tokens.start)
        for j in range(int(until.max()) if len(until) else 0):
            moved = self.after[self.tokens.sort[token[:, j].clamp(min=0)], state]
            state = torch.where(j < until, moved, state)
        return state
