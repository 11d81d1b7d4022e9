"""How a run ends when its own files fail it, which command goes on, and when a bug in an output is met."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lcbatch.app import run_job
from lcbatch.ending import continue_with
from lcbatch.errors import Kind, OutputFailed
from lcbatch.events import RowsShared
from lcbatch.job import Job
from lcbatch.opening import Run
from lcbatch.ports import Entry
from lcbatch.sinks.filesink import FileSink
from lcbatch.store.run_store import RunStore
from tests.cli.work import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


@pytest.mark.parametrize(("word", "code"), [("good", 74), ("bad", 74)])
def test_a_run_whose_end_cannot_be_noted_says_so(
    work: Work, monkeypatch: pytest.MonkeyPatch, word: str, code: int
) -> None:
    async def end_run(self: RunStore, exit_code: int) -> None:
        raise OutputFailed(f"the run store cannot be written: {self.path.name}, {exit_code}")

    monkeypatch.setattr(RunStore, "end_run", end_run)
    work.write("good", word)

    report = work.run()

    assert report.exit_code == code
    assert report.error is not None
    assert "cannot be written" in report.error.message
    assert report.snapshot.exit_code == code


def test_a_bug_in_an_output_stops_the_run_as_soon_as_it_is_met(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 20_000
    asked = 0
    put = RunStore.put

    def broken(_self: FileSink, _entries: Sequence[Entry]) -> None:
        raise ZeroDivisionError

    async def counted(self: RunStore, outcomes: Sequence[Any]) -> RowsShared:
        nonlocal asked
        asked += len(outcomes)
        return await put(self, outcomes)

    monkeypatch.setattr(FileSink, "append", broken)
    monkeypatch.setattr(RunStore, "put", counted)
    work.write(*(f"row {number}" for number in range(rows)))

    with pytest.raises(ZeroDivisionError):
        work.run(concurrency="1")

    assert 0 < asked < rows


_STOPPED_TWICE = """
import signal

def answer(fields):
    if fields["text"] == "stop":
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    return "x" * 4000
"""


def test_the_second_ctrl_c_ends_a_wait_for_a_reader_that_takes_nothing(work: Work) -> None:
    (work.folder / "chain.py").write_text(_STOPPED_TWICE)
    work.write(*(f"row {number}" for number in range(60)), "stop")
    reader, writer = os.pipe()
    chain = f"{work.folder}/chain.py:answer"
    job = Job.of("-", chain=chain, concurrency="1", progress="none")

    with (work.folder / "in.jsonl").open("rb") as stdin:
        world = replace(work.world(), stdin=stdin, stdout_fd=writer, handles_signals=True)
        report = asyncio.run(asyncio.wait_for(run_job(job, world), 30))

    assert report.exit_code == 130
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("options", "command", "expected"),
    [
        ({}, "lcbatch run in.jsonl -o out.jsonl", "lcbatch retry OUT"),
        ({"max_failures": "1"}, "lcbatch run in.jsonl -o 'my out.jsonl'", "lcbatch run in.jsonl -o 'my out.jsonl'"),
        ({"max_failures": "1", "fresh": True}, "lcbatch run in.jsonl --fresh -q", "lcbatch run in.jsonl -q"),
        ({"limit": 1}, "lcbatch run in.jsonl", "lcbatch run in.jsonl"),
        ({"fail_on": "never"}, "lcbatch run in.jsonl", "lcbatch retry OUT"),
    ],
)
def test_the_command_that_goes_on(work: Work, options: dict[str, Any], command: str, expected: str) -> None:
    work.write("good", "bad", "better")

    report = work.run(command, concurrency="1", **options)

    said = report.snapshot.continue_with
    assert said == expected.replace("OUT", str(work.folder / "out.jsonl"))


@pytest.mark.parametrize("nothing", [False, True])
def test_a_fresh_start_that_came_to_nothing_is_to_be_made_again(*, nothing: bool) -> None:
    rows = SimpleNamespace(left=5, failed=0, failed_before=0)
    stats = SimpleNamespace(snapshot=lambda _now: SimpleNamespace(rows=rows))
    world = SimpleNamespace(clock=lambda: 0.0, command="lcbatch run in.jsonl --fresh")
    run = cast("Run", SimpleNamespace(stats=stats, world=world))

    said = continue_with(run, 69, nothing=nothing)

    assert said == ("lcbatch run in.jsonl --fresh" if nothing else "lcbatch run in.jsonl")


def test_a_fresh_start_whose_errors_file_cannot_be_made_puts_the_output_back(work: Work) -> None:
    work.write("good")
    assert work.run().exit_code == 0

    refused = work.run(fresh=True, errors=f"{work.folder}/in.jsonl/errors.jsonl")

    assert refused.exit_code == 73
    assert (work.folder / "out.jsonl").read_text() == '{"text":"good","output":"GOOD"}\n'
    again = work.run()
    assert (again.exit_code, again.snapshot.rows.reused) == (0, 1)


def test_nothing_is_left_to_do_after_a_good_run(work: Work) -> None:
    work.write("good")
    assert work.run("lcbatch run in.jsonl").snapshot.continue_with == ""


def test_failures_of_before_are_still_to_be_retried(work: Work) -> None:
    work.write("good", "bad")
    work.run()

    report = work.run(fail_on="new")

    assert (report.exit_code, report.snapshot.rows.failed_before) == (0, 1)
    assert report.snapshot.continue_with == f"lcbatch retry {work.folder}/out.jsonl"
    errors = (work.folder / "out.jsonl.errors.jsonl").read_text()
    assert json.loads(errors)["_lcbatch_error"]["kind"] == Kind.CHAIN
