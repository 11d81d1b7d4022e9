from __future__ import annotations

import asyncio
import io
import json
from typing import Any

from lcbatch.events import Event, Notice, RowsFinished, RowsStarted, RunFinished, Stopping
from lcbatch.observers import make_observer
from lcbatch.observers.fanout import Fanout
from lcbatch.observers.stats import Stats

from .script import World, done, started


def lines(script: list[tuple[float, Event]]) -> list[dict[str, Any]]:
    """What was written when these events came at these seconds; the last must be RunFinished."""

    async def scenario() -> str:
        world, stats, stream = World(), Stats(), io.StringIO()
        display = make_observer("json", stats, stream=stream, is_terminal=True, clock=world.clock, sleep=world.sleep)
        fanout = Fanout([stats, display])
        async with asyncio.TaskGroup() as group:
            group.create_task(fanout.run())
            for at_s, event in script:
                await world.advance(at_s - world.now_s)
                fanout.emit(event)
        return stream.getvalue()

    return [json.loads(line) for line in asyncio.run(scenario()).splitlines()]


def test_a_run_from_start_to_end() -> None:
    script: list[tuple[float, Event]] = [
        (10.0, started(10.0)),
        (10.5, RowsStarted(1)),
        (12.5, Notice("a \x1b[31mred\nnotice")),
        (13.0, RowsFinished(13.0, (done(0),))),
        (20.0, Stopping("SIGTERM")),
        (21.5, RunFinished(21.5, 143, "stopped", "lcbatch run")),
    ]
    written = lines(script)
    assert [(line["event"], line["elapsed_s"]) for line in written] == [
        ("run_started", 0.0),
        ("progress", 1.0),
        ("notice", 2.5),
        ("progress", 3.0),
        ("progress", 4.0),
        ("stopping", 10.0),
        ("progress", 11.0),
        ("run_finished", 11.5),
    ]
    assert written[0] == {
        "event": "run_started",
        "elapsed_s": 0.0,
        "task": "run",
        "model": "openai:gpt-5-mini",
        "output": "out.jsonl",
        "rows_window": 40,
    }
    assert written[2]["text"] == "a \x1b[31mred\nnotice"
    assert written[5]["reason"] == "SIGTERM"
    assert written[5]["cancel"] is False
    assert written[-1]["exit_code"] == 143
    assert written[-1]["rows"]["done"] == 1
    assert written[-1]["continue_with"] == "lcbatch run"


def test_nothing_is_said_while_nothing_changes() -> None:
    script: list[tuple[float, Event]] = [(0.0, started()), (3600.0, RunFinished(3600.0, 0, "done"))]
    assert [line["event"] for line in lines(script)] == ["run_started", "progress", "run_finished"]
