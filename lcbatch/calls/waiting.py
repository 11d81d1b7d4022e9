"""What calls are waiting for, counted where they wait: a sample of it says which gate binds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lcbatch.events import Gate

_ORDER = (Gate.BUDGET, Gate.OUTAGE, Gate.PAUSE, Gate.TPM, Gate.RPM, Gate.CONCURRENCY, Gate.PROVIDER, Gate.RETRY)
"""Of gates at which calls stand at the same time the innermost binds: whoever waits further out waits for it, too."""


async def unhurried(awaitable: Awaitable[Any]) -> None:
    """ports.Wait that nobody cuts off."""
    await awaitable


class Waiting:
    """Who waits where, over all the stacks of a run."""

    def __init__(self) -> None:
        self._counts: Counter[Gate] = Counter()
        self._queues: list[Callable[[], Gate | None]] = []

    @contextmanager
    def at(self, gate: Gate) -> Iterator[None]:
        """A call waits at this gate while inside."""
        self._counts[gate] += 1
        try:
            yield
        finally:
            self._counts[gate] -= 1

    def watch(self, queue: Callable[[], Gate | None]) -> None:
        """Ask this queue, too, for what its first call waits; None when it is empty."""
        self._queues.append(queue)

    def binding(self) -> Gate | None:
        """The gate that holds calls up now, None when no call waits."""
        found = {gate for gate, count in self._counts.items() if count}
        found |= {gate for queue in self._queues if (gate := queue()) is not None}
        return next((gate for gate in _ORDER if gate in found), None)
