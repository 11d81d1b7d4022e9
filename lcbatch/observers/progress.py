"""Progress on a terminal. This module imports rich; `make_observer` imports it only where it is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lcbatch.events import Event, Notice, RunFinished, Stopping
from lcbatch.observers.figures import Snapshot
from lcbatch.observers.format import clean_text, compact, count, duration, eta, percent, rate
from lcbatch.observers.plain import MESSAGE_CHARS, cost_text, waiting_text
from lcbatch.observers.stats import Stats
from lcbatch.observers.ticker import Ticker
from lcbatch.ports import Clock, Sleep

REFRESH_S = 0.125
IDLE_REFRESHES = 8
"""Without events the clock and the ETA still move: redrawn at every eighth refresh, once a second."""

WIDE = 60
"""From this many columns on, the bar shares its line with the counts."""

FIGURE_LINES = 3
_BETWEEN = " · "

Piece = tuple[str, str]
"""A text and its style. Pieces are never broken over lines."""


def render_progress(snapshot: Snapshot, width: int) -> RenderableType:
    """The display for a terminal of `width` columns: a bar, and under it at most four lines of figures. Pure."""
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    name = Text(snapshot.task, style="bold")
    head = _counts(snapshot)
    if width >= WIDE:
        bar.add_row(name, _bar(snapshot), Text(_BETWEEN.join([*_share(snapshot), head, *_eta(snapshot)])))
        figures = _figures(snapshot)
    else:
        bar.add_row(name, _bar(snapshot), Text(_BETWEEN.join([*_share(snapshot), *_eta(snapshot)])))
        figures = [(head, ""), *_figures(snapshot)]
    lines = _packed(figures, width)[:FIGURE_LINES]
    return Group(bar, *lines, _state(snapshot, width))


def _bar(snapshot: Snapshot) -> ProgressBar:
    """Pulses while the total is unknown. `elapsed_s` drives it, so that the same snapshot gives the same picture."""
    rows = snapshot.rows
    return ProgressBar(
        total=None if rows.total is None else max(1, rows.total),
        completed=1 if rows.total == 0 else rows.settled,
        pulse=rows.total is None,
        animation_time=snapshot.elapsed_s,
        complete_style="cyan",
    )


def _share(snapshot: Snapshot) -> list[str]:
    rows = snapshot.rows
    return [] if rows.total is None else [percent(rows.settled, rows.total)]


def _counts(snapshot: Snapshot) -> str:
    rows = snapshot.rows
    return count(rows.answered) + (" done" if rows.total is None else f"/{count(rows.total)} done")


def _eta(snapshot: Snapshot) -> list[str]:
    return [] if snapshot.eta_s is None else [f"ETA {eta(snapshot.eta_s)}"]


def _figures(snapshot: Snapshot) -> list[Piece]:
    """What matters most comes first: a narrow terminal shows the first lines only."""
    rows, calls = snapshot.rows, snapshot.calls
    pieces: list[Piece] = []
    if rows.failed or rows.failed_before:
        before = f" +{count(rows.failed_before)} before" if rows.failed_before else ""
        pieces.append((f"{count(rows.failed)} failed{before}", "red"))
    pieces.append((f"{count(snapshot.in_flight)}/{count(rows.window)} in flight", ""))
    pieces.append((f"{rate(rows.per_s)} rows/s", ""))
    if cost := cost_text(snapshot):
        pieces.append((cost, "yellow"))
    latency = calls.latency
    if latency.p50_s is not None and latency.p95_s is not None:
        pieces.append((f"p50 {duration(latency.p50_s)} p95 {duration(latency.p95_s)}", ""))
    if calls.tokens:
        pieces.append((f"{compact(calls.tokens_per_s)} tokens/s", ""))
    if rows.reused:
        pieces.append((f"{count(rows.reused)} reused", "green"))
    if calls.retries:
        pieces.append((f"{count(sum(calls.retries.values()))} retried", ""))
    return pieces


def _state(snapshot: Snapshot, width: int) -> Text:
    """The last line: how long it has been, and why it does not go faster."""
    if snapshot.stopping is not None:
        what, style = f"stopping: {clean_text(snapshot.stopping)}", "yellow"
    else:
        waiting = waiting_text(snapshot)
        what = f"waiting for {waiting}" if waiting else "finishing"
        style = "yellow" if snapshot.waiting_for in _TROUBLE else "dim"
    line = Text(f"{duration(snapshot.elapsed_s)}{_BETWEEN}", style="dim").append(what, style=style)
    line.truncate(width, overflow="ellipsis")
    return line


_TROUBLE = frozenset({"retry", "pause", "outage", "budget"})


def _packed(pieces: Iterable[Piece], width: int) -> list[Text]:
    """As many pieces on each line as fit, in order."""
    lines: list[Text] = []
    for text, style in pieces:
        if lines and lines[-1].cell_len + len(_BETWEEN) + len(text) <= width:
            lines[-1].append(_BETWEEN, style="dim").append(text, style=style)
        else:
            lines.append(Text(no_wrap=True, overflow="ellipsis").append(text, style=style))
    return lines


class _Terminal(Console):
    """A console that never hides the cursor: a process that is killed could not bring it back."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - rich's own signature
        return False


class Bar:
    """A live display at the bottom of a terminal, redrawn at most 8 times a second by `run`; gone when the run is over.

    An event costs one assignment. Notices and stops are printed above. What Python code writes to sys.stderr
    meanwhile (a library's warning) goes above too, when `stream` is that.
    """

    def __init__(self, stats: Stats, stream: TextIO, clock: Clock, sleep: Sleep) -> None:
        self._stats = stats
        self._clock = clock
        self._console = _Terminal(
            file=stream, force_terminal=True, force_interactive=True, highlight=False, markup=False, emoji=False
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
            vertical_overflow="crop",
        )
        self._ticker = Ticker(self._tick, REFRESH_S, sleep)
        self._changed = False
        self._idle = 0

    def on_event(self, event: Event) -> None:
        self._changed = True
        if isinstance(event, Notice):
            self._print(event.text, "yellow")
        elif isinstance(event, Stopping):
            self._print(f"{'cancelling' if event.cancel else 'stopping'}: {event.reason}", "bold yellow")
        elif isinstance(event, RunFinished):
            self._ticker.stop()
            self._live.stop()

    async def run(self) -> None:
        """Show the display until RunFinished. The terminal is as before on return, also when cancelled."""
        if self._ticker.stopped:
            return
        with self._live:
            await self._ticker.run()

    def _tick(self) -> None:
        self._idle += 1
        if self._changed or self._idle >= IDLE_REFRESHES:
            self._changed, self._idle = False, 0
            snapshot = self._stats.snapshot(self._clock())
            self._live.update(render_progress(snapshot, self._console.width), refresh=True)

    def _print(self, text: str, style: str) -> None:
        self._console.print(Text(clean_text(text, MESSAGE_CHARS), style=style), soft_wrap=True)
