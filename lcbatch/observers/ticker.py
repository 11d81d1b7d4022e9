"""A timer that an event can end at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lcbatch.ports import Sleep


class Ticker:
    """Calls `tick` every `interval_s`, the first time after one interval, until `stop`.

    What `tick` raises comes out of `run`, alone and not in a group.
    """

    def __init__(self, tick: Callable[[], None], interval_s: float, sleep: Sleep) -> None:
        self._tick = tick
        self._interval_s = interval_s
        self._sleep = sleep
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End `run` without waiting for the interval. Idempotent; before `run` too."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    async def run(self) -> None:
        if self.stopped:
            return
        try:
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(self._tick_on())
                await self._stopped.wait()
                ticking.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _tick_on(self) -> None:
        while True:
            await self._sleep(self._interval_s)
            self._tick()
