from __future__ import annotations

import asyncio
import io

from lcbatch.events import (
    CallStarted,
    Event,
    InputSize,
    Notice,
    RowsFinished,
    RowsPlanned,
    RowsStarted,
    RunFinished,
    Stopping,
)
from lcbatch.observers import make_observer
from lcbatch.observers.fanout import Fanout
from lcbatch.observers.plain import progress_line
from lcbatch.observers.stats import Stats

from .script import World, answered, busy, done, started, steady, throttled, told

END = RunFinished(100.0, 0, "done")


def test_the_line_says_everything() -> None:
    assert progress_line(busy()) == (
        "2,100/12,345 done, 100 reused, 3 failed (2 before), 1 in flight, 10.1 rows/s, 1.2k tokens/s, p50 1.0 s, "
        "$2.00, ETA 16m52s, waiting for: provider"
    )


def test_the_line_of_a_pipe_at_its_start_has_no_total_and_no_zeros() -> None:
    line = progress_line(told([started(), RowsStarted(1), CallStarted(0.0)]).snapshot(1.0))
    assert line == "0 done, 1 in flight, 0 rows/s, waiting for: provider"


def test_the_line_names_the_pause() -> None:
    line = progress_line(told([started(), RowsStarted(1), *throttled(1.0, 90.0)]).snapshot(2.0))
    assert line.endswith("waiting for: retry after throttle, 1m29s")


def test_the_line_says_that_the_run_is_stopping() -> None:
    stats = told([*steady(10), Stopping("SIGTERM")])
    assert progress_line(stats.snapshot(2.0)).endswith("stopping: SIGTERM")


def test_an_unknown_price_is_never_shown_as_nothing() -> None:
    assert "cost unknown" in progress_line(told([started(), *answered(1.0, cost_usd=None)]).snapshot(1.0))
    both = [started(), *answered(1.0, cost_usd=None), *answered(1.0, cost_usd=0.25)]
    assert "$0.25+" in progress_line(told(both).snapshot(1.0))


def written(kind: str, script: list[tuple[float, Event]], until_s: float) -> list[str]:
    """What a display wrote when these events came at these seconds. RunFinished ends it."""

    async def scenario() -> str:
        world, stats, stream = World(), Stats(), io.StringIO()
        display = make_observer(kind, stats, stream=stream, is_terminal=False, clock=world.clock, sleep=world.sleep)
        fanout = Fanout([stats, display])
        async with asyncio.TaskGroup() as group:
            group.create_task(fanout.run())
            for at_s, event in script:
                await world.advance(at_s - world.now_s)
                fanout.emit(event)
            await world.advance(until_s - world.now_s)
            fanout.emit(END)
        return stream.getvalue()

    return asyncio.run(scenario()).splitlines()


def test_the_first_line_comes_after_30_s_and_then_every_30_s() -> None:
    script: list[tuple[float, Event]] = [(0.0, started()), (0.0, InputSize(2)), (0.0, RowsPlanned(pending=2))]
    assert written("log", script, 29.9) == []
    assert len(written("log", script, 30.0)) == 1
    assert len(written("log", script, 100.0)) == 3


def test_notices_and_stops_come_at_once_on_one_line_each() -> None:
    script: list[tuple[float, Event]] = [
        (1.0, Notice("429:\nall \x1b[31mpause")),
        (2.0, Stopping("SIGTERM")),
        (3.0, Stopping("second SIGTERM", cancel=True)),
    ]
    assert written("log", script, 4.0) == [
        "lcbatch: 429: all pause",
        "lcbatch: stopping: SIGTERM",
        "lcbatch: cancelling: second SIGTERM",
    ]


def test_without_progress_only_notices_are_written() -> None:
    script: list[tuple[float, Event]] = [(0.0, started()), (1.0, Notice("careful"))]
    assert written("none", script, 1000.0) == ["lcbatch: careful"]


def test_a_line_in_the_middle_of_a_run_has_the_figures_of_that_moment() -> None:
    script: list[tuple[float, Event]] = [(0.0, started()), (0.0, InputSize(8)), (0.0, RowsStarted(8))]
    script += [(29.0, RowsFinished(29.0, (done(0), done(1))))]
    assert written("log", script, 30.0) == ["lcbatch: 2/8 done, 6 in flight, 0.10 rows/s, waiting for: local work"]
