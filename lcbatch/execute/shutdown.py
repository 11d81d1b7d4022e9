"""Stopping a run in order: the first reason drains it, the second cuts it off. Signals come in here, and so do time limits."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lcbatch.errors import Interrupted, LcbatchError
from lcbatch.events import Stopping
from lcbatch.ports import Emit, Executor, Sleep

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IMPATIENT = frozenset({signal.SIGTERM, signal.SIGHUP})
TERM_DRAIN_S = 25.0
"""A service manager kills 30 s after SIGTERM; 5 s are left for the files."""


class Shutdown:
    """Why the run stops, if it does. `request` may be called by anyone, any number of times.

    `reason` is the first error that asked to stop; a signal beats what was asked before it.
    """

    def __init__(self, executor: Executor, emit: Emit, *, drain_timeout_s: float | None, sleep: Sleep) -> None:
        self._executor = executor
        self._emit = emit
        self._drain_timeout_s = drain_timeout_s
        self._sleep = sleep
        self._deadline_s: asyncio.Future[float] | None = None
        self.reason: LcbatchError | None = None

    def request(self, reason: LcbatchError, *, within_s: float | None = None) -> None:
        """Stop because of `reason`: begin nothing more, and cut off what still runs `within_s` seconds later."""
        if self.reason is None or isinstance(reason, Interrupted):
            self.reason = reason
            self._emit(Stopping(reason.message))
        self._executor.drain()
        if within_s is not None and self._deadline_s is not None and not self._deadline_s.done():
            self._deadline_s.set_result(within_s)

    def cut_off(self) -> None:
        """Stop at once: calls in flight are abandoned."""
        self._emit(Stopping("cutting off what is in flight", cancel=True))
        self._executor.cancel()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Handle signals and the drain's time limit while inside."""
        loop = asyncio.get_running_loop()
        self._deadline_s = loop.create_future()
        watcher = asyncio.create_task(self._watch(self._deadline_s))
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self, deadline_s: asyncio.Future[float]) -> None:
        await self._sleep(await deadline_s)
        self.cut_off()

    def _on_signal(self, number: signal.Signals) -> None:
        if isinstance(self.reason, Interrupted):
            self.cut_off()
            return
        within_s = self._drain_timeout_s
        if within_s is None and number in _IMPATIENT:
            within_s = TERM_DRAIN_S
        self.request(
            Interrupted(number, f"stopped by {number.name}", hint="run the same command again to continue"),
            within_s=within_s,
        )


def on_time(shutdown: Shutdown, after_s: float, error: Callable[[], LcbatchError], sleep: Sleep) -> asyncio.Task[None]:
    """A task that asks for the stop when the time is up; its owner cancels it."""

    async def wait() -> None:
        await sleep(after_s)
        shutdown.request(error())

    return asyncio.create_task(wait())
