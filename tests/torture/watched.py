"""A run of the program that is watched: how it ended, how long it took, and the most memory that it held."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.e2e.support import command, environment
from tests.torture.memory import children_of, high_water_mb

_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `peak_mib` is of the program itself, `whole_peak_mib` of it or its largest child."""

    code: int
    said: str
    seconds: float
    peak_mib: float
    whole_peak_mib: float


def watched(
    *arguments: str | Path,
    cwd: Path,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    within_s: float = 300.0,
    before: Sequence[str] = (),
) -> Ended:
    """Run lcbatch to its end, or kill it and fail after `within_s`. `before` stands in front of the command line."""
    began_s = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*before, *command(*arguments)],
            cwd=cwd,
            env=environment(cwd, **(env or {})),
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        peak_mib = childs_mib = 0.0
        while True:
            peak_mib = max(peak_mib, high_water_mb(process.pid))
            childs_mib = max(childs_mib, *map(high_water_mb, children_of(process.pid)), 0.0)
            ended, status = os.waitpid(process.pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - began_s > within_s:
                process.send_signal(signal.SIGKILL)
                os.waitpid(process.pid, 0)
                process.returncode = -signal.SIGKILL
                said.seek(0)
                raise AssertionError(f"it did not end within {within_s:g} s: {said.read()!r}")
            time.sleep(_LOOK_S)  # the pace of looking, no wait for anything
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    return Ended(process.returncode, text, time.monotonic() - began_s, peak_mib, max(peak_mib, childs_mib))
