"""The reserve: disk space taken in advance, where answers in flight land when the store can no longer be written.

One line an answer, its CRC-32 in hex and its JSON, in place of the zeros that the file is made of; the next run takes them into
the store.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lcbatch import jsontext
from lcbatch.errors import OutputFailed, RefusedError
from lcbatch.records import Json
from lcbatch.store.private import open_private

_WITHOUT_SUM = (b'["outcome",[', b'["reply",[')

_LEAST_BYTES = 4 * 1024 * 1024
_BYTES_PER_CALL = 64 * 1024


class Reserve:
    """Preallocated space at `path`. `write` never needs new blocks, so a full disk cannot refuse it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._offset = 0
        self._syncs = True

    def prepare(self, in_flight: int) -> None:
        """Take the space for `in_flight` calls. Raises OutputFailed when there is none."""
        size = max(_LEAST_BYTES, _BYTES_PER_CALL * in_flight)
        try:
            self._descriptor = open_private(self._path, os.O_RDWR | os.O_TRUNC)
            _allocate(self._descriptor, size)
            _sync_name(self._path)
        except OSError as error:
            self.release()
            raise OutputFailed(
                f"no room for the reserve {self._path} ({size // 1024} KiB): {error.strerror}", hint="make room first"
            ) from error

    def write(self, lines: Sequence[bytes]) -> None:
        """Put lines into the space taken, safe from power loss: no commit will make them so. Raises OSError when they cannot
        even be written.
        """
        if self._descriptor is None or not lines:
            return
        data = b"".join(b"%08x %b\n" % (zlib.crc32(line), line) for line in lines)
        while data:
            written = os.pwrite(self._descriptor, data, self._offset)
            self._offset += written
            data = data[written:]
        self._sync(self._descriptor)

    def _sync(self, descriptor: int) -> None:
        """After one failure it is not tried again, for a second sync would say nothing. The answers may be there all the same."""
        if self._syncs:
            try:
                os.fsync(descriptor)
            except OSError:
                self._syncs = False

    def release(self) -> None:
        """Give the space back, unless something stands in it."""
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        if self._offset == 0:
            self._path.unlink(missing_ok=True)


def rescued(path: Path) -> Iterator[Json]:
    """What an earlier run left in its reserve. A last line that was torn by the end of that run is passed over.

    Raises RefusedError for a line that is not as it was written: it is a paid answer, and more may follow.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.startswith(b"\0") or not line.endswith(b"\n"):
                return
            yield _said(line.rstrip(b"\n"), path, number)


def _said(line: bytes, path: Path, number: int) -> Json:
    """What a line says. One of before format 5 of the store has no sum."""
    crc, _, text = line.partition(b" ")
    if line.startswith(_WITHOUT_SUM):
        crc, text = b"%08x" % zlib.crc32(line), line
    try:
        if crc == b"%08x" % zlib.crc32(text):
            return jsontext.loads(text)
        why = "another checksum"
    except ValueError as error:
        why = str(error)
    raise RefusedError(
        f"{path}, line {number} is not as it was written when the disk was full: {why}",
        hint="restore the file; or remove that line, which has what it held asked and billed once more",
    )


def _sync_name(path: Path) -> None:
    """Make the name of a file safe from power loss. Some file systems cannot, and have said so by EINVAL."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    block = bytes(1024 * 1024)
    for offset in range(0, size, len(block)):
        os.pwrite(descriptor, block, offset)
