"""What the command line makes of a run's end: closing figures, and the exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from lcbatch.app import Report
from lcbatch.cli.edge import _run
from lcbatch.cli.start import start
from lcbatch.job import Job
from tests.cli.work import Work


@pytest.mark.parametrize(("words", "code"), [(["good"], 73), (["good", "bad"], 3)])
def test_figures_that_cannot_be_written_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    work = Work(tmp_path)
    work.write(*words)
    job = Job.of(
        str(tmp_path / "in.jsonl"),
        chain=f"{tmp_path}/chain.py:answer",
        output=str(tmp_path / "out.jsonl"),
        summary_json=str(tmp_path / "nowhere" / "sum.json"),
        progress="none",
    )

    assert start(job) == code

    assert f"cannot write {tmp_path}/nowhere/sum.json" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.jsonl").read_text())["output"] == "GOOD"


@pytest.mark.parametrize("store_failed", [False, True])
def test_a_store_that_failed_is_not_closed_by_python_s_own_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, store_failed: bool
) -> None:
    left: list[int] = []
    work = Work(tmp_path)
    work.write("good", "bad")
    report = replace(work.run(), store_failed=store_failed, exit_code=74)

    async def run_job(*_: object) -> Report:
        return report

    monkeypatch.setattr("lcbatch.cli.start.run_job", run_job)
    monkeypatch.setattr("os._exit", left.append)

    assert start(Job.of("in.jsonl", progress="none")) == 74
    assert left == ([74] if store_failed else [])


def test_no_memory_is_a_limit_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def greedy() -> None:
        raise MemoryError

    assert _run(app, [], debug=False) == 71
    assert "out of memory" in capsys.readouterr().err
