"""Whose turn it is: rows wait in the order they came, client by client in rotation, so that a client who asks for much
does not keep the others waiting. Knows no rows."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")


class Turns(Generic[Waiting]):
    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, client: str, one: Waiting) -> None:
        self._clients.setdefault(client, deque()).append(one)
        self._size += 1

    def next(self) -> Waiting:
        """The one that has waited longest, of the client whose turn it is."""
        client, queue = self._clients.popitem(last=False)
        one = queue.popleft()
        if queue:
            self._clients[client] = queue  # at the end of the rotation
        self._size -= 1
        return one

    def drop(self, client: str, one: Waiting) -> bool:
        """Whether it was still waiting."""
        queue = self._clients.get(client)
        if queue is None or one not in queue:
            return False
        queue.remove(one)
        if not queue:
            del self._clients[client]
        self._size -= 1
        return True
