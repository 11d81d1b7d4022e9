"""Draws docs/limits.svg: the limit on calls in flight, the calls in flight and the answers a second, from a simulated run.

The run is the real call stack in virtual time, against a provider that serves 40 calls at once, is out of reach from minute 4
to minute 6, and allows only 300 requests a minute from minute 9 on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcbatch.bounds import Window
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Event, LimitChanged
from lcbatch.execute.deadlines import Deadlines
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.job import Job
from lcbatch.records import Answer, Request, RowScope, Usage, current_row
from lcbatch.testing import MemoryReplies, make_row
from lcbatch.wiring import Ended, Line, Surroundings, call_stack

MINUTES = 12
SERVERS = 40
DOWN_S = (240.0, 360.0)
THROTTLED_FROM_S = 540.0
THROTTLED_RPM = 300.0


@dataclass
class Provider:
    """Answers in about a second; what it does over time is above."""

    in_flight: int = 0
    answered_s: list[float] = field(default_factory=list)
    next_s: float = 0.0
    servers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SERVERS))
    dice: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - latencies

    async def ask(self, request: Request) -> Answer:
        del request
        loop = asyncio.get_running_loop()
        self.in_flight += 1
        try:
            await asyncio.sleep(0.02)
            if DOWN_S[0] <= loop.time() < DOWN_S[1]:
                raise CallFailed(Failure(Kind.CONNECTION, "connection refused"))
            if loop.time() >= THROTTLED_FROM_S:
                self._take_turn(loop.time())
            async with self.servers:
                await asyncio.sleep(self.dice.lognormvariate(-0.125, 0.5))
        finally:
            self.in_flight -= 1
        self.answered_s.append(loop.time())
        return Answer("x", {}, "", None, Usage(20, 20))

    def _take_turn(self, now_s: float) -> None:
        """Ten seconds' worth of requests may come at once; beyond that it says how long to wait."""
        gap_s = 60.0 / THROTTLED_RPM
        self.next_s = max(self.next_s, now_s - 10.0) + gap_s
        if self.next_s > now_s:
            self.next_s -= gap_s
            raise CallFailed(
                Failure(Kind.THROTTLE, "slow down", retry_after_s=max(1.0, self.next_s + gap_s - now_s), status=429)
            )


@dataclass
class Curves:
    """Samples twice a second."""

    times_s: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    in_flight: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)


async def simulated() -> Curves:
    """The run."""
    loop = asyncio.get_running_loop()
    curves, provider, limits = Curves(), Provider(), [4.0]

    def emit(event: Event) -> None:
        if isinstance(event, LimitChanged):
            limits.append(float(event.limit))

    executor = LocalExecutor(16, emit)
    around = Surroundings(
        clock=loop.time,
        emit=emit,
        window=Window(executor.resize),
        wait=_wait,
        within=Deadlines().within,
    )
    job = Job.of(model="a:b")
    call = call_stack(job, [Line("a:b", (Ended(provider.ask, lambda _model, _usage: 0.0),))], MemoryReplies(), around)

    async def work() -> None:
        number = 0
        while loop.time() < 60.0 * MINUTES:
            number += 1
            current_row.set(RowScope(make_row(number), loop.time()))
            await call(Request([{"role": "user", "content": f"{number}"}]))

    tasks = [asyncio.create_task(work()) for _ in range(150)]
    while loop.time() < 60.0 * MINUTES:
        curves.times_s.append(loop.time())
        curves.limit.append(limits[-1])
        curves.in_flight.append(provider.in_flight)
        await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    curves.answered_s = provider.answered_s
    return curves


async def _wait(awaitable: Awaitable[Any]) -> None:
    await awaitable


# --- the picture

WIDTH, LEFT, RIGHT = 860, 56, 30
PANELS = ((40, 200), (292, 110))
"""(top, height) of: calls in flight, answers a second."""

INK, SOFT, GRID = "#24292f", "#57606a", "#d0d7de"
LIMIT, FLIGHT, RATE = "#cf222e", "#0969da", "#1a7f37"


def drawn(curves: Curves) -> str:
    """The SVG."""
    per_s = _per_second(curves.answered_s)
    top_calls = 40.0 * (max(*curves.limit, *curves.in_flight) // 40 + 1)
    top_rate = 20.0 * (max(per_s) // 20 + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 440" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="440" fill="#ffffff"/>',
        _episode(DOWN_S[0], DOWN_S[1], "out of reach"),
        _episode(THROTTLED_FROM_S, 60.0 * MINUTES, f"{THROTTLED_RPM:.0f} requests a minute allowed"),
        *_axes(0, top_calls, "calls in flight"),
        *_axes(1, top_rate, "answers a second"),
        _line(0, curves.times_s, curves.in_flight, top_calls, FLIGHT, 1.2),
        _line(0, curves.times_s, curves.limit, top_calls, LIMIT, 1.8),
        _line(1, [5.0 * index + 2.5 for index in range(len(per_s))], per_s, top_rate, RATE, 1.5),
        _key(WIDTH - 250, LIMIT, "limit"),
        _key(WIDTH - 170, FLIGHT, "in flight"),
        _key(WIDTH - 80, RATE, "answers"),
        f'<text x="{LEFT}" y="20" fill="{INK}" font-size="14">-j auto against a provider that serves 40 calls at once</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _per_second(answered_s: Sequence[float]) -> list[float]:
    """Over five seconds each."""
    counts = [0] * (60 * MINUTES // 5)
    for moment in answered_s:
        if moment < 60.0 * MINUTES:
            counts[int(moment // 5)] += 1
    return [count / 5.0 for count in counts]


def _x(moment_s: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * moment_s / (60.0 * MINUTES)


def _y(panel: int, value: float, top: float) -> float:
    above, height = PANELS[panel]
    return above + height * (1.0 - value / top)


def _line(panel: int, xs: Sequence[float], ys: Sequence[float], top: float, colour: str, width: float) -> str:
    points = " ".join(f"{_x(x):.1f},{_y(panel, y, top):.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>'


def _axes(panel: int, top: float, label: str) -> list[str]:
    above, height = PANELS[panel]
    parts = [f'<text x="{LEFT}" y="{above - 6}" fill="{SOFT}">{label}</text>']
    for step in range(5):
        value = top * step / 4
        y = _y(panel, value, top)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" fill="{SOFT}" text-anchor="end">{value:g}</text>')
    parts += [
        f'<text x="{_x(60.0 * minute):.1f}" y="{above + height + 16}" fill="{SOFT}" text-anchor="middle">{minute} min</text>'
        for minute in range(0, MINUTES + 1, 2)
    ]
    return parts


def _episode(begin_s: float, end_s: float, text: str) -> str:
    x, width = _x(begin_s), _x(end_s) - _x(begin_s)
    height = PANELS[1][0] + PANELS[1][1] - PANELS[0][0]
    return (
        f'<rect x="{x:.1f}" y="{PANELS[0][0]}" width="{width:.1f}" height="{height}" fill="#fff8c5"/>'
        f'<text x="{x + width / 2:.1f}" y="{PANELS[0][0] + 14}" fill="{SOFT}" text-anchor="middle">{text}</text>'
    )


def _key(x: float, colour: str, text: str) -> str:
    return (
        f'<line x1="{x}" x2="{x + 18}" y1="16" y2="16" stroke="{colour}" stroke-width="2"/>'
        f'<text x="{x + 24}" y="20" fill="{INK}">{text}</text>'
    )


if __name__ == "__main__":
    Path(__file__).with_name("limits.svg").write_text(drawn(run_virtual(simulated())), encoding="utf-8")
