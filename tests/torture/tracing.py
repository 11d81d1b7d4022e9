"""strace: which writing calls a run makes to the files of a folder, and the death of a run at one of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

WRITING = (
    "write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "sync_file_range", "rename", "renameat", "renameat2",
    "ftruncate", "truncate", "unlink", "unlinkat", "mkdir", "mkdirat", "fallocate", "openat", "link", "symlink", "fchmod",
    "chmod",
)  # fmt: skip
"""Every system call by which lcbatch, SQLite or pyarrow changes a file or a folder."""

_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_PATH = re.compile(r'[<"](/[^">]+)[">]')
_WORKING_FOLDER = re.compile(r"AT_FDCWD<[^>]*>")
_NOT_OURS = {"in.jsonl", "said"}


@dataclass(frozen=True, order=True)
class Point:
    """The `nth` time that a thread makes this call to this file, counted from 1."""

    path: str
    call: str
    nth: int

    def __str__(self) -> str:
        return f"{self.call} {self.nth} to {Path(self.path).name}"


def need_strace() -> None:
    """Skip the test where strace is missing, or may not attach."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace (Debian: apt-get install strace)")
    held = subprocess.Popen(["sleep", "60"])
    tracer = subprocess.Popen(["strace", "-p", str(held.pid)], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    held.kill()
    held.wait()
    tracer.communicate(timeout=10)
    if "attached" not in said:
        pytest.skip(f"strace may not attach to a process (kernel.yama.ptrace_scope=0, or root): {said.strip()}")


class Tracer:
    """Attached to a process that is stopped, which goes on then, with all its threads to come."""

    def __init__(self, pid: int, log: Path, *options: str) -> None:
        self._process = subprocess.Popen(
            ["strace", "-f", "-y", "-o", str(log), *options, "-p", str(pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        assert "attached" in said, said
        os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Wait until it has seen the process end."""
        self._process.communicate(timeout=60)


def looking(pid: int, log: Path) -> Tracer:
    """Write down every writing call of a stopped process, and let it go on."""
    return Tracer(pid, log, "-e", f"trace={','.join(WRITING)}")


def killing(pid: int, log: Path, point: Point) -> Tracer:
    """Let a stopped process go on, and kill it where one of its threads comes to this point, before the call is made."""
    inject = f"inject={point.call}:signal=KILL:when={point.nth}"
    return Tracer(pid, log, "-e", f"trace={point.call}", "-e", inject, "-P", point.path)


def points(log: Path, folder: Path) -> list[Point]:
    """Every point of an undisturbed run at files in or below a folder, in the order of the files' names."""
    most: Counter[tuple[str, str]] = Counter()
    for (_, path, call), times in _counted(log, folder).items():
        most[path, call] = max(most[path, call], times)
    return sorted(Point(path, call, nth) for (path, call), times in most.items() for nth in range(1, times + 1))


def hidden(log: Path, folder: Path) -> int:
    """How many of a run's calls no point can kill: those of a thread that another one has been ahead of.

    strace counts a thread's calls by themselves, so the nth of the thread that comes first stands for all.
    """
    return sum(_counted(log, folder).values()) - len(points(log, folder))


def _counted(log: Path, folder: Path) -> Mapping[tuple[str, str, str], int]:
    return Counter((thread, path, call) for thread, path, call in _calls(log, folder))


def _calls(log: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Thread, file and call of each line that is one."""
    for line in log.read_text(errors="replace").splitlines():
        if not (found := _LINE.match(line)):
            continue
        thread, call, rest = found.groups()
        named = map(Path, _PATH.findall(_WORKING_FOLDER.sub("", rest)))
        ours = [str(path) for path in named if path.is_relative_to(folder) and path.name not in _NOT_OURS]
        if ours:
            yield thread, ours[0], call
