"""The local executor: a bounded window of rows, each run by a worker task that lives as long as there are rows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lcbatch.events import RowsStarted
from lcbatch.ports import Emit, Work
from lcbatch.records import Outcome, Row


class _Finished:
    """Outcomes on their way to the pipeline. Bounded: a worker waits when `bound` of them have not been taken."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._outcomes: list[Outcome] = []
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    async def put(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._ready.set()
        if len(self._outcomes) >= self._bound:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        self._closed = True
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[list[Outcome]]:
        while self._outcomes or not self._closed:
            await self._ready.wait()
            self._ready.clear()
            outcomes, self._outcomes = self._outcomes, []
            self._room.set()
            if outcomes:
                yield outcomes
            del outcomes  # the next may be long in coming


class _Handoff:
    """Gives one row at a time from the feeder to whichever worker waits; nothing is ever in between."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[Row | None]] = deque()
        self._wanted = asyncio.Event()
        self._closed = False

    @property
    def anyone_waits(self) -> bool:
        return bool(self._waiting)

    async def give(self, row: Row) -> None:
        """Returns when a worker has the row; cancelled before that, the row was given to nobody."""
        while True:
            while not self._waiting:
                self._wanted.clear()
                await self._wanted.wait()
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(row)
                return

    async def take(self) -> Row | None:
        """The next row, or None when there are no more."""
        if self._closed:
            return None
        waiting: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._wanted.set()
        return await waiting

    def close(self) -> None:
        """There are no more rows."""
        self._closed = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)


class LocalExecutor:
    """Runs at most `window` rows at once; a worker is started only when all others are busy.

    Rows are taken from the iterator no faster than workers take them, so that a slow chain holds up a pipe. `drain` stops
    taking (also while the source waits for input) and lets rows in flight end; `cancel` cuts these off too: they stay
    without outcome. An exception of `work` is the run's and ends all others.
    """

    def __init__(self, window: int, emit: Emit) -> None:
        self._window = window
        self._emit = emit
        self._feeder: asyncio.Task[None] | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._draining = False

    def resize(self, window: int) -> None:
        """Run at most `window` rows at once from now on; a narrower one takes hold as rows in flight end."""
        self._window = window

    def drain(self) -> None:
        """Begin no more rows."""
        self._draining = True
        if self._feeder is not None:
            self._feeder.cancel()

    def cancel(self) -> None:
        """Cut off the rows in flight."""
        self.drain()
        for worker in self._workers:
            worker.cancel()

    @asynccontextmanager
    async def run(self, rows: AsyncIterator[Row], work: Work) -> AsyncIterator[AsyncIterator[list[Outcome]]]:
        """ports.Executor. Leaving the block early cancels what runs."""
        finished = _Finished(bound=2 * self._window)
        alone: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                supervisor = group.create_task(self._supervise(rows, work, finished))
                try:
                    yield aiter(finished)
                finally:
                    supervisor.cancel()
        except BaseExceptionGroup as errors:
            if (alone := _only_one(errors)) is None:
                raise
        if alone is not None:
            # As it was raised: whoever decides by the kind of an error does not look into groups.
            raise alone

    async def _supervise(self, rows: AsyncIterator[Row], work: Work, finished: _Finished) -> None:
        """Owns feeder and workers; closes `finished` when the last has ended."""
        try:
            async with asyncio.TaskGroup() as group:
                self._feeder = group.create_task(self._feed(rows, work, finished, group))
                if self._draining:
                    self._feeder.cancel()
        finally:
            finished.close()

    async def _feed(self, rows: AsyncIterator[Row], work: Work, finished: _Finished, group: asyncio.TaskGroup) -> None:
        handoff = _Handoff()
        try:
            async for row in rows:
                if not handoff.anyone_waits and len(self._workers) < self._window:
                    worker = group.create_task(self._work(handoff, work, finished))
                    self._workers.add(worker)
                    worker.add_done_callback(self._workers.discard)
                await handoff.give(row)
        finally:
            handoff.close()

    async def _work(self, handoff: _Handoff, work: Work, finished: _Finished) -> None:
        me = asyncio.current_task()
        while (row := await handoff.take()) is not None:
            self._emit(RowsStarted(1))
            await finished.put(await work(row))
            row = None  # while it waits for the next one, a worker would keep this one in memory
            if len(self._workers) > self._window and me is not None:
                # At once, not by the callback: of many that end together only those beyond the window may go.
                self._workers.discard(me)
                return


def _only_one(errors: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception that task groups wrapped, None when there are several."""
    while len(errors.exceptions) == 1:
        error = errors.exceptions[0]
        if not isinstance(error, BaseExceptionGroup):
            return error
        errors = error
    return None
