"""The sink of a folder: one file a row, each put in place by temporary file, fsync and rename."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcbatch import jsontext
from lcbatch.errors import CannotCreateOutput, LcbatchError, OutputFailed
from lcbatch.ports import Entry, Name, View
from lcbatch.records import SAMPLE_FIELD, Json
from lcbatch.sinks.aside import Wall, set_aside
from lcbatch.sinks.faults import cannot_create, cannot_write, sync_folder, write_all
from lcbatch.sinks.names import OBJECT, TEXT, stem
from lcbatch.sinks.selection import META, Selection

_TEMPORARY = ".lcbatch.tmp"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class _Times:
    """By which a file is known as ours, in ns on the file system's clock: see FolderSink."""

    since_ns: int
    until_ns: int
    opened_ns: int

    def are_ours(self, changed_ns: int, newest_ns: int) -> bool:
        """Whether a file was written by an earlier run, or by this one, which wrote last at `newest_ns`."""
        return self.since_ns < changed_ns <= self.until_ns or self.opened_ns < changed_ns <= newest_ns


def _changed_ns(path: Path) -> int:
    """Of a regular file; 0 for anything else, which is never ours."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_mtime_ns if stat.S_ISREG(found.st_mode) else 0


class FolderSink:
    """Writes `<id>.md` for a text and `<id>.json` for any other answer; failed rows have no file here.

    We touch only files that we name. Which of those are ours is told by their time of change: after the folder was
    first taken up (`since_ns`) and not after the last sync (`until_ns`), or after this run opened it (`opened_ns`) and
    not after we last wrote, all on the file system's own clock. Any other file that stands in the way with other
    content is set aside as `NAME.orig-...` or `NAME.edited-...`, never overwritten. An output that was taken up before
    is always looked through (`open` answers False), which brings back files that were deleted.

    Rows of one id have a file each: all but the first get a hash. So does the second of two ids where the file system
    takes `A` and `a` for one name.
    """

    def __init__(self, view: View, folder: Path, selection: Selection, *, wall: Wall = time.time) -> None:
        self.view = view
        self._root = folder
        self._selection = selection
        self._wall = wall
        self._times = _Times(0, 0, 0)
        self._newest_ns = 0
        self._folds_case = False
        self._unsynced: set[Path] = set()
        self._checked: Path | None = None
        self._first_aside = ""
        self._aside_count = 0
        self._broken: LcbatchError | None = None

    @property
    def notice(self) -> str | None:
        """Which files of somebody else's were found in the way, None where there were none."""
        if not self._aside_count:
            return None
        more = f" (and {self._aside_count - 1} more)" if self._aside_count > 1 else ""
        return f"not written by this job, or changed since: kept as {self._first_aside}{more}"

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:  # noqa: ARG002 - contents tell more
        """Take up the folder, and find out that files can be made in it. Raises CannotCreateOutput."""
        if state is not None and "since_ns" not in state:
            raise CannotCreateOutput(
                f"{self._root} is a folder, and this output was a file",
                hint="move the folder away: the same command writes the file again; or name another output with -o",
            )
        if self._root.exists() and not self._root.is_dir():
            raise CannotCreateOutput(f"{self._root} is no folder", hint="name another output with -o")
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._root = Path(os.path.realpath(self._root))
            now_ns = self._look()
        except OSError as error:
            raise cannot_create(error, self._root) from error
        self._times = _Times(state["since_ns"] if state else now_ns, state["until_ns"] if state else 0, now_ns)
        self._newest_ns = self._times.until_ns
        return state is None

    def _look(self) -> int:
        """The time on the file system's clock; on the way, whether it tells `A` from `a`."""
        temporary = self._root / _TEMPORARY
        os.close(os.open(temporary, _FLAGS, 0o666))
        now_ns = temporary.stat().st_mtime_ns
        self._folds_case = temporary.with_name(_TEMPORARY.upper()).exists()
        temporary.unlink()
        return now_ns

    def append(self, entries: Sequence[Entry]) -> None:
        """Write a file for each. Raises OutputFailed."""
        with self._guarded():
            for entry in entries:
                self._put(entry)

    def _put(self, entry: Entry) -> None:
        if entry.kind is not None:
            return
        suffix, content = render(entry, self._selection)
        name = entry.name
        target = self._place(name, suffix)
        if target.parent != self._checked:
            self._enter(target.parent)
            self._checked = target.parent
        other = self._place(name, OBJECT if suffix == TEXT else TEXT)
        if self._is_ours(other):
            other.unlink()
        if self._make_room(target, content):
            self._write(target, content)

    def _is_ours(self, path: Path) -> bool:
        return self._times.are_ours(_changed_ns(path), self._newest_ns)

    def _place(self, name: Name, suffix: str) -> Path:
        target = self._root / (stem(*name) + suffix)
        if (
            self._folds_case
            and target.exists()
            and spelled_otherwise(target.name, [each.name for each in target.parent.iterdir()])
        ):
            return self._root / (stem(*name, hashed=True) + suffix)
        return target

    def _enter(self, folder: Path) -> None:
        """Make a folder inside ours, and see that no link leads out of it."""
        if not Path(os.path.realpath(folder)).is_relative_to(self._root):
            raise OutputFailed(f"{folder} leads out of the output folder", hint="put a folder in the place of the link")
        inner = [each for each in (folder, *folder.parents) if each.is_relative_to(self._root) and not each.is_dir()]
        for each in reversed(inner):
            if os.path.lexists(each):
                self._set_aside(each)
            each.mkdir()
            self._unsynced.add(each.parent)

    def _make_room(self, target: Path, content: bytes) -> bool:
        """See to what stands in the target's place. Says whether it has to be written."""
        if not os.path.lexists(target):
            return True
        if not target.is_symlink() and target.is_file() and _holds(target, content):
            self._newest_ns = max(self._newest_ns, target.stat().st_mtime_ns)
            return False
        if not self._is_ours(target):
            self._set_aside(target)
        return True

    def _set_aside(self, path: Path) -> None:
        label = "edited" if self._times.until_ns else "orig"
        kept = set_aside(path, label, self._wall)
        self._unsynced.add(path.parent)
        self._aside_count += 1
        self._first_aside = self._first_aside or str(kept)

    def _write(self, target: Path, content: bytes) -> None:
        temporary = self._root / _TEMPORARY
        fd = os.open(temporary, _FLAGS, 0o666)
        try:
            write_all(fd, content)
            changed_ns = os.fstat(fd).st_mtime_ns
            if changed_ns <= self._times.opened_ns:
                # The clock of a file system ticks every few ms: a file of the same tick would later not be told
                # from others'.
                changed_ns = self._times.opened_ns + 1
                os.utime(fd, ns=(changed_ns, changed_ns))
            os.fsync(fd)
        finally:
            os.close(fd)
        self._newest_ns = max(self._newest_ns, changed_ns)
        temporary.rename(target)
        self._unsynced.add(target.parent)

    def sync(self) -> Mapping[str, Json]:
        """Make the names safe from power loss; the contents are already."""
        with self._guarded():
            for folder in self._unsynced:
                if folder.exists():
                    sync_folder(folder)
            self._unsynced.clear()
        return {"since_ns": self._times.since_ns, "until_ns": self._newest_ns}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        """Write what is missing or differs, file by file. Files of rows that are gone leave by `discard`."""
        with self._guarded():
            for entry in entries:
                self._put(entry)
        return self.sync()

    def discard(self, names: Sequence[Name]) -> None:
        """Remove files of these names, where they are ours, and folders that become empty."""
        with self._guarded():
            self._checked = None
            for path in (self._place(name, suffix) for name in names for suffix in (TEXT, OBJECT)):
                if self._is_ours(path):
                    path.unlink()
                    self._unsynced.add(path.parent)
                    self._leave(path.parent)

    def _leave(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent
                self._unsynced.add(folder)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._broken is not None:
            raise self._broken
        try:
            yield
        except OSError as error:
            self._broken = cannot_write(error, self._root)
            raise self._broken from error

    def abort(self) -> None:
        """Nothing: a folder waits for nobody."""

    def close(self) -> None:
        """Nothing is held open."""


def render(entry: Entry, selection: Selection) -> tuple[str, bytes]:
    """The suffix and content of an answered row's file. `--meta`: front matter for a text, a member for all else."""
    value = jsontext.loads(entry.output or "null")
    meta = dict(entry.meta)
    if not isinstance(value, str):
        shown = {selection.output_field: value, META: meta} if selection.meta else value
        return OBJECT, (jsontext.dumps(shown) + "\n").encode()
    head = ""
    if selection.meta:
        # Each value as JSON, which YAML reads as the same value.
        which = {SAMPLE_FIELD: entry.sample} if selection.samples else {}
        rows = "".join(f"{key}: {jsontext.dumps(item)}\n" for key, item in {"id": entry.id, **which, **meta}.items())
        head = f"---\n{rows}---\n\n"
    return TEXT, (head + value + ("" if value.endswith("\n") else "\n")).encode("utf-8", "backslashreplace")


def spelled_otherwise(name: str, there: Sequence[str]) -> bool:
    """Whether a name that exists is in the folder's list only in other letters: another row's file."""
    return name not in there and any(each.casefold() == name.casefold() for each in there)


def _holds(path: Path, content: bytes) -> bool:
    return path.stat().st_size == len(content) and path.read_bytes() == content
