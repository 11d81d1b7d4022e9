"""Observers: what counts, and what shows. Importing this imports no rich; drawing does."""

from __future__ import annotations

import asyncio
from typing import TextIO

from lcbatch.observers.fanout import Display
from lcbatch.observers.jsonlog import JsonLog
from lcbatch.observers.plain import INTERVAL_S, Hushed, Plain
from lcbatch.observers.stats import Stats
from lcbatch.ports import Clock, Sleep

__all__ = ["Hushed", "make_observer"]


def make_observer(
    kind: str,
    stats: Stats,
    *,
    stream: TextIO,
    is_terminal: bool,
    clock: Clock,
    sleep: Sleep = asyncio.sleep,
    interval_s: float = INTERVAL_S,
) -> Display:
    """The display for `--progress KIND`; `stats` must stand before it in the Fanout.

    `auto` is `bar` on a terminal and `log` elsewhere. `bar` needs a terminal and is `log` without one, whatever
    FORCE_COLOR says: redraws in a log file help nobody. `none` shows notices and stops alone (for `-q`, take
    Hushed). `interval_s` is that of `log`. `is_terminal` is the caller's judgement: false also under TERM=dumb, and
    where answers go to the same terminal.
    """
    if kind not in {"auto", "bar", "log", "json", "none"}:
        raise ValueError(f"no such progress display: {kind}")
    if kind in {"auto", "bar"} and is_terminal:
        from lcbatch.observers.progress import Bar  # noqa: PLC0415 - rich only where something is drawn

        return Bar(stats, stream, clock, sleep)
    if kind == "json":
        return JsonLog(stats, stream, clock, sleep)
    return Plain(stats, stream, clock, sleep, interval_s=None if kind == "none" else interval_s)
