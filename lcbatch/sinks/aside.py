"""Setting a file aside: the one way in which lcbatch makes room for an output. Nothing is ever deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

Wall = Callable[[], float]
"""Seconds since 1970."""

_NAME_BYTES = 255


def set_aside(path: Path, label: str, wall: Wall) -> Path:
    """Rename `NAME` to `NAME.<label>-YYYYmmdd-HHMMSS` beside it (`-2`, `-3` where that is taken). Raises OSError."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(wall()))
    count = 1
    while True:
        suffix = f".{label}-{stamp}" + (f"-{count}" if count > 1 else "")
        target = path.with_name(cut_to_bytes(path.name, _NAME_BYTES - len(suffix)) + suffix)
        if not os.path.lexists(target):
            path.rename(target)
            return target
        count += 1


def make_way(path: Path, wall: Wall) -> str:
    """Set aside what came where our output belongs while a run wrote that; what to say of it. Raises OSError."""
    return f"{path} was changed by somebody else while the run went on: kept as {set_aside(path, 'edited', wall).name}"


def cut_to_bytes(text: str, limit: int) -> str:
    """The longest beginning of `text` that takes at most `limit` bytes as UTF-8."""
    raw = os.fsencode(text)
    return text if len(raw) <= limit else raw[:limit].decode("utf-8", "ignore")
