"""Dynamic programming over the positions of a text: the best of all texts that match, a random one, and what each
position holds in them on average (max-product as in DINGO, arXiv 2505.23061; and sum-product).

The law is a product over positions, w_1(x_1) ... w_L(x_L), conditioned on the automaton's way from a first state ending
in an allowed one. C texts are worked on side by side; all runs over pairs of states, no step over tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from ...noise.draws import categorical
from .tokens import TokenAutomaton


class Program:
    """weights (L, C, G) float64: log w of each group of tokens. starts (L, C) bool: where each text begins, in state
    start (C,); what stands before counts for nothing. last (C, S) bool: states that may be left at the end."""

    def __init__(self, tokens: TokenAutomaton, weights: Tensor, starts: Tensor, start: Tensor, last: Tensor) -> None:
        self.tokens, self.starts, self.start, self.last = tokens, starts, start, last
        self.length, self.texts = starts.shape
        base = torch.arange(self.texts, device=start.device)[:, None]
        self.source = (tokens.source + base * tokens.states).flatten()  # (C P,), among (C S,) states
        self.target = (tokens.target + base * tokens.states).flatten()
        self.weights = weights.index_select(2, tokens.group).flatten(1)  # (L, C P)
        at_start = torch.zeros_like(last, dtype=torch.float64).scatter(1, start[:, None], 1.0)
        self.at_start = at_start.flatten()

    @cached_property
    def highest(self) -> Tensor:
        """(L + 1, C S): log weight of the best way from each state to the end."""
        now = torch.where(self.last, 0.0, -torch.inf).double().flatten()
        out = [now]
        for weights in self.weights.flip(0):
            ways = weights + now.index_select(0, self.target)
            now = torch.full_like(now, -torch.inf).scatter_reduce_(0, self.source, ways, "amax")
            out.append(now)
        return torch.stack(out[::-1])

    @cached_property
    def onward(self) -> Tensor:
        """(L, C P): p(this pair | its first state, the text matches).

        All ways from a state are added up relative to the best one, so that they are 1 or more and nothing is lost,
        however improbable the state.
        """
        gain = self.weights + self._after(self.highest) - self.highest[:-1].index_select(1, self.source)
        share = gain.nan_to_num(-torch.inf, neginf=-torch.inf).exp()
        now = self.last.double().flatten()
        sums = [now]
        for row in share.flip(0):
            now = torch.zeros_like(now).index_add_(0, self.source, row * now.index_select(0, self.target))
            sums.append(now)
        ways = torch.stack(sums[::-1])
        return (share * self._after(ways) / ways[:-1].index_select(1, self.source)).nan_to_num(0.0)

    def marginals(self) -> Tensor:
        """(L, C, P): the probability of each pair of states at each position, in texts that match."""
        now, out = torch.zeros_like(self.at_start), []
        for starts, onward in zip(self.starts, self.onward):
            now = torch.where(self._begin(starts), self.at_start, now)
            taken = onward * now.index_select(0, self.source)
            now = torch.zeros_like(now).index_add_(0, self.target, taken)
            out.append(taken)
        return torch.stack(out).unflatten(1, (self.texts, -1))

    def best(self) -> Tensor:
        """(L, C) int64: the pairs that the best text goes through."""
        ways = self.weights + self._after(self.highest)
        return self._way(ways, lambda mine, ways, _: ways.masked_fill(~mine, -torch.inf).argmax(1))

    def draw(self, u: Tensor) -> Tensor:
        """(L, C) int64: the pairs that a random text goes through, by the uniforms u (L, C)."""
        return self._way(self.onward, lambda mine, onward, i: categorical(onward * mine, u[i]))

    def _way(self, ways: Tensor, choose: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
        """choose: which of a text's pairs (C, P) bool that go on from its state, given `ways` there, at position i."""
        state, out = self.start, []
        for i, (starts, row) in enumerate(zip(self.starts, ways)):
            state = torch.where(starts, self.start, state)
            pair = choose(self.tokens.source == state[:, None], row.view(self.texts, -1), i)
            state = self.tokens.target[pair]
            out.append(pair)
        return torch.stack(out)

    def _after(self, states: Tensor) -> Tensor:
        """(L + 1, C S) -> (L, C P): of each pair's second state, one position on."""
        return states[1:].index_select(1, self.target)

    def _begin(self, starts: Tensor) -> Tensor:
        """(C,) -> (C S,)"""
        return starts[:, None].expand(self.last.shape).flatten()
