from __future__ import annotations

import asyncio
import io
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from lcbatch.events import CallStarted, InputSize, Notice, RowsFinished, RowsStarted, RunFinished, Stopping
from lcbatch.observers import make_observer
from lcbatch.observers.fanout import Fanout
from lcbatch.observers.figures import Snapshot
from lcbatch.observers.jsonlog import JsonLog
from lcbatch.observers.plain import Plain
from lcbatch.observers.progress import Bar, render_progress
from lcbatch.observers.stats import Stats

from .script import World, busy, done, started, steady, throttled, told

END = RunFinished(100.0, 0, "done")


def drawn(snapshot: Snapshot, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_progress(snapshot, width))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_wide_terminal_shows_everything_on_three_lines() -> None:
    bar, figures, state = drawn(busy(), 120)
    assert bar.startswith("run ━")
    assert bar.endswith(" 17 % · 2,100/12,345 done · ETA 16m52s")
    assert figures == (
        "3 failed +2 before · 1/40 in flight · 10.1 rows/s · $2.00 · p50 1.0 s p95 1.0 s · 1.2k tokens/s · 100 reused"
        " · 1 retried"
    )
    assert state == "3m20s · waiting for provider"


def test_80_columns_need_one_line_more() -> None:
    assert drawn(busy(), 80)[1:] == [
        "3 failed +2 before · 1/40 in flight · 10.1 rows/s · $2.00 · p50 1.0 s p95 1.0 s",
        "1.2k tokens/s · 100 reused · 1 retried",
        "3m20s · waiting for provider",
    ]


def test_40_columns_stay_readable_and_show_what_matters() -> None:
    bar, *rest = drawn(busy(), 40)
    assert bar.endswith(" 17 % · ETA 16m52s")
    assert rest == [
        "2,100/12,345 done · 3 failed +2 before",
        "1/40 in flight · 10.1 rows/s · $2.00",
        "p50 1.0 s p95 1.0 s · 1.2k tokens/s",
        "3m20s · waiting for provider",
    ]


@pytest.mark.parametrize("width", [10, 20, 40, 59, 60, 79, 80, 120, 250])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = drawn(busy(), width)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) <= 5


def test_an_unknown_total_has_no_share_and_no_eta() -> None:
    events = [event for event in steady(50) if not isinstance(event, InputSize)]
    (bar, *_) = drawn(told(events).snapshot(5.0), 80)
    assert bar.endswith("━ 50 done")
    assert "%" not in bar


def test_an_empty_input_is_complete() -> None:
    (bar, *_) = drawn(told([started(), InputSize(0)]).snapshot(1.0), 80)
    assert bar.endswith("100 % · 0/0 done")


def test_a_pause_and_a_stop_are_said() -> None:
    stats = told([started(), RowsStarted(1), *throttled(1.0, 90.0)])
    assert drawn(stats.snapshot(2.0), 80)[-1] == "2.0 s · waiting for retry after throttle, 1m29s"
    stats.on_event(Stopping("SIGTERM: \x1b[2J7 rows in flight"))
    assert drawn(stats.snapshot(2.0), 80)[-1] == "2.0 s · stopping: SIGTERM: 7 rows in flight"


def test_the_same_snapshot_gives_the_same_picture() -> None:
    def picture() -> str:
        console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
        console.print(render_progress(told([started(), RowsStarted(1), CallStarted(0.0)]).snapshot(3.0), 80))
        return console.export_svg(title="lcbatch", unique_id="x")

    assert picture() == picture()


class Terminal:
    """A bar on a terminal that remembers what was written, in virtual time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "xterm")
        self.world, self.stats, self.stream = World(), Stats(), io.StringIO()
        display = make_observer(
            "auto", self.stats, stream=self.stream, is_terminal=True, clock=self.world.clock, sleep=self.world.sleep
        )
        self.fanout = Fanout([self.stats, display])

    def take(self) -> str:
        """What was written since the last time."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text


def test_the_bar_redraws_at_most_8_times_a_second_however_many_events_come(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)

    async def scenario() -> int:
        redraws = 0
        async with asyncio.TaskGroup() as group:
            group.create_task(terminal.fanout.run())
            terminal.fanout.emit(started())
            for step in range(100):
                await terminal.world.advance(0.01)
                terminal.fanout.emit(RowsFinished(step / 100, (done(step),)))
                redraws += bool(terminal.take())
            terminal.fanout.emit(END)
        return redraws

    assert asyncio.run(scenario()) == 8


def test_an_idle_bar_redraws_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)

    async def scenario() -> int:
        redraws = 0
        async with asyncio.TaskGroup() as group:
            group.create_task(terminal.fanout.run())
            await terminal.world.advance(1.0)
            terminal.take()
            for _ in range(80):
                await terminal.world.advance(0.125)
                redraws += bool(terminal.take())
            terminal.fanout.emit(END)
        return redraws

    assert asyncio.run(scenario()) == 10


def test_notices_stand_above_the_bar_and_the_bar_goes_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(terminal.fanout.run())
            terminal.fanout.emit(started())
            await terminal.world.advance(0.2)
            assert "waiting for input" in terminal.take()
            terminal.fanout.emit(Notice("[bold]paused[/bold] \x1b]0;x\x07for 2 s"))
            above, below = terminal.take().split("[bold]paused[/bold] for 2 s")
            assert "\x1b[2K" in above
            assert "waiting for input" in below
            terminal.fanout.emit(END)
            assert terminal.take().endswith("\x1b[1A\x1b[2K")
            await terminal.world.settle()
            assert terminal.take() == ""

    asyncio.run(scenario())


def test_the_cursor_is_never_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(terminal.fanout.run())
            await terminal.world.advance(2.0)
            terminal.fanout.emit(END)

    asyncio.run(scenario())
    assert "\x1b[?25" not in terminal.take()


def test_a_cancelled_run_leaves_the_terminal_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            timers = group.create_task(terminal.fanout.run())
            await terminal.world.advance(1.0)
            terminal.take()
            timers.cancel()

    asyncio.run(scenario())
    assert terminal.take().endswith("\x1b[1A\x1b[2K")


def test_a_terminal_that_goes_away_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(terminal.fanout.run())
            await terminal.world.advance(0.2)
            terminal.stream.close()
            await terminal.world.advance(2.0)
            terminal.fanout.emit(END)

    asyncio.run(scenario())
    assert terminal.stats.snapshot(0.0).exit_code == 0


def test_a_run_that_is_over_before_the_timer_starts_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)

    async def scenario() -> None:
        terminal.fanout.emit(END)
        await terminal.fanout.run()

    asyncio.run(scenario())
    assert terminal.take() == ""


@pytest.mark.parametrize(
    ("kind", "is_terminal", "expected"),
    [
        ("auto", True, Bar),
        ("auto", False, Plain),
        ("bar", True, Bar),
        ("bar", False, Plain),
        ("log", True, Plain),
        ("json", True, JsonLog),
        ("none", True, Plain),
    ],
)
def test_the_display_follows_the_kind_and_the_terminal(kind: str, is_terminal: bool, expected: type) -> None:  # noqa: FBT001
    world = World()
    stream = io.StringIO()
    assert type(make_observer(kind, Stats(), stream=stream, is_terminal=is_terminal, clock=world.clock)) is expected


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no such progress display: tree"):
        make_observer("tree", Stats(), stream=io.StringIO(), is_terminal=True, clock=World().clock)


def test_importing_observers_imports_no_rich() -> None:
    code = "import sys, lcbatch.observers, lcbatch.observers.summary; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
