"""The sink of a pipe, a terminal or a device: written from its beginning, never taken back."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lcbatch.errors import LcbatchError, OutputClosed
from lcbatch.ports import Entry, View
from lcbatch.records import Json
from lcbatch.sinks.faults import cannot_create, cannot_write, write_all
from lcbatch.sinks.lines import Format

_FLAGS = os.O_WRONLY | os.O_CLOEXEC
_CHUNK = 4096
"""What a pipe that is ready takes without blocking (PIPE_BUF on Linux; macOS promises 512 and takes more)."""


class StreamSink:
    """Writes rows to a descriptor that is given, or to a special file that it opens.

    What an earlier run wrote is gone, so the state is empty and `open` always answers False; `rebuild` writes
    nothing, and the projector begins at the first row. A reader that is slow holds up `append`; `abort`, from any
    thread, ends that wait.
    """

    notice: str | None = None

    def __init__(self, view: View, target: int | Path, format_: Format) -> None:
        self.view = view
        self._target = target
        self._format = format_
        self._name = "the output pipe" if isinstance(target, int) else str(target)
        self._fd = -1
        self._is_file = False
        self._abort = (-1, -1)
        self._broken: LcbatchError | None = None

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:  # noqa: ARG002 - nothing to find again
        """Open a special file (waits for the reader of a FIFO). Raises CannotCreateOutput."""
        self._format.begin()
        self._abort = os.pipe()
        try:
            self._fd = self._target if isinstance(self._target, int) else os.open(self._target, _FLAGS)
            self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError as error:
            raise cannot_create(error, self._name) from error
        return False

    def append(self, entries: Sequence[Entry]) -> None:
        """Write a group. Raises OutputClosed when the reader has gone or on `abort`, OutputFailed for all else."""
        if self._broken is not None:
            raise self._broken
        try:
            self._write(self._format.encode(entries))
        except OSError as error:
            self._broken = cannot_write(error, self._name)
            raise self._broken from error

    def _write(self, data: bytes) -> None:
        # One small write for each time the descriptor is ready: a larger one would block in the system, where
        # nothing but the reader could end it, and with it the process.
        view = memoryview(data)
        if self._is_file:
            write_all(self._fd, data)
            return
        while view:
            self._wait_ready(self._abort[0])
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._fd, view[:_CHUNK]) :]

    def _wait_ready(self, abort: int) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.register(abort, select.POLLIN)
        if any(fd == abort for fd, _ in poll.poll()):
            self._broken = OutputClosed(f"{self._name} was given up: its reader takes nothing")
            raise self._broken

    def sync(self) -> Mapping[str, Json]:
        """Nothing can be made safe here."""
        if self._broken is not None:
            raise self._broken
        return {}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:  # noqa: ARG002 - what is written is written
        """Nothing can be replaced here; `entries` is not read."""
        return self.sync()

    def discard(self, ids: Sequence[str]) -> None:
        """Nothing can be taken back here."""

    def abort(self) -> None:
        """End a wait for the reader: the append under way, and every later one, raises OutputClosed."""
        if self._abort[1] >= 0:
            os.write(self._abort[1], b"x")

    def close(self) -> None:
        """Close what `open` opened; a descriptor that was given stays open."""
        for fd in self._abort:
            if fd >= 0:
                os.close(fd)
        self._abort = (-1, -1)
        if self._fd >= 0 and not isinstance(self._target, int):
            os.close(self._fd)
        self._fd = -1
