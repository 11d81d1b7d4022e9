"""Timeouts that know when this process stood still, and a row's own that knows when it only waited for its turn.

`asyncio.timeout` counts the minutes in which a process was stopped (SIGSTOP, a suspended machine, a debugger): on waking up
every call in flight would time out at once, though its answer has been lying in the socket for long. Here a heart beats twice a
second; a beat that comes late says for how long nothing ran, and all deadlines move by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.ports import Sleep, Wait

_BEAT_S = 0.5
_LATE_S = 2.0
"""A loop that is merely busy is late by less."""


class Deadlines:
    """All running timeouts, and the heart that watches over them."""

    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()
        self._next_beat: asyncio.TimerHandle | None = None

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Watch over the timeouts while inside."""
        self._beat(asyncio.get_running_loop(), None)
        try:
            yield
        finally:
            if self._next_beat is not None:
                self._next_beat.cancel()

    def within(self, seconds: float) -> _Within:
        """Raise TimeoutError when the block takes longer than so many seconds in which this process ran."""
        return _Within(seconds, self._running)

    def moved_by(self, seconds: float) -> None:
        """Nothing ran for so long: no deadline is to come nearer by it."""
        for running in tuple(self._running):
            when_s = running.when()
            if when_s is not None and not running.expired():
                running.reschedule(when_s + seconds)

    def _beat(self, loop: asyncio.AbstractEventLoop, due_s: float | None) -> None:
        """A timer's own callback, no task: of the timers due after a standstill it comes first, and moves the others."""
        now_s = loop.time()
        if due_s is not None and now_s - due_s > _LATE_S:
            self.moved_by(now_s - due_s)
        self._next_beat = loop.call_later(_BEAT_S, self._beat, loop, now_s + _BEAT_S)


class _Within:
    """`asyncio.timeout` that is known to its Deadlines while it runs."""

    def __init__(self, seconds: float, known: set[asyncio.Timeout]) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._known = known

    async def __aenter__(self) -> asyncio.Timeout:
        self._known.add(self._timeout)
        return await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._known.discard(self._timeout)
        await self._timeout.__aexit__(kind, error, trace)


class RowClock:
    """A row's timeout, which stands still while one of the row's calls waits for its turn."""

    def __init__(self, running: asyncio.Timeout) -> None:
        self._running = running
        self._waits = 0
        self._left_s = 0.0
        self.over = False

    def stop(self) -> None:
        """A call of the row begins to wait."""
        when_s = self._running.when()
        if self._waits == 0 and when_s is not None and self._ticks():
            self._left_s = when_s - asyncio.get_running_loop().time()
            self._running.reschedule(None)
        self._waits += 1

    def go_on(self) -> None:
        """It has its turn."""
        self._waits -= 1
        if self._waits == 0 and self._ticks():
            self._running.reschedule(asyncio.get_running_loop().time() + self._left_s)

    def _ticks(self) -> bool:
        return not self.over and not self._running.expired()


_row_clock: ContextVar[RowClock | None] = ContextVar("lcbatch_row_clock", default=None)


class RowTimeout:
    """--row-timeout: bounds a row's work by `seconds` (None: not at all), not counting what `waiting` sees."""

    def __init__(self, seconds: float | None, deadlines: Deadlines) -> None:
        self._seconds = seconds
        self._deadlines = deadlines

    def row(self) -> AbstractAsyncContextManager[None]:
        """One row's work. Raises CallFailed when its time is over."""
        return nullcontext() if self._seconds is None else self._bounded(self._seconds)

    @asynccontextmanager
    async def _bounded(self, seconds: float) -> AsyncIterator[None]:
        running = None
        try:
            async with self._deadlines.within(seconds) as running:
                clock = RowClock(running)
                token = _row_clock.set(clock)
                try:
                    yield
                finally:
                    clock.over = True
                    _row_clock.reset(token)
        except TimeoutError as error:
            if running is None or not running.expired():
                raise  # the chain's own
            message = f"the row took longer than --row-timeout {seconds:g} s"
            raise CallFailed(Failure(Kind.TIMEOUT, message, maybe_paid=True)) from error

    def waiting(self, wait: Wait) -> Wait:
        """The same wait, during which the row's clock stands."""
        if self._seconds is None:
            return wait

        async def waits(awaitable: Awaitable[Any]) -> None:
            clock = _row_clock.get()
            if clock is None:
                await wait(awaitable)
                return
            clock.stop()
            try:
                await wait(awaitable)
            finally:
                clock.go_on()

        return waits


def sleeping(wait: Wait) -> Sleep:
    """`asyncio.sleep` under a wait's own rules."""

    async def sleep(delay_s: float) -> None:
        await wait(asyncio.sleep(delay_s))

    return sleep
