from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lcbatch.events import Event, InputRead, RowsFinished, RowsPlanned, RowsStarted, RunFinished
from lcbatch.observers.figures import Snapshot
from lcbatch.observers.summary import print_summary, render_summary, summary_json, summary_text

from .script import answered, done, ended, failed, row, started, throttled, told

ERRORS = "out.jsonl.errors.jsonl"


def small() -> Snapshot:
    """Three rows, all done."""
    events = [started(), RowsPlanned(pending=3), RowsStarted(3), *answered(1.0), *answered(1.0), *answered(1.1)]
    finished = RowsFinished(1.1, (done(0), done(1), done(2)))
    return told([*events, finished, InputRead(3, to_the_end=True), RunFinished(1.2, 0, "done")]).snapshot(9.0)


def drawn(snapshot: Snapshot, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_summary(snapshot, ERRORS), crop=False)
    return console.export_text()


def test_a_small_run_is_told_in_seven_lines() -> None:
    assert summary_text(small(), ERRORS) == (
        "rows      3 done\n"
        "time      1.2 s, 2.5 rows/s\n"
        "latency   p50 1.0 s, p95 1.0 s, p99 1.0 s\n"
        "tokens    300 in, 60 out (300/s)\n"
        "cost      $0.0030\n"
        "model     openai:gpt-5-mini, answered by gpt-5-mini-2025-08-07\n"
        "output    out.jsonl\n"
    )


def test_a_run_with_failures_names_them_and_how_to_go_on() -> None:
    assert summary_text(ended(), ERRORS) == (
        "rows      97 done, 3 failed\n"
        "time      1m40s, 1.0 rows/s\n"
        "latency   p50 800 ms, p95 800 ms, p99 800 ms\n"
        "tokens    9,700 in, 1,940 out (116/s)\n"
        "cost      $0.10\n"
        "model     openai:gpt-5-mini, answered by gpt-5-mini-2025-08-07\n"
        "slowest   11 s rows.jsonl:97 (id r96)\n"
        "          10 s rows.jsonl:96 (id r95)\n"
        "          10 s rows.jsonl:95 (id r94)\n"
        "failed    2 timeout, e.g. rows.jsonl:98 (id r97): read timed out\n"
        "          1 parse, e.g. rows.jsonl:99 (id r98): not JSON\n"
        "output    out.jsonl\n"
        "errors    out.jsonl.errors.jsonl\n"
        "to continue:\n"
        "  lcbatch retry out.jsonl\n"
    )


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_drawn_summary_says_the_same(width: int) -> None:
    shown = drawn(ended(), width)
    assert max(map(len, shown.splitlines())) <= width
    assert " ".join(shown.split()) == " ".join(summary_text(ended(), ERRORS).split())


def test_a_long_command_stays_on_one_line_for_copying() -> None:
    command = "lcbatch run " + "x" * 200
    assert f"  {command}\n" in drawn(ended(continue_with=command), 40)


def test_reused_left_and_gone_rows_are_named() -> None:
    plan = RowsPlanned(reused=5, failed_before=1, pending=4, gone=2)
    events: list[Event] = [
        started(),
        plan,
        RowsStarted(2),
        RowsFinished(1.0, (done(0),)),
        InputRead(10, to_the_end=True),
    ]
    first = summary_text(told([*events, RunFinished(2.0, 143, "stopped")]).snapshot(2.0)).splitlines()[0]
    assert first == "rows      1 done, 5 reused, 1 failed before, 3 left, 2 gone from the input"


def test_retries_are_explained() -> None:
    events = [started(), *throttled(1.0, 2.0), *throttled(2.0, 3.0, maybe_paid=True), *answered(4.0)]
    text = summary_text(told([*events, RowsFinished(4.0, (done(0),))]).snapshot(4.0))
    assert "retries   2 throttle; 5.0 s of waiting over all calls; 1 may have been billed\n" in text


def test_rows_of_many_calls_show_both_latencies() -> None:
    events = [started(), *answered(1.0), *answered(2.0), RowsFinished(2.0, (done(0, 2.0),))]
    text = summary_text(told(events).snapshot(2.0))
    assert "latency   p50 1.0 s, p95 1.0 s, p99 1.0 s\n" in text
    assert "per row   p50 2.0 s, p95 2.0 s, p99 2.0 s (2 calls)\n" in text


def test_unknown_prices_are_said_to_be_unknown() -> None:
    unknown = [started(), *answered(1.0, cost_usd=None)]
    assert "cost      unknown: no price for this model\n" in summary_text(told(unknown).snapshot(1.0))
    partly = [*unknown, *answered(1.0, cost_usd=0.5)]
    assert "cost      $0.50 and 1 call without a known price\n" in summary_text(told(partly).snapshot(1.0))


def test_several_models_are_named_with_their_rows() -> None:
    outcomes = (done(0, model="a"), done(1, model="b"), done(2, model="b"))
    text = summary_text(told([started(), RowsFinished(1.0, outcomes)]).snapshot(1.0))
    assert "model     openai:gpt-5-mini, answered by b (2 rows), a (1 row)\n" in text


def test_the_model_that_was_asked_for_is_named_once() -> None:
    text = summary_text(told([started(), RowsFinished(1.0, (done(0, model="gpt-5-mini"),))]).snapshot(1.0))
    assert "model     openai:gpt-5-mini\n" in text


def test_nothing_from_a_row_reaches_the_terminal_unclean() -> None:
    bad = failed(0, message="\x1b]0;owned\x07[red]boom[/red]\nline two")
    spoiled = type(bad)(row(0, "i\x1b[2Jd", "pl\x07ace"), bad.failure)
    shown = drawn(told([started(), RowsFinished(1.0, (spoiled,))]).snapshot(1.0), 120)
    assert "1 timeout, e.g. pl ace (id id): [red]boom[/red] line two" in shown
    assert "\x1b" not in shown


def test_what_is_no_terminal_gets_plain_text_even_under_force_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    plain, coloured = io.StringIO(), io.StringIO()
    print_summary(ended(), plain, is_terminal=False)
    print_summary(ended(), coloured, is_terminal=True)
    assert plain.getvalue() == summary_text(ended())
    assert "\x1b[" in coloured.getvalue()


def test_summary_json_has_stable_keys_with_units(tmp_path: Path) -> None:
    target = tmp_path / "summary.json"
    target.write_text(json.dumps(summary_json(ended())))
    figures = json.loads(target.read_text())
    assert " ".join(figures) == (
        "task model models output elapsed_s exit_code message continue_with stopping waiting_for held_s eta_s rows "
        "rows_per_s recent_rows_per_s row_latency_s calls call_latency_s tokens tokens_per_s recent_tokens_per_s "
        "cost_usd known_cost_usd unpriced_calls steps slowest_rows errors"
    )
    assert " ".join(figures["rows"]) == (
        "total done reused failed failed_before left in_flight window gone passed_over"
    )
    assert " ".join(figures["calls"]) == "attempts answered failed in_flight maybe_paid retries waited_s"
    assert list(figures["call_latency_s"]) == ["count", "p50", "p95", "p99", "max"]


def test_summary_json_carries_the_figures() -> None:
    figures = summary_json(ended())
    assert (figures["exit_code"], figures["elapsed_s"], figures["cost_usd"]) == (3, 100.0, 0.097)
    assert (figures["rows"]["done"], figures["rows"]["failed"], figures["rows"]["left"]) == (97, 3, 0)
    assert figures["models"] == {"gpt-5-mini-2025-08-07": 97}
    assert figures["tokens"] == {"prompt": 9700, "completion": 1940}
    assert figures["errors"]["parse"] == {
        "count": 1,
        "example": {"id": "r98", "place": "rows.jsonl:99", "message": "not JSON"},
    }
    assert len(figures["slowest_rows"]) == 5


def test_steps_are_told_apart_where_there_are_several() -> None:
    calls = [*answered(1.0, 1.0, step="draft"), *answered(2.0, 2.0, step="polish"), *answered(3.0, 1.0, step="draft")]
    ended = told([started(), *calls]).snapshot(3.0)
    assert (
        "by step   draft: 2 calls, p50 1.0 s, p95 1.0 s, 200 in, 40 out, $0.0020\n"
        "          polish: 1 call, p50 2.0 s, p95 2.0 s, 100 in, 20 out, $0.0010\n"
    ) in summary_text(ended)
    steps = summary_json(ended)["steps"]
    assert {name: (step["answered"], step["cost_usd"]) for name, step in steps.items()} == {
        "draft": (2, 0.002),
        "polish": (1, 0.001),
    }
    alone = told([started(), *answered(1.0, step="draft")]).snapshot(1.0)
    assert summary_json(alone)["steps"] == {}
    assert "by step" not in summary_text(alone)


def test_summary_json_of_nothing_is_json() -> None:
    figures = json.loads(json.dumps(summary_json(told([]).snapshot(0.0))))
    assert figures["call_latency_s"] == {"count": 0, "p50": None, "p95": None, "p99": None, "max": None}
