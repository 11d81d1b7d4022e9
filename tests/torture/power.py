"""Power loss, without a power switch: what a run asked of the system, as strace saw it, and the disks that it may have left.

The model is harsher than most file systems: of what was written and not synced any part may be there, page by page and in any
order, torn within a page, or none; a file may have its new length without the bytes (they are zeros then); names (made, moved,
removed) come to the disk in their order, so that of those after the last sync of their folder any beginning is there. A sync
makes safe what was written before it returned, and nothing else. Times and inodes stay.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SECTOR = 512
_PAGE = 4096

TRACED = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,mkdir,rmdir,lseek,fallocate"
"""All by which the program changes files; a test holds it to that."""

OPTIONS = ("-f", "-qq", "-y", "-xx", "-ttt", "-s", "10000000", "--seccomp-bpf", "-e", f"trace={TRACED}")

_CALL = re.compile(r"(?P<pid>\d+)\s+(?P<at>[\d.]+) (?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(?P<end>.*)")
_DONE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)")
_FD = re.compile(r"^(?P<fd>\d+)<(?P<path>[^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Op:
    """One finished system call on the folder: `path` is what it is about, `data` bytes or the second path of a rename."""

    name: str
    path: str
    at_s: float
    offset: int = 0
    data: bytes = b""
    to: str = ""


def operations(trace: Path, folder: Path) -> Iterator[Op]:
    """What was done to files below `folder`, in the order in which it was finished."""
    begun: dict[str, str] = {}
    reader = _Reader(str(folder.resolve()))
    with trace.open(encoding="ascii") as lines:
        for line in lines:
            call = _CALL.match(line)
            if call is None:
                continue
            rest = call["rest"]
            if (resumed := _RESUMED.match(rest)) is not None:
                rest = begun.pop(call["pid"], "") + resumed["end"]
            if rest.endswith("<unfinished ...>"):
                begun[call["pid"]] = rest.removesuffix("<unfinished ...>")
                continue
            done = _DONE.match(rest)
            if done is not None and int(done["result"]) >= 0:
                yield from reader.read(done["name"], done["arguments"], int(done["result"]), float(call["at"]))


class _Reader:
    """Knows where each descriptor stands."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._offsets: dict[str, int] = {}

    def read(self, name: str, arguments: str, result: int, at_s: float) -> Iterator[Op]:
        texts = [_bytes(text) for text in _TEXT.findall(arguments)]
        if name in {"openat", "rename", "unlink", "mkdir", "rmdir"}:
            paths = [os.path.normpath(os.fsdecode(text)) for text in texts]
            if name == "openat":
                self._offsets[str(result)] = 0
            if paths[0].startswith(self._folder):
                yield from self._names(name, paths, arguments, at_s)
            return
        found = _FD.match(arguments)
        path = _plain(found["path"]) if found is not None else ""
        if found is None or not path.startswith(self._folder):
            return
        fd = found["fd"]
        last = arguments.rsplit(", ", 1)[-1]
        if name == "lseek":
            self._offsets[fd] = result
        elif name == "write":
            yield Op("write", path, at_s, self._offsets[fd], texts[0][:result])
            self._offsets[fd] += result
        elif name == "pwrite64":
            yield Op("write", path, at_s, int(last), texts[0][:result])
        elif name == "ftruncate":
            yield Op("truncate", path, at_s, int(last))
        elif name == "fallocate":
            yield Op("extend", path, at_s, int(last))
        else:
            yield Op("sync", path, at_s)

    def _names(self, name: str, paths: list[str], arguments: str, at_s: float) -> Iterator[Op]:
        if name == "openat":
            if "O_CREAT" in arguments:
                yield Op("create", paths[0], at_s)
            if "O_TRUNC" in arguments:
                yield Op("truncate", paths[0], at_s, 0)
        elif name == "rename":
            yield Op("rename", paths[0], at_s, to=paths[1])
        else:
            yield Op(name, paths[0], at_s)


def _bytes(hexed: str) -> bytes:
    return bytes.fromhex(hexed.replace("\\x", ""))


def _plain(path: str) -> str:
    return os.fsdecode(_bytes(path)) if path.startswith("\\x") else path


@dataclass(slots=True)
class Inode:
    """A file's bytes: those that are safe, and what was done since. Numbered in the order in which files are made."""

    number: int
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)

    def synced(self) -> None:
        for op in self.pending:
            _apply(self.safe, op)
        self.pending.clear()

    def seen(self) -> bytes:
        """The bytes as the system shows them while it has power."""
        return bytes(_beginning(self, len(self.pending)))


Names = dict[str, Inode | None]
"""What a path leads to; None for a folder."""

State = dict[str, tuple[Inode | None, bytes]]
"""What a path would lead to without power, and what would stand in it."""


class Disk:
    """A folder as the system sees it, and what of it would be there without power."""

    def __init__(self, names: Names) -> None:
        inodes = {path: None if one is None else Inode(one.number, bytearray(one.safe)) for path, one in names.items()}
        self.names: Names = dict(inodes)
        self._safe_names: Names = dict(inodes)
        self._unsafe: list[Op] = []
        self._made: list[Inode | None] = []
        self._count = len(names)

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """A folder as it is now, all of it safe."""
        found = sorted(path for path in folder.resolve().rglob("*"))
        names: Names = {str(folder.resolve()): None}
        for path in found:
            names[str(path)] = None if path.is_dir() else Inode(len(names), bytearray(path.read_bytes()))
        return cls(names)

    @property
    def safe_names(self) -> Names:
        """The names that are on the disk for good."""
        return self._safe_names

    def do(self, op: Op) -> None:
        """Let one operation happen."""
        if op.name == "sync":
            self._sync(op.path)
        elif op.name in {"write", "truncate", "extend"}:
            inode = self.names.get(op.path)
            if inode is not None:  # else it has no name any more, and nobody will find it
                inode.pending.append(op)
        elif op.name != "create" or op.path not in self.names:
            self._count += 1
            made = Inode(self._count) if op.name == "create" else None
            self._unsafe.append(op)
            self._made.append(made)
            _rename(self.names, op, made)

    def _sync(self, path: str) -> None:
        inode = self.names.get(path)
        if inode is not None:
            inode.synced()
            return
        mine = [number for number, op in enumerate(self._unsafe) if path in {_parent(op.path), _parent(op.to)}]
        if mine:
            self._names_come(mine[-1] + 1)

    def _names_come(self, count: int) -> None:
        for op, made in zip(self._unsafe[:count], self._made[:count], strict=True):
            _rename(self._safe_names, op, made)
        del self._unsafe[:count], self._made[:count]

    def without_power(self, dice: random.Random) -> State:
        """One of the states that it may be in."""
        names = dict(self._safe_names)
        kept = dice.choice([0, len(self._unsafe), dice.randint(0, len(self._unsafe))])
        for op, made in zip(self._unsafe[:kept], self._made[:kept], strict=True):
            _rename(names, op, made)
        how = dice.choice(_WAYS)
        return {path: (inode, b"" if inode is None else bytes(how(inode, dice))) for path, inode in names.items()}


def _rename(names: Names, op: Op, made: Inode | None) -> None:
    if op.name in {"create", "mkdir"}:
        names[op.path] = made
    elif op.name == "rename":
        names[op.to] = names.pop(op.path)
    else:
        names.pop(op.path, None)


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _apply(content: bytearray, op: Op) -> None:
    if op.name == "truncate" and op.offset < len(content):
        del content[op.offset :]
    elif op.name != "write":
        content.extend(bytes(max(0, op.offset - len(content))))
    else:
        content.extend(bytes(max(0, op.offset - len(content))))
        content[op.offset : op.offset + len(op.data)] = op.data


def _none(inode: Inode, _: random.Random) -> bytearray:
    return bytearray(inode.safe)


def _all(inode: Inode, _: random.Random) -> bytearray:
    return _beginning(inode, len(inode.pending))


def _beginning(inode: Inode, count: int) -> bytearray:
    content = bytearray(inode.safe)
    for op in inode.pending[:count]:
        _apply(content, op)
    return content


def _torn(inode: Inode, dice: random.Random) -> bytearray:
    """What came first is there, and of the last write a beginning, cut at a sector or anywhere."""
    count = dice.randint(0, len(inode.pending))
    content = _beginning(inode, count)
    if count < len(inode.pending) and (op := inode.pending[count]).name == "write":
        end = dice.randint(0, len(op.data))
        end -= dice.choice([0, (op.offset + end) % _SECTOR])
        _apply(content, Op("write", op.path, op.at_s, op.offset, op.data[: max(0, end)]))
    return content


def _scattered(inode: Inode, dice: random.Random) -> bytearray:
    """Pages that were written are there or are not; the length may have come before them."""
    content = bytearray(inode.safe)
    likely = dice.random()
    for op in inode.pending:
        if op.name != "write":
            if dice.random() < likely:
                _apply(content, op)
            continue
        start = op.offset
        while start < op.offset + len(op.data):
            end = min(op.offset + len(op.data), start - start % _PAGE + _PAGE)
            if dice.random() < likely:
                part = op.data[start - op.offset : end - op.offset]
                _apply(content, Op("write", op.path, op.at_s, start, part))
            start = end
    if dice.choice([True, False]):
        full = len(_all(inode, dice))
        content.extend(bytes(max(0, full - len(content))))
    return content


_WAYS: list[Callable[[Inode, random.Random], bytearray]] = [_none, _all, _torn, _torn, _scattered, _scattered]
