"""What the cases of a failing disk share: a shop that runs the program, a disk of a few MiB, and errors of the system."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lcbatch import Job
from lcbatch.app import Report, run_job
from lcbatch.simulator.process import SimulatorProcess
from lcbatch.world import library_world
from tests.e2e.support import MODEL, command, environment
from tests.torture.judge import Case, calls_nothing, judge

_MOST_S = 120


@dataclass
class Customer:
    """One input in a folder of its own, run as often as it takes; its part of the provider's book is its own."""

    name: str
    folder: Path
    provider: SimulatorProcess
    rows: list[dict[str, Any]]
    output: str = "out.jsonl"
    options: Mapping[str, Any] = field(default_factory=dict)
    billed_before: int = field(init=False)

    def __post_init__(self) -> None:
        self.billed_before = self.provider.stats()["billed"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.joinpath("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    @property
    def path(self) -> Path:
        return self.folder / self.output

    @property
    def words(self) -> list[str]:
        """The command, the same each time."""
        options = [
            word
            for name, value in self.options.items()
            if value is not None
            for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
        ]
        return command(
            "run", self.folder / "in.jsonl", "-m", MODEL, "--base-url", self.provider.base_url, "-p", "Say {text}",
            "-o", self._given, "-j", "16", "--progress", "none", *options,
        )  # fmt: skip

    @property
    def _given(self) -> str:
        return str(self.path) + ("/" if self.output.endswith("/") else "")

    def run(self, *around: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end, `around` before its words."""
        return subprocess.run(
            [*around, *self.words],
            cwd=self.folder,
            env=environment(self.folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MOST_S,
            check=False,
        )

    def run_here(self) -> Report:
        """The same run inside this process, which saves its start."""
        job = Job.of(
            str(self.folder / "in.jsonl"),
            model=MODEL,
            base_url=self.provider.base_url,
            prompt="Say {text}",
            progress="none",
            **{"output": self._given, "concurrency": "16", **self.options},
        )
        with Path(os.devnull).open("w") as silent:
            world = replace(library_world(), env=environment(self.folder), stderr=silent)
            return asyncio.run(run_job(job, world))

    def billed(self) -> list[dict[str, Any]]:
        """What this customer was billed for."""
        return self.provider.ledger(since=self.billed_before)

    def is_served(self) -> None:
        """The last run of it: it ends well, nothing is lost or twice or paid twice, and one more calls nothing."""
        ended = self.run_here()
        assert ended.exit_code == 0, f"{self.name}: {ended.exit_code} {ended.error}"
        case = Case(name=self.name, rows=self.rows, ordered=bool(self.options.get("ordered")))
        judge(case, self.path, self.billed(), exit_code=ended.exit_code)
        calls_nothing(case, lambda: self.run_here().exit_code, self.provider, self.path)


def rows_for(name: str, count: int, *, filler: int) -> list[dict[str, Any]]:
    """Rows whose texts no other case has; `filler` bytes in each make the disk full sooner."""
    return [{"id": str(number), "text": f"{name} row {number} {'x' * filler}"} for number in range(count)]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of `size` at `folder`, for root alone; the test is skipped for others."""
    if os.geteuid() != 0:
        pytest.skip("a small disk can be mounted by root alone: run `make torture` under `unshare -rm`")
    folder.mkdir(parents=True, exist_ok=True)
    mounted = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here ({mounted.stderr.strip()}): run it where mount(8) is allowed")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=_MOST_S)


def remount(folder: Path, how: str) -> None:
    """Change a small disk: `size=100m` makes room, `ro` takes no writes any more."""
    changed = _mount("-o", f"remount,{how}", str(folder))
    assert changed.returncode == 0, changed.stderr


def _mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, timeout=_MOST_S, check=False)


def strace() -> str:
    """Where strace is; the test is skipped where it is missing."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is missing: apt-get install strace")
    return found
