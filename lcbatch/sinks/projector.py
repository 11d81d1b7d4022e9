"""Brings a sink up to the store: append what stands, sync, commit the position, in this order and never another.

One Projector owns one sink and the one thread in which that sink is called and the store is read for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from lcbatch.ports import SETTLED, Clock, Entry, Name, Order, Projectable, Sink, Sleep, View
from lcbatch.records import Json
from lcbatch.sinks.appendfile import REBUILDING
from lcbatch.sinks.faults import RewriteNeeded

T = TypeVar("T")

Commit: TypeAlias = Callable[[str, int, Mapping[str, Json]], Awaitable[object]]
"""Makes (view's name, position, sink's state) durable in the run store."""

STALE = -1
"""The position of an output that is not a prefix of its view: the next start has to rebuild it."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the output is brought up to date: once per `interval_s`, which bounds what power loss can cost."""

    interval_s: float = 0.1
    clock: Clock = time.monotonic
    sleep: Sleep = asyncio.sleep


class Projector:
    """Projects the store's rows into one sink.

    Positions are a `seq` for Order.FINISHED, the number of ordinals shown for Order.INPUT, or STALE. Enter it,
    `start` it, run `run()` as a task of the owner's group, `wake` it for new rows; when no more come, cancel that
    task and `finish`. Errors of the sink (OutputFailed, OutputClosed) and of the store come out of `run`,
    `caught_up` and `finish`; after one, nothing is tried again. Killed at any point, the next `start` with what was
    committed last makes the output right.
    """

    def __init__(self, sink: Sink, *, store: Projectable, commit: Commit, rhythm: Rhythm | None = None) -> None:
        self.sink = sink
        self.position = 0
        self._store = store
        self._commit = commit
        self._rhythm = rhythm or Rhythm()
        self._view = sink.view
        self._stale = False
        self._appends = True
        self._finished = False
        self._committed = STALE
        self._woken = 0
        self._shown = 0
        self._awake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"lcbatch-{self._view.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the sink. A wait for a reader that takes nothing is ended when we leave by an error or a cancel."""
        if kind is not None:
            self.abort()
        try:
            await asyncio.shield(self._call(self.sink.close))
        finally:
            self._entered().shutdown(wait=False)

    @property
    def lag(self) -> int:
        """Rows announced by `wake` and not yet appended."""
        return self._woken - self._shown

    async def start(self, position: int = 0, state: Mapping[str, Json] | None = None, *, stale: bool = False) -> None:
        """Open the sink where the store says it stood, and make it right.

        What is not as its state says is rebuilt now. A stale one (`stale`, or position STALE) is rebuilt now in
        finished order; in input order, where the new places are known only when the input has been read, it is left
        as it is until `finish`. Raises CannotCreateOutput, and OutputClosed on `abort`.
        """
        by_input = self._view.order is Order.INPUT
        stale = stale or position == STALE
        self.position = max(position, 0)
        clean = state is None or bool(state.get(SETTLED))
        # From here on it is no longer as the last run finished it.
        kept = None if state is None else {name: value for name, value in state.items() if name != SETTLED}
        taken = await self._call(lambda: self.sink.open(kept, clean=clean))
        if not taken or (stale and not by_input):
            await self._rebuild(prefix=by_input, before=kept)
        elif stale:
            self._appends = False
        self._stale = self._stale or (stale and by_input)
        # Before the first append: a crash after it must find a state, or the output would look like somebody else's.
        await self._settle()

    def wake(self, rows: int = 1) -> None:
        """Say that `rows` more stand in the store. Cheap; from the loop's thread."""
        self._woken += rows
        self._awake.set()

    def mark_stale(self) -> None:
        """Say that rows which are written already have changed, moved or gone: `finish` rebuilds, or the next start."""
        self._stale = True
        self._awake.set()

    async def discard(self, names: Sequence[Name]) -> None:
        """Take rows out of the output: a folder's files now, lines of a file by the rebuild of `finish`."""
        self.mark_stale()
        await self._call(lambda: self.sink.discard(names))

    def abort(self) -> None:
        """See Sink.abort: whatever of ours waits for a reader ends with OutputClosed. From any thread, at any time."""
        self.sink.abort()

    async def caught_up(self, within: int = 0) -> None:
        """Wait until at most `within` announced rows are not yet appended: the backpressure of a slow reader."""
        while self.lag > within:
            async with self._turn:
                await self._advance()

    async def run(self) -> None:
        """Append, sync and commit after wakes, at most once per interval, until cancelled. Idle, it does nothing."""
        rhythm = self._rhythm
        while True:
            await self._awake.wait()
            self._awake.clear()
            began_s = rhythm.clock()
            async with self._turn:
                await self._advance()
                # Rows that a view does not show must become safe too. The view of the answers sees to it, for one is
                # enough.
                if self._view.done or self._reported != self._committed:
                    await self._settle()
            left_s = rhythm.interval_s - (rhythm.clock() - began_s)
            if left_s > 0:
                await rhythm.sleep(left_s)

    async def finish(self, *, complete: bool) -> None:
        """Append the rest, rebuild where that is not enough, sync, commit: nothing is appended after it.

        `complete` says that no row is left without an outcome. Otherwise rows may stand behind a gap of the input
        order; they are shown too, and the position committed is STALE, so that the next start puts the missing ones
        between them. May be called again, after `mark_stale`. Cut off midway, the next start makes it right.
        """
        async with self._turn:
            await self._advance()
            partial = self._view.order is Order.INPUT and not complete
            behind = partial and await self._call(self._rows_behind_gap)
            # A row leaves the view of failed ones by being answered, which no append can show.
            if self._stale or behind or not self._view.done:
                await self._rebuild(prefix=False)
                self._stale = partial
            self._finished = True
            await self._settle()

    async def _advance(self) -> None:
        """Append what stands. In its turn: one at a time, whoever asks."""
        target = self._woken
        if self._appends and not self._finished:
            try:
                await self._call(self._append_standing)
            except RewriteNeeded as needed:
                if needed.now:
                    await self._rebuild(prefix=True)
                else:
                    self._stale, self._appends = True, False
        self._shown = max(self._shown, target)

    def _append_standing(self) -> None:
        for group in self._store.entries(self._view, self.position):
            self.sink.append(group)
            self.position = _position_after(self._view, group[-1])

    def _rows_behind_gap(self) -> bool:
        return any(entry.ordinal >= self.position for entry in self._store.all_entries(self._view))

    async def _rebuild(self, *, prefix: bool, before: Mapping[str, Json] | None = None) -> None:
        """Replace the output by all that stands, or by the `prefix` that the view shows in order."""
        state = before if before is not None else await self._call(self.sink.sync)
        # First on record: the new file may be in place before its position is, and the old one must not be cut by it.
        await self._commit(self._view.name, STALE, {**state, REBUILDING: True})
        rows = StandingRows(self._store, self._view, prefix=prefix)
        await self._call(lambda: self.sink.rebuild(rows))
        self.position = rows.position
        if prefix and self._view.order is Order.INPUT and await self._call(self._store.has_unplaced):
            # Rows that were kept although they are gone from the input: they come last, when all others are there.
            self._stale = True

    async def _settle(self) -> None:
        """Sync, then commit what was synced."""
        state, position = await self._call(lambda: (self.sink.sync(), self._reported))
        await self._commit(self._view.name, position, {**state, SETTLED: True} if self._finished else state)
        self._committed = position

    @property
    def _reported(self) -> int:
        return STALE if self._stale else self.position

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._entered(), function)

    def _entered(self) -> ThreadPoolExecutor:
        if self._thread is None:
            raise RuntimeError("the projector is not entered")
        return self._thread


def _position_after(view: View, entry: Entry) -> int:
    return entry.ordinal + 1 if view.order is Order.INPUT else entry.seq


class StandingRows:
    """The entries for a rebuild, which may be iterated again; `position` is what the last iteration reached.

    All that stand, or with `prefix` those that the view shows in order.
    """

    def __init__(self, store: Projectable, view: View, *, prefix: bool = False) -> None:
        self._store = store
        self._view = view
        self._prefix = prefix
        self.position = 0

    def __iter__(self) -> Iterator[Entry]:
        self.position = 0
        for entry in self._entries():
            self.position = max(self.position, _position_after(self._view, entry))
            yield entry

    def _entries(self) -> Iterator[Entry]:
        if not self._prefix:
            yield from self._store.all_entries(self._view)
            return
        for group in self._store.entries(self._view, 0):
            yield from group
