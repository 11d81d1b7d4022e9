"""One run an output: a lock file of its own, flocked for the whole run and never unlinked.

The lock is not on the store itself, since closing a second descriptor of an SQLite file drops SQLite's own locks.

The file also keeps the mark of the run that wrote the output last. The store has it too, from before the first row was
written: a store that lacks it lost its log, is an older copy, or is another output's.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from lcbatch.errors import CannotCreateOutput, OutputFailed, TryLater
from lcbatch.store.private import make_private_folder, open_private

_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "ceph", "glusterfs")
_GLANCE_S = 0.02
"""`holder_of` takes the lock for an instant: a run that starts then must not end as if the output were in use."""

_MARK = "output_by"

_BEGINS = b'{"'
"""How each lock file begins."""

_MOUNTS = Path("/proc/self/mounts")


class OutputLocked(TryLater):
    """Another run holds this output; `holder` is what it wrote about itself."""

    def __init__(self, path: Path, holder: Mapping[str, Any]) -> None:
        who = f"process {holder.get('pid', '?')}"
        since = holder.get("since")
        if since:
            who += f", started {since}"
        super().__init__(
            f"{path.name.removesuffix('.lock')} is in use by another run ({who})",
            hint="wait for it (--if-locked wait), look at it (lcbatch status OUT) or end it (lcbatch stop OUT)",
        )
        self.holder = holder


@asynccontextmanager
async def hold_lock(path: Path, *, wait: bool = False, command: str = "") -> AsyncIterator[None]:
    """Hold the lock at `path`. Raises OutputLocked at once, or waits its turn.

    CannotCreateOutput where it cannot be made, OutputFailed where the disk is full.
    """
    refuse_network_file_system(path.parent)
    descriptor = _open(path)
    try:
        await _acquire(descriptor, path, wait=wait)
        try:
            _refuse_strange(descriptor, path)
            _sign(descriptor, path, command)
        except OSError as error:
            raise OutputFailed(
                f"cannot write {path}: {error.strerror}", hint="make room or mend the disk first"
            ) from error
        yield
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> Mapping[str, Any] | None:
    """Who holds the lock at this moment, None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _signature(path)
    finally:
        os.close(descriptor)
    return None


def refuse_network_file_system(folder: Path, mounts: Path = _MOUNTS) -> None:
    """Raise CannotCreateOutput on a network file system, where neither flock nor SQLite's WAL can be trusted."""
    kind = _file_system(folder, mounts)
    if kind.startswith(_NETWORK_FILE_SYSTEMS):
        raise CannotCreateOutput(
            f"{folder} is on a network file system ({kind}), which cannot hold a run store",
            hint="keep the store on a local disk: --store /local/path",
        )


def _open(path: Path) -> int:
    try:
        make_private_folder(path.parent)
        # What a link in its place leads to is somebody's file, and would be written over.
        return open_private(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise CannotCreateOutput(
                f"{path} is a symbolic link, and is not followed", hint="remove the link"
            ) from error
        raise CannotCreateOutput(
            f"cannot create {path}: {error.strerror}", hint="choose another place with -o or --store"
        ) from error


def _refuse_strange(descriptor: int, path: Path) -> None:
    """Raise CannotCreateOutput for a file of somebody else's. A power loss leaves of ours nothing, zeros, or how it begins."""
    begins = os.pread(descriptor, len(_BEGINS), 0)
    if not _BEGINS.startswith(begins.rstrip(b"\0")):
        raise CannotCreateOutput(
            f"{path} is not a lock file of lcbatch's, and is not written over",
            hint="give the store another name with --store",
        )


async def _acquire(descriptor: int, path: Path, *, wait: bool) -> None:
    if _taken(descriptor):
        return
    if wait:
        await _in_daemon_thread(descriptor)
        return
    await asyncio.sleep(_GLANCE_S)
    if not _taken(descriptor):
        raise OutputLocked(path, _signature(path))


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _in_daemon_thread(descriptor: int) -> None:
    """Block in flock without keeping the process from ending: an executor's thread would be joined at exit."""
    loop = asyncio.get_running_loop()
    held = loop.create_future()
    # The thread's own: the lock is on what both descriptors share, and ours may be closed while it still blocks.
    own = os.dup(descriptor)

    def tell() -> None:
        if not held.done():
            held.set_result(None)

    def block() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
        finally:
            os.close(own)
        with suppress(RuntimeError):  # the loop is closed: whoever waited has gone
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=block, name="lcbatch-lock", daemon=True).start()
    await held


def mark_of(path: Path) -> str | None:
    """The mark of the run that last wrote the output of this lock; None where it is not known."""
    mark = _signature(path).get(_MARK)
    return mark if isinstance(mark, str) else None


def keep_mark(path: Path, mark: str | None, *, durable: bool = False) -> None:
    """Note who writes the output, once the store has it safe from power loss; None: nobody yet. The lock must be held.

    Where it cannot be noted it is not known, which is no harm by itself.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _write(descriptor, _marked(_signature(path), mark))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sign(descriptor: int, path: Path, command: str) -> None:
    signature = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": command,
    }
    _write(descriptor, _marked(signature, mark_of(path)))


def _marked(signature: Mapping[str, Any], mark: str | None) -> Mapping[str, Any]:
    rest = {name: value for name, value in signature.items() if name != _MARK}
    return rest if mark is None else {**rest, _MARK: mark}


def _write(descriptor: int, signature: Mapping[str, Any]) -> None:
    data = json.dumps(signature).encode()
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))


def _signature(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _file_system(folder: Path, mounts: Path) -> str:
    """Type of the file system that holds `folder` (or its nearest existing parent), "" where the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place = folder.resolve()
    best, kind = "", ""
    for line in lines:
        parts = line.split()
        point = parts[1].replace("\\040", " ")
        if (place == Path(point) or Path(point) in place.parents) and len(point) >= len(best):
            best, kind = point, parts[2]
    return kind
