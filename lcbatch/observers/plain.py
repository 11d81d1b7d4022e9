"""Progress where nobody watches (cron, a log file): one plain ASCII line now and then."""

from __future__ import annotations

from typing import TextIO

from lcbatch.events import Event, Notice, RunFinished, Stopping
from lcbatch.observers.figures import Snapshot
from lcbatch.observers.format import clean_text, compact, count, dollars, duration, eta, rate
from lcbatch.observers.stats import Stats
from lcbatch.observers.ticker import Ticker
from lcbatch.ports import Clock, Sleep

INTERVAL_S = 30.0
MESSAGE_CHARS = 500


def progress_line(snapshot: Snapshot) -> str:
    """All figures on one line, without a line break; what is nothing is left out."""
    rows, calls = snapshot.rows, snapshot.calls
    total = "" if rows.total is None else f"/{count(rows.total)}"
    parts = [f"{count(rows.answered)}{total} done"]
    if rows.reused:
        parts.append(f"{count(rows.reused)} reused")
    if rows.failed or rows.failed_before:
        before = f" ({count(rows.failed_before)} before)" if rows.failed_before else ""
        parts.append(f"{count(rows.failed)} failed{before}")
    parts += [f"{count(snapshot.in_flight)} in flight", f"{rate(rows.per_s)} rows/s"]
    if calls.tokens:
        parts.append(f"{compact(calls.tokens_per_s)} tokens/s")
    if calls.latency.p50_s is not None:
        parts.append(f"p50 {duration(calls.latency.p50_s)}")
    if cost := cost_text(snapshot):
        parts.append(cost)
    if snapshot.eta_s is not None:
        parts.append(f"ETA {eta(snapshot.eta_s)}")
    if snapshot.stopping is not None:
        parts.append(f"stopping: {clean_text(snapshot.stopping)}")
    elif waiting := waiting_text(snapshot):
        parts.append(f"waiting for: {waiting}")
    return ", ".join(parts)


def cost_text(snapshot: Snapshot) -> str:
    """`$0.12`; `$0.12+` where some calls have no known price, `cost unknown` where none has; empty for nothing."""
    calls = snapshot.calls
    if calls.unpriced:
        return f"{dollars(calls.known_cost_usd)}+" if calls.known_cost_usd else "cost unknown"
    return dollars(calls.known_cost_usd) if calls.known_cost_usd else ""


def waiting_text(snapshot: Snapshot) -> str:
    """What the run waits for, as in `provider`, `the limit on tokens a minute` or `retry after throttle, 12 s`."""
    gate = snapshot.waiting_for
    if gate in {"retry", "pause", "outage"} and snapshot.retry_in_s:
        what = "a pause" if gate == "pause" else gate
        return f"{what} after {snapshot.retry_kind}, {duration(snapshot.retry_in_s)}"
    return _WAITING_TEXTS.get(gate, gate)


_WAITING_TEXTS = {
    "rpm": "the limit on requests a minute",
    "tpm": "the limit on tokens a minute",
    "concurrency": "the limit on calls in flight",
    "pause": "the end of a pause",
    "outage": "the provider to come back",
    "budget": "calls that may leave some of the budget",
    "cpu": "this machine's processor",
    "local": "local work",
}


class Plain:
    """Writes `lcbatch: ...` lines: progress every `interval_s` (None: never), notices and stops at once.

    Each line is flushed by itself, so that a log never ends in half of one.
    """

    def __init__(
        self, stats: Stats, stream: TextIO, clock: Clock, sleep: Sleep, *, interval_s: float | None = INTERVAL_S
    ) -> None:
        self._stats = stats
        self._stream = stream
        self._clock = clock
        self._ticker = Ticker(self._tick, interval_s, sleep) if interval_s else None

    def on_event(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._say(clean_text(event.text, MESSAGE_CHARS))
        elif isinstance(event, Stopping):
            verb = "cancelling" if event.cancel else "stopping"
            self._say(f"{verb}: {clean_text(event.reason, MESSAGE_CHARS)}")
        elif isinstance(event, RunFinished) and self._ticker:
            self._ticker.stop()

    async def run(self) -> None:
        if self._ticker:
            await self._ticker.run()

    def _tick(self) -> None:
        self._say(progress_line(self._stats.snapshot(self._clock())))

    def _say(self, line: str) -> None:
        _write(self._stream, line)


class Hushed:
    """What -q leaves of the display: notices of what nobody may miss, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def on_event(self, event: Event) -> None:
        if isinstance(event, Notice) and event.always:
            _write(self._stream, clean_text(event.text, MESSAGE_CHARS))


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"lcbatch: {line}\n")
    stream.flush()
