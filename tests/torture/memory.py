"""How much memory a process has held. Not as wait4 tells it: that begins with what the process held that started it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path


def high_water_mb(pid: int) -> float:
    """The most MB (1024 * 1024 bytes) that it held so far; 0 where it has ended, and where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def children_of(pid: int) -> list[int]:
    """The processes that it has started and that run now; none where there is no /proc."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, thread.read_text().split())
    return found
