"""The bench's arithmetic, on made-up results: nothing is timed here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import environments, gate, machine, plot, report, runner
from bench.contestants import BY_NAME
from bench.measures import Measure, Results, load
from bench.scenarios import START


def measure(scenario: str, contestant: str, rows: int = 20_000, **figures: float | str | None) -> Measure:
    usual = {"wall_s": 7.0, "cpu_s": 6.0, "peak_rss_mb": 100.0, "start_s": 1.0, "connections": 64, "requests": rows}
    return Measure(scenario=scenario, contestant=contestant, rows=rows, **usual | figures)  # type: ignore[arg-type]


def results(*measures: Measure) -> Results:
    return Results(
        when="then",
        machine={"system": "a machine"},
        versions={"lcbatch": {"lcbatch": "1"}, "litellm": {"litellm": "2"}},
        skipped={"ondine": "does not install"},
        quick=False,
        took_s=60.0,
        measures=measures,
    )


def good_run() -> list[Measure]:
    """All targets met, each by a little."""
    return [
        measure("start", "lcbatch", 16, wall_s=1.2, cpu_s=1.2, start_s=0.99),
        measure("start", "import", 16, wall_s=1.0, cpu_s=1.0, start_s=None),
        measure("start", "abatch", 16, wall_s=1.5, cpu_s=1.5),
        measure("zero-64", "lcbatch", wall_s=7.9, cpu_s=6.9),
        measure("zero-64", "lcbatch-chain", wall_s=10.0, cpu_s=8.9),
        measure("zero-64", "abatch", 1_016, wall_s=5.0, cpu_s=1.5 + 3.3),
        measure("lognormal-1000", "lcbatch", 5_000, wall_s=10.5),
        measure("lognormal-1000", "raw-sockets", 5_000, wall_s=9.05, start_s=0.05),
        measure("fixed-5000", "lcbatch", 50_000, wall_s=22.0, connections=5_000),
        measure("100k", "lcbatch", 100_000, peak_rss_mb=125.0),
        measure("million", "lcbatch", 1_000_000, peak_rss_mb=129.0),
        measure("million-again", "lcbatch", 1_000_000, wall_s=29.0, start_s=None),
    ]


def verdicts(run: Results) -> dict[str, str]:
    return {check.name: check.verdict for check in gate.checked(run)}


def test_a_run_that_meets_every_target_passes() -> None:
    assert set(verdicts(results(*good_run())).values()) == {"met"}


@pytest.mark.parametrize(
    ("target", "spoilt"),
    [
        ("CPU a row, whole process", measure("zero-64", "lcbatch", cpu_s=7.1)),
        ("CPU a row beside LangChain's abatch", measure("zero-64", "abatch", 1_016, wall_s=5.0, cpu_s=1.5 + 3.0)),
        ("rows a second on one core", measure("zero-64", "lcbatch", wall_s=8.1)),
        ("rows a second beside all others", measure("zero-64", "flexllm", 1_000, wall_s=1.3)),
        ("5,000 calls of 1 s, 1,000 at once", measure("lognormal-1000", "lcbatch", 5_000, wall_s=10.6)),
        ("5,000 at once in one process", measure("fixed-5000", "lcbatch", 50_000, wall_s=22.1)),
        ("its connections", measure("fixed-5000", "lcbatch", 50_000, wall_s=22.0, connections=5_001)),
        ("CPU a row of a user's own chain", measure("zero-64", "lcbatch-chain", cpu_s=9.1)),
        ("first request on the wire", measure("start", "lcbatch", 16, cpu_s=1.2, start_s=1.01)),
        ("peak memory of a million rows", measure("million", "lcbatch", 1_000_000, peak_rss_mb=131.0)),
        ("memory does not grow with the rows", measure("100k", "lcbatch", 100_000, peak_rss_mb=115.0)),
        ("a million rows that are done already", measure("million-again", "lcbatch", 1_000_000, wall_s=30.0)),
    ],
)
def test_each_target_is_missed_by_a_run_just_beyond_it(target: str, spoilt: Measure) -> None:
    kept = [m for m in good_run() if (m.scenario, m.contestant) != (spoilt.scenario, spoilt.contestant)]
    assert verdicts(results(*kept, spoilt))[target] == "MISSED"


def test_targets_in_time_go_by_the_machines_pace() -> None:
    """Half as fast for everybody is met, and half as fast for us alone is not."""
    slow = [
        replace(m, cpu_s=2 * m.cpu_s, wall_s=2 * m.wall_s) for m in good_run() if m.scenario in {"start", "zero-64"}
    ]
    met = verdicts(results(*slow))
    ours_alone = verdicts(results(*(m for m in slow if m.contestant != "abatch")))
    for name in ("CPU a row, whole process", "rows a second on one core", "CPU a row of a user's own chain"):
        assert (met[name], ours_alone[name]) == ("met", "MISSED")


def test_a_run_of_ours_that_failed_misses_and_one_of_others_is_not_measured() -> None:
    by_who = {"lcbatch": "MISSED", "raw-sockets": "not measured"}
    for who, verdict in by_who.items():
        kept = [m for m in good_run() if (m.scenario, m.contestant) != ("lognormal-1000", who)]
        run = results(*kept, measure("lognormal-1000", who, 5_000, problem="exit code 1"))
        assert verdicts(run)["5,000 calls of 1 s, 1,000 at once"] == verdict


def test_nothing_measured_misses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results().save(tmp_path / "none.json")
    assert gate.main([str(tmp_path / "none.json")]) == 0
    assert "MISSED" not in capsys.readouterr().out


def test_the_gate_names_what_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(measure("zero-64", "lcbatch", cpu_s=7.1)).save(tmp_path / "slow.json")
    assert gate.main([str(tmp_path / "slow.json")]) == 1
    assert "MISSED        CPU a row, whole process: 0.355 ms" in capsys.readouterr().out


def test_repetitions_become_medians_and_failed_ones_do_not_count() -> None:
    runs = [measure("zero-64", "lcbatch", cpu_s=cpu_s) for cpu_s in (9.0, 5.0, 6.0)]
    summary = results(*runs, measure("zero-64", "lcbatch", cpu_s=1.0, problem="exit code 1")).summary(
        "zero-64", "lcbatch"
    )
    assert summary is not None
    assert (summary.cpu_s, summary.run_s, summary.of, summary.problem) == (6.0, 6.0, 3, None)


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    run = results(*good_run())
    run.save(tmp_path / "results.json")
    assert load(tmp_path / "results.json") == run


def test_tables_stand_between_the_markers_of_the_page() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    text = report.markdown(results(*good_run(), measure("zero-64", "curator", problem="exit code 1")))
    new = report.spliced(page, text)
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "old" not in new
    assert "| **lcbatch run** | 20,000 | 2,899 | 2,532 | 0.285 | 0.345 |" in new
    assert "| bespokelabs-curator | failed: exit code 1 |" in new
    assert "- ondine: does not install" in new
    assert report.spliced(new, text) == new
    with pytest.raises(ValueError, match="bench:begin"):
        report.spliced("a page without markers", text)


def test_the_picture_is_drawn_of_whatever_was_measured() -> None:
    for measures in ([], good_run()[:1], good_run()):
        drawn = plot.drawn(results(*measures))
        assert drawn.startswith("<svg ")
        assert ("CPU a row" in drawn) == (measures == good_run())


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "WORK", tmp_path)
    monkeypatch.setattr(runner, "LOGS", tmp_path / "logs")


@pytest.mark.usefixtures("_elsewhere")
def test_a_run_is_measured_from_outside() -> None:
    found = runner.run_once(START, runner.Ready(BY_NAME["raw-sockets"], Path(sys.executable)))
    assert (found.problem, found.rows, found.requests, found.connections) == (None, 16, 16, 64)
    assert found.start_s is not None
    assert 0 < found.start_s < found.wall_s
    assert found.cpu_s > 0
    assert found.peak_rss_mb > 1


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("", "0 answers for 16 rows"),
        ("import sys; sys.exit(7)", "exit code 7"),
        ("import os; os.kill(os.getpid(), 15)", "ended by signal 15"),
    ],
)
def test_a_run_that_did_not_do_its_work_says_why(code: str, problem: str) -> None:
    idle = replace(BY_NAME["lcbatch"], arguments=lambda _: ["-c", code])
    assert runner.run_once(START, runner.Ready(idle, Path(sys.executable))).problem == problem


@pytest.mark.usefixtures("_elsewhere")
def test_answers_that_were_not_written_do_not_count() -> None:
    sender = replace(BY_NAME["raw-sockets"], writes=True)
    found = runner.run_once(START, runner.Ready(sender, Path(sys.executable)))
    assert found.problem == "0 of 16 rows written"


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    ended = machine.run(command, {}, tmp_path, tmp_path / "log", timeout_s=0.1)
    assert ended.code == -9


def test_what_does_not_install_is_named_in_pips_words() -> None:
    said = "ERROR: No version of peer==9 fits (from versions: 1, 2, 3)\nERROR: No matching distribution"
    command = [sys.executable, "-c", f"import sys; sys.exit({said!r})"]
    with pytest.raises(environments.UnavailableError, match=r"^does not install: No version of peer==9 fits$"):
        environments._run(command)
