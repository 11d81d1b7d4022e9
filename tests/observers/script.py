"""What the tests of observers share: rows, scripted events, and a clock that moves when told to."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable
from itertools import count

from lcbatch.errors import Failure, Kind
from lcbatch.events import (
    CallEnded,
    CallStarted,
    CallWaits,
    Event,
    InputRead,
    InputSize,
    RowsFinished,
    RowsPlanned,
    RowsStarted,
    RunFinished,
    RunStarted,
)
from lcbatch.observers.figures import Snapshot
from lcbatch.observers.stats import Stats
from lcbatch.records import Account, Done, Failed, Row, Usage

MODEL = "gpt-5-mini-2025-08-07"


def row(ordinal: int, row_id: str | None = None, place: str | None = None) -> Row:
    return Row(ordinal, b"", row_id or f"r{ordinal}", {}, place or f"rows.jsonl:{ordinal + 1}", ordinal)


def done(ordinal: int, latency_s: float = 1.0, model: str = MODEL) -> Done:
    return Done(row(ordinal), "answer", Account(model, 1, 1, Usage(100, 20), 0.001, latency_s))


def failed(ordinal: int, kind: Kind = Kind.TIMEOUT, message: str = "read timed out", latency_s: float = 1.0) -> Failed:
    return Failed(row(ordinal), Failure(kind, message), Account(latency_s=latency_s))


def started(now_s: float = 0.0, limit: int = 40) -> RunStarted:
    return RunStarted(now_s, "run", "openai:gpt-5-mini", "out.jsonl", limit)


def answered(now_s: float, latency_s: float = 1.0, cost_usd: float | None = 0.001, step: str = "") -> list[Event]:
    """One call, out and back."""
    return [CallStarted(max(0.0, now_s - latency_s)), CallEnded(now_s, latency_s, Usage(100, 20), cost_usd, None, step)]


def throttled(now_s: float, delay_s: float, *, maybe_paid: bool = False) -> list[Event]:
    """One call that came back empty and will be tried again."""
    failure = Failure(Kind.THROTTLE, "slow down", delay_s, maybe_paid)
    return [CallStarted(now_s), CallEnded(now_s, 0.0, Usage(), None, failure), CallWaits(now_s, delay_s, failure)]


def told(events: Iterable[Event], max_rows: int | None = None) -> Stats:
    stats = Stats(max_rows)
    for event in events:
        stats.on_event(event)
    return stats


def steady(rows: int, per_s: float = 10.0) -> list[Event]:
    """`rows` of 1,000 done at an even pace from 0 s on, each by one call of 1 s; ten more are in flight."""
    events: list[Event] = [started(), InputSize(1000), RowsPlanned(pending=1000), RowsStarted(rows + 10)]
    for ordinal in range(rows):
        now_s = (ordinal + 1) / per_s
        events += [*answered(now_s), RowsFinished(now_s, (done(ordinal),))]
    return events


def busy() -> Snapshot:
    """A long run with something of everything, after 200 s."""
    events = [*steady(2000), RowsPlanned(reused=100, failed_before=2), *throttled(199.0, 12.0), CallStarted(199.5)]
    events += [RowsFinished(200.0, (failed(2000), failed(2001), failed(2002, Kind.PARSE, "not JSON")))]
    return told([*events, InputSize(12_345)]).snapshot(200.0)


def ended(exit_code: int = 3, continue_with: str = "lcbatch retry out.jsonl") -> Snapshot:
    """The same shape of a run at its end: 97 done, 3 failed."""
    events: list[Event] = [started(), RowsPlanned(pending=100), RowsStarted(100)]
    for ordinal in range(97):
        events += [*answered(1.0 + ordinal, 0.8), RowsFinished(1.0 + ordinal, (done(ordinal, 1 + ordinal / 10),))]
    events += [RowsFinished(99.0, (failed(97), failed(98, Kind.PARSE, "not JSON"), failed(99)))]
    return told(
        [*events, InputRead(100, to_the_end=True), RunFinished(100.0, exit_code, "3 rows failed", continue_with)]
    ).snapshot(0)


class World:
    """A monotonic clock and its sleep. Time passes in `advance` alone, timer by timer."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + seconds, next(self._order), wake))
        await wake

    async def advance(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end_s + 1e-9:
            self.now_s, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                wake.set_result(None)
            await self.settle()
        self.now_s = end_s

    async def settle(self) -> None:
        """Let every task run until it waits again."""
        for _ in range(10):
            await asyncio.sleep(0)
