"""The writer thread: it alone writes to the store's connection, in groups of whatever is waiting.

Rhythm: a group is committed under `synchronous=NORMAL`, which puts it into the page cache (kill -9 loses nothing); a
durable job is committed alone under `synchronous=FULL`, which makes all that was committed before it safe from power loss.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from lcbatch.errors import LcbatchError, OutputFailed
from lcbatch.store.damage import verdict

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
Rescue = Callable[[], Sequence[bytes]]

_GROUP = 1024
"""Most jobs in one commit: bounds how long the first of them waits for the last."""

_LOG_BYTES = 8 * 1024 * 1024
"""What SQLite's log may grow to before it is moved into the file."""

_LOOK = 16
"""Commits between two looks at it: a look costs as much as writing a row."""


class _Mode(Enum):
    GROUPED = auto()
    DURABLE = auto()
    BEGIN = auto()
    COMMIT = auto()
    ROLLBACK = auto()


@dataclass(slots=True)
class _Job:
    work: Work
    mode: _Mode = _Mode.GROUPED
    future: asyncio.Future[Any] | None = None
    rescue: Rescue | None = None
    committed: Callable[[], None] | None = None
    result: Any = None


class Writer:
    """Owns the connection and its thread.

    After the first failed write nothing is written through SQLite again: what can be rescued goes to `rescue` (the
    reserve), and every further job is answered with that failure. Cancelling a caller does not undo its job.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, rescue: Callable[[Sequence[bytes]], None]) -> None:
        self._connection = connection
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._rescue = rescue
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._posted: list[_Job] = []
        self._loop = asyncio.get_running_loop()
        self._held = False
        self._losing = False
        self._commits = 0
        self.failure: LcbatchError | None = None
        self.when_failed: Callable[[LcbatchError], None] = _nobody_hears
        self._thread = threading.Thread(target=self._serve, name="lcbatch-store", daemon=True)
        self._thread.start()

    async def submit(
        self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False, rescue: Rescue | None = None
    ) -> T:
        """Run `work` on the writer thread; returns when it is committed. Raises OutputFailed when it could not be.

        RefusedError when the store turns out to be damaged.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        mode = _Mode.DURABLE if durable else _Mode.GROUPED
        self._hand_over(_Job(work, mode, future, rescue))
        return await future

    def post(self, work: Work, rescue: Rescue, committed: Callable[[], None] | None = None) -> None:
        """Run `work` in its turn, before all that is submitted later, without waiting for it.

        `committed` is called on the loop once it is, and never when it cannot be.
        What is posted in one turn of the loop goes over together: waking a thread costs more than an insert.
        """
        if not self._posted:
            self._loop.call_soon(self._hand_over)
        self._posted.append(_Job(work, rescue=rescue, committed=committed))

    def _hand_over(self, *more: _Job) -> None:
        """Give the thread what was posted, and then `more`."""
        jobs, self._posted = [*self._posted, *more], []
        if jobs:
            self._queue.put(jobs)

    async def hold(self) -> None:
        """Open one transaction over all that follows, until `release`."""
        await self._control(_Mode.BEGIN)

    async def release(self, *, commit: bool) -> None:
        """End the held transaction: keep all of it or none."""
        await self._control(_Mode.COMMIT if commit else _Mode.ROLLBACK)

    async def close(self) -> None:
        """Finish what waits, then close the connection (unless it failed: closing would write again)."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _control(self, mode: _Mode) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._hand_over(_Job(lambda connection: connection.execute(mode.name), mode, future))
        await future

    def _serve(self) -> None:
        while self._serve_group():
            pass
        if self.failure is None:
            self._connection.close()

    def _serve_group(self) -> bool:
        """Wait for a group and process it; False after the last. Returning lets go of it: rows of 50 MB may be among it."""
        jobs, ended = self._next_group()
        for together, part in groupby(jobs, key=lambda job: job.mode is _Mode.GROUPED):
            if together:
                self._process(list(part))
            else:
                for job in part:
                    self._process([job])
        return not ended

    def _next_group(self) -> tuple[list[_Job], bool]:
        group: list[_Job] = []
        jobs = self._queue.get()
        while jobs is not None:
            group += jobs
            if len(group) >= _GROUP:
                return group, False
            try:
                jobs = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _process(self, group: list[_Job]) -> None:
        if self.failure is None:
            try:
                self._commit(group)
            except Exception as error:  # noqa: BLE001 - a bug of ours must not leave callers waiting for ever
                self.failure = verdict(self._path, error)
                self.failure.__cause__ = error
                self._loop.call_soon_threadsafe(self.when_failed, self.failure)
        if self.failure is not None and not self._losing:
            self._save(group, self.failure)
        self._loop.call_soon_threadsafe(_resolve, group, self.failure)

    def _save(self, group: list[_Job], failure: LcbatchError) -> None:
        """Put answers into the reserve. Where that fails too, callers must be told instead of waiting for ever."""
        try:
            self._rescue([line for job in group if job.rescue for line in job.rescue()])
        except OSError as error:
            self._losing = True
            self.failure = OutputFailed(f"{failure.message}; answers in flight are lost: {error}", hint=failure.hint)

    def _commit(self, group: list[_Job]) -> None:
        """Run a group in one transaction; inside a held one, run it as it is."""
        connection, mode = self._connection, group[0].mode
        own = not self._held and mode in {_Mode.GROUPED, _Mode.DURABLE}
        if own:
            self._shorten_log()
        if own and mode is _Mode.DURABLE:
            connection.execute("PRAGMA synchronous=FULL")
        if own:
            connection.execute("BEGIN IMMEDIATE")
        for job in group:
            job.result = job.work(connection)
        if own:
            connection.execute("COMMIT")
        if own and mode is _Mode.DURABLE:
            connection.execute("PRAGMA synchronous=NORMAL")
        if mode not in {_Mode.GROUPED, _Mode.DURABLE}:
            self._held = mode is _Mode.BEGIN

    def _shorten_log(self) -> None:
        """Move a long log into the file. SQLite would do it by itself, but keep a failed sync to itself and go on."""
        self._commits += 1
        if self._commits % _LOOK:
            return
        with suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_BYTES:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _resolve(group: Sequence[_Job], failure: Exception | None) -> None:
    for job in group:
        if job.committed is not None and failure is None:
            job.committed()
        if job.future is None or job.future.done():
            continue
        if failure is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(failure)


def _nobody_hears(_: LcbatchError) -> None:
    """Whoever submits hears of it anyway."""
