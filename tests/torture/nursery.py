"""Runs of the command line that are born in milliseconds: a process that has loaded everything forks one for each.

A case at every system call takes thousands of runs, and to load Python and the libraries would be nearly all of their
time. `python -m tests.torture.nursery` is that process; `Nursery` is how a test speaks to it. A run that is to be held
stops itself before its first step, so that a tracer can be attached.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from tests.e2e.support import environment

_LIFE_S = 300
"""A run takes a fraction of a second, and a hundred times as long beside other work; one that takes longer has stalled."""

_LOADED = ("lcbatch.cli.commands", "lcbatch.app", "lcbatch.models.lane", "typer._adapters", "aiohttp", "uvloop")
"""None of them starts a thread when it is loaded, which a fork would lose."""


class Nursery:
    """Starts that process, and stops it at the block's end, with every run of which the end was not asked for."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._alive: set[int] = set()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.nursery"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
        self._process.communicate(timeout=_LIFE_S)

    def begin(
        self,
        arguments: Sequence[str],
        cwd: Path,
        *,
        stdout: Path | None = None,
        said: str = "said",
        held: bool = False,
    ) -> int:
        """Start a run, held before its first step if asked for; its process id. `said`: the file of what it says."""
        wanted = {
            "argv": ["lcbatch", *arguments], "cwd": str(cwd), "env": environment(cwd), "held": held,
            "stdout": str(stdout or os.devnull), "stderr": str(cwd / said),
        }  # fmt: skip
        pid = int(self._ask(json.dumps(wanted)))
        self._alive.add(pid)
        deadline = time.monotonic() + _LIFE_S
        while held and _state(pid) not in "Tt":
            assert time.monotonic() < deadline, "it did not stop"
            time.sleep(0.001)
        return pid

    def end(self, pid: int) -> int:
        """Wait for a run's end; its exit code, or the number of the signal that killed it, negative.

        AssertionError when it stalls; it is killed then.
        """
        stalled = threading.Event()

        def give_up() -> None:
            stalled.set()
            os.kill(pid, signal.SIGKILL)

        patience = threading.Timer(_LIFE_S, give_up)
        patience.start()
        try:
            code = os.waitstatus_to_exitcode(int(self._ask(f"end {pid}")))
        finally:
            patience.cancel()
            self._alive.discard(pid)
        assert not stalled.is_set(), "the run stalled"
        return code

    def run(self, arguments: Sequence[str], cwd: Path, *, stdout: Path | None = None) -> int:
        """Run to the end; the exit code."""
        return self.end(self.begin(arguments, cwd, stdout=stdout))

    def has_ended(self, pid: int) -> bool:
        """Whether a run of which the end was not asked for yet has come to it."""
        return _state(pid) in "ZX"

    def _ask(self, line: str) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery is gone"
        return answer


def _state(pid: int) -> str:
    """The letter of the process's state: T where it is stopped, Z where it has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _serve() -> None:
    """Fork for each line, and tell the children's ends."""
    for name in _LOADED:
        importlib.import_module(name)
    gc.freeze()  # or each child's first collection would copy all of it
    for line in sys.stdin:
        if line.startswith("end "):
            answer = os.waitpid(int(line[4:]), 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                _live(json.loads(line))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _live(wanted: Mapping[str, Any]) -> NoReturn:
    """Become the run: what a fresh process would have is set, and what the nursery has is let go."""
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.argv = wanted["argv"]
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, wanted["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, wanted["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        descriptor = os.open(path, flags, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    if wanted["held"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    from lcbatch.__main__ import main  # noqa: PLC0415 - the nursery's own names are loaded first

    main()
    raise SystemExit(0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve()
