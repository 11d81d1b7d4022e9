"""The border to the operating system's errors: what an errno means for a run."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lcbatch.errors import OUT_OF_RESOURCES, CannotCreateOutput, LcbatchError, OutputClosed, OutputFailed, ran_out

_CONTINUE = "mend that and run the same command again: nothing that was answered is asked again"
_NO_SPACE = "free some space and run the same command again: nothing that was answered is asked again"
_HINTS = {errno.ENOSPC: _NO_SPACE, errno.EDQUOT: _NO_SPACE}
_NOBODY_READS = frozenset({errno.EPIPE, errno.EBADF, errno.ECONNRESET})


class RewriteNeeded(Exception):
    """The output cannot take these rows by appending; nothing of their group was written.

    Between a sink and its projector, which calls `rebuild`: `now`, or (`now=False`) once when the run ends.
    """

    def __init__(self, *, now: bool) -> None:
        super().__init__("the output has to be rebuilt")
        self.now = now


def cannot_create(error: OSError, path: Path | str) -> LcbatchError:
    """The error for an output that could not be taken up: SystemLimit where this machine ran out, else CannotCreateOutput."""
    reason = error.strerror or str(error)
    if error.errno in OUT_OF_RESOURCES:
        return ran_out(f"cannot open {path}: {reason}")
    return CannotCreateOutput(f"cannot create {path}: {reason}", hint="choose another place with -o")


def cannot_write(error: OSError, path: Path | str) -> LcbatchError:
    """The error for a failed write or sync: OutputClosed where a reader has gone, SystemLimit where this machine ran out.

    OutputFailed for all else.
    """
    if error.errno in _NOBODY_READS:
        return OutputClosed(f"nobody reads {path} any more")
    reason = error.strerror or str(error)
    if error.errno in OUT_OF_RESOURCES:
        return ran_out(f"cannot write {path}: {reason}")
    return OutputFailed(f"cannot write {path}: {reason}", hint=_HINTS.get(error.errno or 0, _CONTINUE))


def sync_data(fd: int) -> None:
    """Make a file's bytes and length safe from power loss. macOS has no fdatasync."""
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_folder(folder: Path | str) -> None:
    """Make the names in a folder safe from power loss. Some network file systems cannot, and say EINVAL."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Hand all bytes to the system; a short write is followed by the rest. Raises OSError.

    A buffered file would keep bytes back on an error and write them again when closed, which doubled rows.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
