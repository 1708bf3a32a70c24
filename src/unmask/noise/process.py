"""What noise does to text and how it is undone: the contract. A process knows states and laws, never networks.

Shapes: B rows, L positions, V symbols. A time t is (B, L): every position carries its own, 0 is given or settled, 1 is
pure noise. A prediction `mu` is (B, L, V): log p(clean token | everything but this position's own noisy value). The
formulas work position by position, so they take flat (N,), (N, V) slices just as well.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from .draws import Draws
from .schedule import Schedule


class Process(Protocol):
    @property
    def schedule(self) -> Schedule:
        """How fast a token fades."""
        ...

    def prior(self, like: Tensor, rng: Draws) -> Tensor:
        """Pure noise for positions shaped like `like` (B, L)."""
        ...

    def corrupt(self, x0: Tensor, t: Tensor, rng: Draws) -> Tensor:
        """One draw from q_t(. | x0)."""
        ...

    def nelbo(self, mu: Tensor, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The bound's integrand at (x, t), nats a position; its mean over t ~ U[0, 1] bounds -log p(x0)."""
        ...

    def reverse(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> Tensor:
        """One draw from p(x_s | x_t), s <= t."""
        ...

    def beliefs(self, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        """log p(clean token | x_t), the position's own noisy value included."""
        ...

    def certain(self, x: Tensor) -> Tensor:
        """Where the state is the clean token beyond doubt, because noise never makes it: bool, shaped like x."""
        ...

    def hold(self, x: Tensor, mu: Tensor, t: Tensor, s: Tensor, rng: Draws) -> tuple[Tensor, Tensor]:
        """What a position that stays undecided becomes, and its honest time."""
        ...

    def write(self, x: Tensor, tokens: Tensor, where: Tensor) -> Tensor: ...

    def read(self, x: Tensor) -> Tensor: ...
