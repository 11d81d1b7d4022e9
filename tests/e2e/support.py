"""What end-to-end tests share: the CLI as a subprocess, runs through the Python API, and the simulator's ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcbatch import Job
from lcbatch.app import Report, run_job
from lcbatch.simulator.process import SimulatorProcess
from lcbatch.world import World, library_world
from tests.e2e.starts import CAN_FORK, starts

MODEL = "openai:sim"
_MOST_S = 120


def environment(home: Path, **more: str) -> dict[str, str]:
    """A cron-like environment: nothing of the caller's but PATH, and a home of its own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        # Shared by a session's tests: loading LangChain anew for each of them would be most of their time.
        "XDG_CACHE_HOME": str(home.parent / "cache"),
        **more,
    }


def command(*arguments: str | Path) -> list[str]:
    """The command line that runs lcbatch."""
    return [sys.executable, "-m", "lcbatch", *map(str, arguments)]


def cli(
    *arguments: str | Path, cwd: Path, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run lcbatch to its end, started in a tenth of its time where that can be."""
    if not CAN_FORK:
        return started(*arguments, cwd=cwd, stdin=stdin, env=env)
    given = [str(argument) for argument in arguments]
    return starts().run(given, cwd=cwd, env=environment(cwd, **(env or {})), stdin=stdin, timeout_s=_MOST_S)


def started(
    *arguments: str | Path, cwd: Path, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own from the beginning, where that is what is looked at."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(cwd, **(env or {})),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=_MOST_S,
        check=False,
    )


def by_shell(script: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a script that has the command line in "$@". What the script leaves of the streams is captured."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command(*arguments)],
        cwd=cwd,
        env=environment(cwd),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_MOST_S,
        check=False,
    )


def spawned(*arguments: str | Path, cwd: Path, stdout: int) -> subprocess.Popen[str]:
    """Lcbatch, begun and not waited for. Its stderr is a pipe."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(cwd),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def look_again() -> None:
    """Wait between two looks at the provider's counters: a busy loop would take the core that the run needs."""
    time.sleep(0.002)


@dataclass(frozen=True)
class Shop:
    """A provider, and a folder to work in."""

    provider: SimulatorProcess
    folder: Path

    def job(self, *inputs: str, **options: Any) -> Job:
        """A job against the provider."""
        given = {"model": MODEL, "base_url": self.provider.base_url, "prompt": "Say {text}", "progress": "none"}
        paths = [str(self.folder / name) for name in inputs]
        output = str(self.folder / options.pop("output", "out.jsonl"))
        return Job.of(*paths, **{**given, **options, "output": output})

    async def run(self, *inputs: str, **options: Any) -> Report:
        """Run such a job inside this process."""
        return await run_job(self.job(*inputs, **options), self.world())

    def world(self) -> World:
        """Outside of a library call, with a state folder of its own."""
        with Path(os.devnull).open("w") as silent:
            return replace(library_world(), env=environment(self.folder), stderr=silent)

    def words(self, *inputs: str) -> list[str]:
        """The command line of such a run, into out.jsonl and without a display."""
        asked = ["-m", MODEL, "--base-url", self.provider.base_url, "-p", "Say {text}"]
        return ["run", *inputs, *asked, "-o", "out.jsonl", "--progress", "none"]

    def write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write JSON lines."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def output(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        """Read JSON lines."""
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def billed(self) -> list[dict[str, Any]]:
        """Every billed call so far."""
        return list(self.provider.ledger())


def texts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The field `text` of each row, sorted."""
    return sorted(str(row["text"]) for row in rows)


def rows_of(*words: str) -> list[dict[str, str]]:
    """Rows without ids."""
    return [{"text": word} for word in words]
