"""The machine under the bench: its cores, and one process on one of them from start to end."""

from __future__ import annotations

import contextlib
import os
import platform
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import BinaryIO

_PTY_LINES, _PTY_COLUMNS = 40, 120
_MB = 1_000_000
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended and what it took. `started_at_s` is on the monotonic clock; children it waited for are included."""

    code: int
    started_at_s: float
    wall_s: float
    cpu_s: float
    peak_rss_mb: float


def cores() -> tuple[int, int] | None:
    """The contestant's core and the simulator's; None where nothing can be pinned or there is but one."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-1], allowed[0]) if len(allowed) > 1 else None


CORES = cores()


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started inside the block stays on this core. The thread itself is put back at the end."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> None:
    """5,000 connections need as many open files; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path, timeout_s: float) -> Ended:
    """Run a program to its end on the contestant's core, before a terminal: what draws progress for people, draws it.

    A program that outlives `timeout_s` is killed with its process group, and shows as killed by signal 9.
    """
    terminal, side = pty.openpty()
    ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", _PTY_LINES, _PTY_COLUMNS, 0, 0))
    with log.open("wb") as file:
        reader = threading.Thread(target=_drain, args=(terminal, file), daemon=True)
        reader.start()
        started_at_s = time.monotonic()
        with on_core(CORES and CORES[0]):
            process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=side,
                stderr=side,
                start_new_session=True,
            )
        os.close(side)
        killer = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # a bench that is stopped leaves no load behind
            process.wait()
            raise
        finally:
            killer.cancel()
        wall_s = time.monotonic() - started_at_s
        process.returncode = os.waitstatus_to_exitcode(status)  # it is reaped; Popen would look for it again
        reader.join(timeout=5)  # a grandchild may hold the terminal open
    os.close(terminal)
    cpu_s = used.ru_utime + used.ru_stime
    return Ended(process.returncode, started_at_s, wall_s, cpu_s, used.ru_maxrss * _RSS_UNIT / _MB)


def _drain(terminal: int, file: BinaryIO) -> None:
    """Until the last writer is gone, which Linux says by an error and others by an empty read."""
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(terminal, 65536):
            file.write(data)


def described() -> dict[str, str]:
    """What a reader of the figures wants to know of it."""
    return {
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}",
        "processor": _processor(),
        "cores": f"{os.cpu_count()}, contestant and simulator {'on one each' if CORES else 'not pinned'}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "lcbatch's commit": _commit(),
    }


def _commit() -> str:
    """Which source was measured, as far as git tells: `describe` says `-dirty` where files are not as committed."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "describe", "--always", "--dirty"]
        home = Path(__file__).parent
        return subprocess.run(command, cwd=home, capture_output=True, text=True, check=True).stdout.strip()
    return "unknown"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
