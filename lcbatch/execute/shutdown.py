"""Stopping a run in order: the first reason drains it, the second cuts it off. Signals come in here, and so do time limits."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from lcbatch.errors import Interrupted, LcbatchError
from lcbatch.events import Stopping
from lcbatch.ports import Emit, Executor, Sleep
from lcbatch.records import RowScope, current_row

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IMPATIENT = frozenset({signal.SIGTERM, signal.SIGHUP})
_SAME_SIGNAL_S = 1.0
"""`timeout` and service managers send TERM to the process and then to its group: that is one signal, not two."""

TERM_DRAIN_S = 25.0
"""A service manager kills 30 s after SIGTERM; 5 s are left for the files."""


class Patience:
    """Who is only waiting: for a turn, a pause, a retry. When the run is to stop they are cut off, as it costs nothing.

    Their rows stay without outcome, as after `Executor.cancel`. A row that has another call on the wire is left until that
    call has ended: cutting it off would throw away an answer that is paid for.
    """

    def __init__(self) -> None:
        self._waiting: dict[RowScope | None, set[asyncio.Task[Any]]] = {}
        self._over = False

    async def wait(self, awaitable: Awaitable[Any]) -> None:
        """Await it, unless the run stops first (CancelledError)."""
        task = asyncio.current_task()
        assert task is not None
        scope = current_row.get(None)
        tasks = self._waiting.setdefault(scope, set())
        tasks.add(task)
        if self._over:
            self._cut_off(scope)
        elif scope is not None and scope.ended:
            task.cancel()
        try:
            await awaitable
            if self._over:
                # Its turn has come, but nothing more goes out: it stays for as long as its row does.
                await asyncio.get_running_loop().create_future()
        finally:
            tasks.discard(task)
            if not tasks and self._waiting.get(scope) is tasks:
                del self._waiting[scope]

    async def sleep(self, delay_s: float) -> None:
        """`asyncio.sleep` that can be given up."""
        await self.wait(asyncio.sleep(delay_s))

    async def settled(self, scope: RowScope) -> None:
        """The row's chain has ended with calls still out (one branch of several failed): let those on the wire end, too.

        Their answers are paid for. Those that only wait are cut off.
        """
        scope.ended = True
        for task in tuple(self._waiting.get(scope, ())):
            task.cancel()
        while scope.calls_out:
            returned = asyncio.get_running_loop().create_future()
            scope.when_call_ends = lambda returned=returned: returned.done() or returned.set_result(None)
            await returned

    def end(self) -> None:
        """Cut off all that wait, and whoever will."""
        self._over = True
        for scope in tuple(self._waiting):
            self._cut_off(scope)

    def _cut_off(self, scope: RowScope | None) -> None:
        """Cancel those of the row that wait, as soon as all of its calls do."""
        tasks = self._waiting.get(scope, set())
        if scope is not None:
            if scope.calls_out > len(tasks):
                scope.when_call_ends = lambda: self._cut_off(scope)
                return
            scope.cut_off = bool(tasks) or scope.cut_off
        for task in tuple(tasks):
            task.cancel()


class Shutdown:
    """Why the run stops, if it does. `request` may be called by anyone, any number of times.

    `reason` is the first error that asked to stop; a signal beats what was asked before it. `aborts` are called when what is in
    flight is cut off, for those that wait where no cancelling reaches.
    """

    def __init__(
        self, executor: Executor, patience: Patience, emit: Emit, *, drain_timeout_s: float | None, sleep: Sleep
    ) -> None:
        self._executor = executor
        self._patience = patience
        self._emit = emit
        self._drain_timeout_s = drain_timeout_s
        self._sleep = sleep
        self._deadline_s: asyncio.Future[float] | None = None
        self._signalled_s = 0.0
        self.reason: LcbatchError | None = None
        self.aborts: list[Callable[[], None]] = []

    def request(self, reason: LcbatchError, *, within_s: float | None = None) -> None:
        """Stop because of `reason`: begin nothing more, and cut off what still runs `within_s` (or --drain-timeout) later."""
        if self.reason is None or isinstance(reason, Interrupted):
            self.reason = reason
            self._emit(Stopping(reason.message))
        self._executor.drain()
        self._patience.end()
        within_s = self._drain_timeout_s if within_s is None else within_s
        if within_s is not None and self._deadline_s is not None and not self._deadline_s.done():
            self._deadline_s.set_result(within_s)

    def cut_off(self) -> None:
        """Stop at once: calls in flight are abandoned."""
        self._emit(Stopping("cutting off what is in flight", cancel=True))
        self._executor.cancel()
        for abort in self.aborts:
            abort()

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
        now_s = asyncio.get_running_loop().time()
        if isinstance(self.reason, Interrupted):
            if (
                number != self.reason.signal_number
                or number == signal.SIGINT
                or now_s - self._signalled_s > _SAME_SIGNAL_S
            ):
                self.cut_off()
            return
        self._signalled_s = now_s
        impatient = self._drain_timeout_s is None and number in _IMPATIENT
        self.request(
            Interrupted(number, f"stopped by {number.name}", hint="run the same command again to continue"),
            within_s=TERM_DRAIN_S if impatient else None,
        )


def on_time(shutdown: Shutdown, after_s: float, error: Callable[[], LcbatchError], sleep: Sleep) -> asyncio.Task[None]:
    """A task that asks for the stop when the time is up; its owner cancels it."""

    async def wait() -> None:
        await sleep(after_s)
        shutdown.request(error())

    return asyncio.create_task(wait())
