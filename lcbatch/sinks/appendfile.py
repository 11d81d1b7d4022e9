"""A regular file that only grows, at a known offset: taking it up again, writing, syncing, replacing it in one step."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from lcbatch.errors import CannotCreateOutput, LcbatchError
from lcbatch.jsontext import digest
from lcbatch.records import Json
from lcbatch.sinks.aside import Wall, make_way, set_aside
from lcbatch.sinks.faults import cannot_create, cannot_write, sync_data, sync_folder, write_all

NO_FILE = 0
"""Inode in the mark of an output that did not exist when it was synced."""

_TAIL_BYTES = 4096

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_BY_UMASK = 0o666

_NEW = "what no run store has is asked and billed"
_AGAIN = "it is written again from the run store, without a call for what that has"

REBUILDING = "rebuilding"
"""Set in a stored state while a rebuild is under way: the file may be the old one or the new one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """By which a file is known again: bytes, time of the last change in ns since 1970, inode, name, digest of what it ends with.

    An inode alone does not do: a file that is made after ours was deleted may be given its number. `tail` is None in marks of
    earlier versions.
    """

    size: int
    mtime_ns: int
    inode: int
    name: str
    tail: str | None = None

    def to_json(self) -> dict[str, Json]:
        return {
            "offset": self.size,
            "mtime_ns": self.mtime_ns,
            "inode": self.inode,
            "name": self.name,
            "tail": self.tail,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Json]) -> Mark:
        return cls(state["offset"], state["mtime_ns"], state["inode"], state["name"], state.get("tail"))

    @classmethod
    def of(cls, path: Path, size: int) -> Mark | None:
        """That of a file as it is, None where there is none; its tail is what it has before `size`. Raises OSError."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise CannotCreateOutput(f"{path} is no regular file", hint="name another output with -o")
        with path.open("rb") as file:
            tail = _tail(file.fileno(), size)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, path.name, tail)


class Verdict(Enum):
    """What to do with what lies where the output goes."""

    TAKE = auto()
    REBUILD = auto()
    SET_ASIDE = auto()
    FOREIGN = auto()


def judge(ours: Mark | None, found: Mark | None, *, clean: bool, rebuilding: bool = False) -> Verdict:
    """Compare what we left (None: nothing yet) with what is there (None: nothing).

    After a clean end every difference is an edit. After a crash the same inode with at least our bytes, the last of them as we
    wrote them, is ours with more behind. `rebuilding` says that the crash fell into a rebuild, whose rename may or may not have
    happened. A file of another name that we do not recognise is never touched.
    """
    if ours is None:
        return Verdict.TAKE if found is None or found.size == 0 else Verdict.FOREIGN
    if found is None or rebuilding or (ours.inode == NO_FILE and not clean):
        return Verdict.REBUILD
    if clean:
        known = found.size == ours.size and found.mtime_ns == ours.mtime_ns
    else:
        known = found.size >= ours.size and found.inode == ours.inode and ours.tail in {None, found.tail}
    if known:
        return Verdict.TAKE
    if found.size == 0:
        return Verdict.REBUILD
    return Verdict.SET_ASIDE if found.name == ours.name else Verdict.FOREIGN


def is_as_left(path: Path, state: Mapping[str, Json], *, clean: bool) -> bool:
    """Whether a file is the one of which this mark was kept under another name, moved since. An empty one says nothing."""
    if not state.get("offset") or state.get(REBUILDING):
        return False
    ours = Mark.from_json(state)
    try:
        found = Mark.of(path, ours.size)
    except (OSError, CannotCreateOutput):
        return False
    return found is not None and found.inode == ours.inode and judge(ours, found, clean=clean) is Verdict.TAKE


def _tail(fd: int, size: int) -> str:
    """A digest of a file's last bytes before `size`. Raises OSError."""
    start = max(0, size - _TAIL_BYTES)
    return digest(os.pread(fd, size - start, start)).hex()


def temporary_name(name: str) -> str:
    """The one temporary name beside an output; what a crash leaves of it is removed when the output is taken up."""
    return f".lcbatch-{digest(os.fsencode(name))[:6].hex()}.tmp"


class AppendFile:
    """Owns one descriptor and the offset up to which its file is ours.

    After a failed write or sync every further call raises the same error: what the failure left on disk is unknown,
    and the next run cuts it off. `keep_empty=False` lets a file without content not exist at all. A `mode` that is given holds
    whatever the umask. Not thread-safe.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: int = _BY_UMASK,
        keep_empty: bool = True,
        foreign: str = "refuse",
        wall: Wall = time.time,
    ) -> None:
        self.path = path
        self.offset = 0
        self.notice: str | None = None
        self._mode = mode
        self._keep_empty = keep_empty
        self._foreign = foreign
        self._wall = wall
        self._fd: int | None = None
        self._was_taken_up = False
        self._unsynced = False
        self._broken: LcbatchError | None = None

    def take_up(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:
        """Open the file at the offset of `state`, which is a mark's JSON (None: there is no output yet).

        False: it is not what we left and has to be rebuilt; it is empty or absent now, or the old one where a
        rebuild was under way. Raises CannotCreateOutput.
        """
        of_a_file = state is not None and "inode" in state
        ours = Mark.from_json(state) if state is not None and of_a_file else None
        try:
            # A link is followed once, here: a rename onto it would replace the link and leave its target behind.
            self.path = Path(os.path.realpath(self.path))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary().unlink(missing_ok=True)
            taken = self._take_up(ours, clean=clean, rebuilding=bool(state and state.get(REBUILDING)))
        except OSError as error:
            raise cannot_create(error, self.path) from error
        return taken and (state is None or of_a_file)  # of a folder that had this name nothing is left here

    def _take_up(self, ours: Mark | None, *, clean: bool, rebuilding: bool) -> bool:
        found = Mark.of(self.path, 0 if ours is None else ours.size)
        if found is None and ours is not None and ours.inode == NO_FILE:
            ours = None
        verdict = judge(ours, found, clean=clean, rebuilding=rebuilding)
        if verdict is Verdict.FOREIGN and self._foreign == "refuse":
            raise CannotCreateOutput(
                f"{self.path} exists and was not written by this job",
                hint=f"move it away: {_NEW if ours is None else _AGAIN}; or name another output with -o",
            )
        if verdict in {Verdict.FOREIGN, Verdict.SET_ASIDE}:
            label, why = (
                ("before", "is not of this run") if ours is None else ("edited", "was changed by somebody else")
            )
            self.notice = f"{self.path} {why}: kept as {set_aside(self.path, label, self._wall).name}"
        elif found is None and ours is not None:
            self.notice = f"{self.path} was gone: it is written again from the store"
        taken = verdict is Verdict.TAKE
        if self._keep_empty or self.path.exists():
            self._open(ours.size if ours is not None and taken else 0, cut=taken)
        self._was_taken_up = True
        return taken or ours is None

    def _open(self, offset: int, *, cut: bool) -> int:
        existed = self.path.exists()
        fd = self._fd = os.open(self.path, _FLAGS, self._mode)
        if cut and os.fstat(fd).st_size > offset:
            os.ftruncate(fd, offset)
        if not existed:
            self._set_mode(fd)
            sync_folder(self.path.parent)
        os.lseek(fd, offset, os.SEEK_SET)
        self.offset = offset
        return fd

    def write(self, data: bytes) -> None:
        """Append. On return the bytes are the system's, not yet synced. Raises OutputFailed."""
        if not data:
            return
        with self._guarded():
            fd = self._open(0, cut=True) if self._fd is None else self._fd
            write_all(fd, data)
            self.offset += len(data)
            self._unsynced = True

    def sync(self) -> Mark:
        """Make all that was written safe from power loss; the mark to keep. Raises OutputFailed."""
        with self._guarded():
            if self._fd is None:
                return Mark(0, 0, NO_FILE, self.path.name)
            if self._unsynced:
                sync_data(self._fd)
                self._unsynced = False
            # Asked for after the last write: the time must be the one that the next run will find.
            now = os.fstat(self._fd)
            return Mark(self.offset, now.st_mtime_ns, now.st_ino, self.path.name, _tail(self._fd, self.offset))

    @contextlib.contextmanager
    def replacement(self) -> Iterator[Callable[[bytes], None]]:
        """Gives a function that writes a new file, which takes the old one's place, synced, when the block ends well.

        An error in the block, or in writing, leaves the old file as it was. What somebody else has laid in its place since it was
        taken up is set aside.
        """
        temporary = self._temporary()
        with self._guarded(), contextlib.ExitStack() as undo:
            fd = os.open(temporary, _FLAGS | os.O_TRUNC | os.O_NOFOLLOW, self._mode)
            undo.callback(temporary.unlink, missing_ok=True)
            undo.callback(os.close, fd)
            self._set_mode(fd)
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(fd, stat.S_IMODE(self.path.stat().st_mode))
            yield lambda data: write_all(fd, data)
            os.fsync(fd)
            size = os.lseek(fd, 0, os.SEEK_CUR)
            self._make_way()
            if size == 0 and not self._keep_empty:
                self.path.unlink(missing_ok=True)
                self._replace_descriptor(None, 0)
                return
            temporary.rename(self.path)
            sync_folder(self.path.parent)
            undo.pop_all()
            self._replace_descriptor(fd, size)

    def _make_way(self) -> None:
        try:
            there = self.path.stat() if self._was_taken_up else None
        except FileNotFoundError:
            there = None
        if there is None:
            return
        if self._fd is None or not os.path.samestat(there, os.fstat(self._fd)):
            self.notice = make_way(self.path, self._wall)

    def _set_mode(self, fd: int) -> None:
        if self._mode != _BY_UMASK:
            os.fchmod(fd, self._mode)

    def _temporary(self) -> Path:
        return self.path.with_name(temporary_name(self.path.name))

    def _replace_descriptor(self, fd: int | None, size: int) -> None:
        self.close()
        self._fd, self.offset, self._unsynced = fd, size, False

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._broken is not None:
            raise self._broken
        try:
            yield
        except OSError as error:
            self._broken = cannot_write(error, self.path)
            raise self._broken from error

    def close(self) -> None:
        """Let go of the descriptor; writes nothing. May be called again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):
                os.close(fd)
