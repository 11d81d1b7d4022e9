"""What the tests of the network share: a run whose time and memory are measured, and a search for a key in all that it leaves."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from tests.e2e.support import command, environment

KEY = "sk-canary-4f1d7c2a9b8e6053"
"""Looked for wherever a run could leave it."""

_MOST_S = 180


@dataclass(frozen=True)
class Ended:
    """How a run ended. `at_s` is on the monotonic clock, `rss_mb` the most memory that it held."""

    code: int
    out: str
    said: str
    at_s: float
    rss_mb: float


def measured(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run lcbatch to its end, or for three minutes."""
    with (cwd / ".out").open("w+b") as out, (cwd / ".said").open("w+b") as said:
        process = subprocess.Popen(
            command(*arguments), cwd=cwd, env=environment(cwd, **(env or {})), stdin=subprocess.DEVNULL, stdout=out,
            stderr=said,
        )  # fmt: skip
        deadline = Timer(_MOST_S, process.kill)
        deadline.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            deadline.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        at_s = time.monotonic()
    texts = [(cwd / name).read_text(errors="replace") for name in (".out", ".said")]
    return Ended(process.returncode, *texts, at_s, usage.ru_maxrss / 1024)


def files_with(word: str, *folders: Path) -> list[str]:
    """Files below these folders that hold the word, in whatever encoding keeps its bytes; names count too."""
    return sorted(str(path) for folder in folders for path in _files(folder) if _holds(path, word))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _holds(path: Path, word: str) -> bool:
    return word in path.name or word.encode() in path.read_bytes()
