"""The sink of a pipe, a terminal or a device: written from its beginning, never taken back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lcbatch.errors import LcbatchError, OutputClosed
from lcbatch.ports import Entry, Name, View
from lcbatch.records import Json
from lcbatch.sinks.faults import cannot_create, cannot_write, write_all
from lcbatch.sinks.lines import Format

_FLAGS = os.O_WRONLY | os.O_CLOEXEC
_CHUNK = 4096
"""What a pipe that is ready takes without blocking (PIPE_BUF on Linux; macOS promises 512 and takes more)."""

_READER_EVERY_MS = 50
"""How often a FIFO is tried again that nobody reads yet: the system has no event for a reader who comes."""


class StreamSink:
    """Writes rows to a descriptor that is given, or to a special file that it opens.

    What an earlier run wrote is gone, so the state is empty and `open` always answers False; `rebuild` writes
    nothing, and the projector begins at the first row. A FIFO that nobody reads yet holds up `open`, a reader that is
    slow `append`; `abort` ends both waits.
    """

    notice: str | None = None

    def __init__(self, view: View, target: int | Path, format_: Format) -> None:
        self.view = view
        self._target = target
        self._format = format_
        self._name = "the output pipe" if isinstance(target, int) else str(target)
        self._fd = -1
        self._is_file = False
        self._within_line = False
        self._broken: LcbatchError | None = None
        self._given_up = False
        self._bell = (-1, -1)
        # Around the bell alone: it may be rung while `open` makes it and while `close` takes it away.
        self._lock = threading.Lock()

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:  # noqa: ARG002 - nothing to find again
        """Open a special file, a FIFO once it has a reader. Raises CannotCreateOutput, and OutputClosed on `abort`."""
        self._format.begin()
        with self._lock:
            self._bell = os.pipe()
            if self._given_up:
                os.write(self._bell[1], b"x")
        try:
            self._fd = self._target if isinstance(self._target, int) else self._opened(self._target)
            self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
            self._within_line = self._is_file and _ends_within_line(self._fd)
        except OSError as error:
            raise cannot_create(error, self._name) from error
        return False

    def _opened(self, path: Path) -> int:
        if not stat.S_ISFIFO(path.stat().st_mode):
            return os.open(path, _FLAGS)
        while True:
            try:
                return os.open(path, _FLAGS | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            self._wait(None, _READER_EVERY_MS)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write a group. Raises OutputClosed when the reader has gone or on `abort`, OutputFailed for all else."""
        if self._broken is not None:
            raise self._broken
        data = self._format.encode(entries)
        try:
            # Or the row would be lost in the half line that a killed run has left behind `>>`.
            self._write(b"\n" + data if self._within_line and data else data)
            self._within_line = self._within_line and not data
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
            self._wait(self._fd, None)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._fd, view[:_CHUNK]) :]

    def _wait(self, fd: int | None, most_ms: int | None) -> None:
        """Until the descriptor takes bytes, or so long. Raises OutputClosed where that would be a wait, on `abort`."""
        poll = select.poll()
        poll.register(self._bell[0], select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLOUT)
        if [ready for ready, _ in poll.poll(most_ms)] == [self._bell[0]]:
            self._broken = OutputClosed(f"{self._name} was given up: nobody reads it")
            raise self._broken

    def sync(self) -> Mapping[str, Json]:
        """Nothing can be made safe here."""
        if self._broken is not None:
            raise self._broken
        return {}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:  # noqa: ARG002 - what is written is written
        """Nothing can be replaced here; `entries` is not read."""
        return self.sync()

    def discard(self, names: Sequence[Name]) -> None:
        """Nothing can be taken back here."""

    def abort(self) -> None:
        """See Sink.abort. What can be written without a wait is written all the same."""
        with self._lock:
            if not self._given_up and self._bell[1] >= 0:
                os.write(self._bell[1], b"x")
            self._given_up = True

    def close(self) -> None:
        """Close what `open` opened; a descriptor that was given stays open."""
        with self._lock:
            for fd in self._bell:
                if fd >= 0:
                    os.close(fd)
            self._bell = (-1, -1)
        if self._fd >= 0 and not isinstance(self._target, int):
            os.close(self._fd)
        self._fd = -1


def _ends_within_line(fd: int) -> bool:
    """Whether the next byte of a regular file would go on with a line that is there. False where that cannot be seen."""
    with contextlib.suppress(OSError):
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        end = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
        readable = os.open(f"/dev/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # what a shell opens can only be written
        try:
            return os.pread(readable, 1, end - 1) != b"\n" if end else False
        finally:
            os.close(readable)
    return False
