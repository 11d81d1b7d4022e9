"""The process's standard streams: what stands in for closed ones, and what a failed write to one of them means."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from lcbatch.errors import LcbatchError, OutputClosed, OutputFailed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD = 3
_STDOUT, _STDERR = 1, 2


def take_streams() -> None:
    """Make of this process's standard streams what the commands write to. Before anything else is opened."""
    _fill_closed()
    out, err = sys.stdout, sys.stderr
    sys.stdout = _text(_Stdout(is_closed=out is None), out)
    sys.stderr = _text(_Stderr(), err)


def let_go() -> None:
    """Flush what is left. Where that cannot be, Python must not end with a code of its own for it."""
    with suppress(LcbatchError):
        sys.stdout.flush()
    stream = sys.__stdout__  # what user's code has printed
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    except ValueError:
        return  # closed: nothing is lost that could be said


def _fill_closed() -> None:
    """Put something in the place of each standard descriptor that is closed, or what is opened next takes its number.

    uvloop aborts at that, and rows could land in a file of ours. An unconnected socket can be neither read nor written, by
    its number or as /dev/stdout: /dev/null would take rows, and say nothing.
    """
    for number in range(_STANDARD):
        try:
            os.fstat(number)
        except OSError:
            import socket  # noqa: PLC0415 - hardly ever

            descriptor = socket.socket(socket.AF_UNIX).detach()
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)  # noqa: FBT003 - its own signature; a child would have the same gap


class _Stdout(io.FileIO):
    """Standard output, for what commands show. A write that fails ends the command, and is the last.

    What the buffers above it still hold must not be tried again, and fail again, at Python's own end.
    """

    def __init__(self, *, is_closed: bool) -> None:
        super().__init__(_STDOUT, "w", closefd=False)
        self._is_closed = is_closed
        self._failed = False

    def fileno(self) -> int:
        if self._is_closed:
            raise io.UnsupportedOperation("standard output is closed")
        return super().fileno()

    def write(self, data: ReadableBuffer, /) -> int:
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            raise self._meaning(error) from error

    def _meaning(self, error: OSError) -> LcbatchError:
        """Not an OSError: what shows text on the way down here has its own ways with these."""
        if error.errno == errno.EPIPE:
            return OutputClosed("nobody reads standard output any more")
        why = "it is closed" if self._is_closed else error.strerror
        return OutputFailed(f"cannot write to standard output: {why}", hint="send it somewhere else: > FILE, or | less")


class _Stderr(io.FileIO):
    """Standard error. What cannot be shown there is not the command's failure, and each line is tried anew.

    A pipe that does not block gets its reader `patience_s` when it is full, and no more of that until it has taken something.
    """

    def __init__(self, descriptor: int = _STDERR, *, patience_s: float = 1.0) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._patience_s = patience_s
        self._is_read = True

    def write(self, data: ReadableBuffer, /) -> int:
        """How many bytes were taken; all of them where they never will be, or the buffer above would keep them."""
        with suppress(OSError):
            taken = super().write(data)
            if taken is None and self._is_read:
                self._wait()
                taken = super().write(data)
            self._is_read = taken is not None
            if taken is not None:
                return taken
        return memoryview(data).nbytes

    def _wait(self) -> None:
        import select  # noqa: PLC0415 - hardly ever

        room = select.poll()
        room.register(self, select.POLLOUT)
        room.poll(self._patience_s * 1000)


def _text(raw: io.FileIO, like: TextIO | None) -> TextIO:
    """A text stream over `raw`, with the other's encoding. What that cannot say is escaped: it is for people to read."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding if like else "utf-8",
        errors="backslashreplace",
        line_buffering=isinstance(raw, _Stderr) or raw.isatty(),
    )
