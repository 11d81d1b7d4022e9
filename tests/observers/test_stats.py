from __future__ import annotations

import pytest

from lcbatch.errors import Kind
from lcbatch.events import (
    CallStarted,
    Event,
    InputRead,
    InputSize,
    RowsFinished,
    RowsPlanned,
    RowsStarted,
    RunFinished,
    Stopping,
)
from lcbatch.observers.stats import MODELS, OTHER_MODELS, SLOWEST, Stats
from lcbatch.observers.steps import OTHERS, STEPS

from .script import answered, done, failed, started, steady, throttled, told


def test_rows_are_counted_by_outcome() -> None:
    plan = [RowsPlanned(reused=4, pending=6), RowsPlanned(failed_before=1, pending=2, gone=3)]
    events: list[Event] = [
        started(),
        InputSize(20),
        *plan,
        RowsStarted(5),
        RowsFinished(1.0, (done(0), failed(1), done(2))),
    ]
    rows = told(events).snapshot(2.0).rows
    assert (rows.done, rows.failed, rows.reused, rows.failed_before, rows.gone) == (2, 1, 4, 1, 3)
    assert (rows.total, rows.left, rows.in_flight, rows.window) == (20, 12, 2, 40)
    assert (rows.answered, rows.ended, rows.settled) == (6, 3, 8)


def test_total_is_unknown_until_a_pipe_has_ended() -> None:
    stats = told([started(), RowsPlanned(pending=2), RowsStarted(2)])
    assert stats.snapshot(1.0).rows.total is None
    assert stats.snapshot(1.0).rows.left is None
    stats.on_event(InputRead(2, to_the_end=True, passed_over=7))
    assert stats.snapshot(1.0).rows.total == 2
    assert stats.snapshot(1.0).rows.passed_over == 7


def test_a_run_that_stopped_reading_keeps_the_known_size() -> None:
    events: list[Event] = [started(), InputSize(100), InputRead(10, to_the_end=False)]
    assert told(events).snapshot(1.0).rows.total == 100


def test_tokens_and_cost_are_those_of_the_calls_of_this_run() -> None:
    calls = told([started(), *answered(1.0), *answered(2.0), RowsFinished(2.0, (done(0),))]).snapshot(4.0).calls
    assert (calls.prompt_tokens, calls.completion_tokens) == (200, 40)
    assert calls.cost_usd == pytest.approx(0.002)
    assert calls.tokens_per_s_overall == pytest.approx(60.0)


def test_one_unknown_price_makes_the_cost_unknown_and_keeps_the_known_part() -> None:
    calls = told([started(), *answered(1.0), *answered(2.0, cost_usd=None)]).snapshot(2.0).calls
    assert calls.cost_usd is None
    assert calls.known_cost_usd == pytest.approx(0.001)
    assert calls.unpriced == 1


def test_a_failed_call_without_a_price_leaves_the_cost_known() -> None:
    calls = told([started(), *answered(1.0), *throttled(2.0, 3.0, maybe_paid=True)]).snapshot(2.0).calls
    assert calls.cost_usd == pytest.approx(0.001)
    assert (calls.attempts, calls.answered, calls.failed, calls.maybe_paid) == (2, 1, 1, 1)


def test_retries_and_waiting_are_counted_by_kind() -> None:
    calls = told([started(), *answered(1.0, 0.5), *throttled(2.0, 3.0), *throttled(2.5, 4.0)]).snapshot(3.0).calls
    assert calls.retries == {"throttle": 2}
    assert calls.waited_s == {"provider": 0.5, "throttle": 7.0}


def test_latency_is_of_answered_calls() -> None:
    latency = told([started(), *answered(1.0, 2.0), *throttled(2.0, 3.0)]).snapshot(3.0).calls.latency
    assert (latency.count, latency.p50_s, latency.p99_s, latency.max_s) == (1, 2.0, 2.0, 2.0)


def test_percentiles_of_nothing_are_none() -> None:
    latency = Stats().snapshot(0.0).calls.latency
    assert (latency.count, latency.p50_s, latency.p95_s, latency.p99_s, latency.max_s) == (0, None, None, None, None)


def test_the_slowest_rows_are_kept_slowest_first_and_the_earlier_of_equals() -> None:
    outcomes = tuple(done(n, latency_s=float(n % 10)) for n in range(100))
    slowest = told([started(), RowsFinished(1.0, outcomes)]).snapshot(1.0).slowest
    assert [(slow.id, slow.place, slow.latency_s) for slow in slowest] == [
        (f"r{n}", f"rows.jsonl:{n + 1}", 9.0) for n in range(9, 10 + 10 * (SLOWEST - 1), 10)
    ]


def test_errors_are_counted_by_kind_with_the_first_as_example() -> None:
    outcomes = (failed(3, Kind.PARSE, "no JSON"), failed(4), failed(5, message="later"))
    errors = told([started(), RowsFinished(1.0, outcomes)]).snapshot(1.0).errors
    assert [(figure.kind, figure.count, figure.id, figure.message) for figure in errors] == [
        ("timeout", 2, "r4", "read timed out"),
        ("parse", 1, "r3", "no JSON"),
    ]


def test_a_huge_message_is_not_kept_whole() -> None:
    errors = told([started(), RowsFinished(1.0, (failed(0, message="x" * 10_000_000),))]).snapshot(1.0).errors
    assert len(errors[0].message) == 500


def test_models_are_counted_and_their_number_is_bounded() -> None:
    names = [*(f"m{n}" for n in range(MODELS + 3)), "m0", ""]
    outcomes = tuple(done(n, model=name) for n, name in enumerate(names))
    models = told([started(), RowsFinished(1.0, outcomes)]).snapshot(1.0).models
    assert models["m0"] == 2
    assert models[OTHER_MODELS] == 3
    assert len(models) == MODELS + 1


def test_the_totals_are_those_of_all_steps_and_their_number_is_bounded() -> None:
    names = ["first", "first", *(f"step {n}" for n in range(STEPS + 3)), "first"]
    events = [event for n, name in enumerate(names) for event in answered(float(n), 1.0, step=name)]
    snapshot = told([started(), *events, *throttled(99.0, 1.0)]).snapshot(100.0)
    steps = snapshot.steps
    assert (steps["first"].answered, steps["first"].latency.count, steps["first"].prompt_tokens) == (3, 3, 300)
    assert len(steps) == STEPS + 1
    assert steps[OTHERS].answered == 4
    assert sum(step.answered for step in steps.values()) == snapshot.calls.answered == len(names)
    assert sum(step.failed for step in steps.values()) == 1


def test_recent_rate_is_right_in_a_steady_run_from_the_first_seconds_on() -> None:
    for rows in (50, 500, 5000):
        snapshot = told(steady(rows)).snapshot(rows / 10)
        assert snapshot.rows.per_s == pytest.approx(10.0, rel=0.02)
        assert snapshot.rows.per_s_overall == pytest.approx(10.0)
        assert snapshot.calls.tokens_per_s == pytest.approx(1200.0, rel=0.02)


def test_time_spent_on_placing_reused_rows_does_not_lower_the_recent_rate() -> None:
    stats = told([started(), CallStarted(600.0), RowsFinished(610.0, tuple(done(n) for n in range(100)))])
    assert stats.snapshot(610.0).rows.per_s == pytest.approx(10.0, rel=0.2)


def test_recent_rate_forgets() -> None:
    stats = told(steady(900))
    assert stats.snapshot(90.0 + 30.0).rows.per_s == pytest.approx(3.68, rel=0.05)
    assert stats.snapshot(90.0 + 300.0).rows.per_s < 0.01


def test_eta_is_what_is_left_at_the_recent_rate() -> None:
    assert told(steady(500)).snapshot(50.0).eta_s == pytest.approx(50.0, rel=0.02)


def test_eta_is_at_least_what_a_row_takes() -> None:
    assert told(steady(999)).snapshot(99.9).eta_s == 1.0


def test_eta_goes_no_further_than_the_limit_on_rows() -> None:
    assert told(steady(500), max_rows=600).snapshot(50.0).eta_s == pytest.approx(10.0, rel=0.02)


def test_there_is_no_eta_while_the_total_is_unknown() -> None:
    events = [event for event in steady(500) if not isinstance(event, InputSize)]
    assert told(events).snapshot(50.0).eta_s is None


def test_there_is_no_eta_before_five_rows_have_ended() -> None:
    assert told(steady(4)).snapshot(0.4).eta_s is None


def test_there_is_no_eta_in_the_first_wave_of_a_wide_window_for_30_s() -> None:
    stats = told([started(limit=1000), InputSize(5000), RowsStarted(1000)])
    stats.on_event(RowsFinished(2.0, tuple(done(n) for n in range(100))))
    assert stats.snapshot(2.0).eta_s is None
    assert stats.snapshot(30.0).eta_s is not None


def test_there_is_no_eta_of_more_than_a_month_nor_while_stopping() -> None:
    stats = told(steady(500))
    assert stats.snapshot(50.0 + 1000.0).eta_s is None
    stats.on_event(Stopping("SIGTERM"))
    assert stats.snapshot(50.0).eta_s is None
    assert stats.snapshot(50.0).stopping == "SIGTERM"


def test_waiting_for_the_input_the_provider_a_retry_or_local_work() -> None:
    stats = told([started()])
    assert stats.snapshot(0.0).waiting_for == "input"
    stats.on_event(RowsStarted(1))
    assert stats.snapshot(0.0).waiting_for == "local"
    stats.on_event(CallStarted(0.0))
    assert stats.snapshot(0.0).waiting_for == "provider"
    stats = told([started(), RowsStarted(1), *throttled(1.0, 10.0)])
    snapshot = stats.snapshot(4.0)
    assert (snapshot.waiting_for, snapshot.retry_kind, snapshot.retry_in_s) == ("retry", "throttle", 7.0)
    assert stats.snapshot(11.0).waiting_for == "local"


def test_nothing_is_waited_for_when_all_rows_have_ended() -> None:
    stats = told([started(), RowsStarted(1), RowsFinished(1.0, (done(0),)), InputRead(1, to_the_end=True)])
    assert stats.snapshot(1.0).waiting_for == ""


def test_figures_stand_still_after_the_end() -> None:
    stats = told([*steady(10), RunFinished(5.0, 3, "some rows failed", "lcbatch retry out.jsonl")])
    snapshot = stats.snapshot(1e6)
    assert snapshot == stats.snapshot(0.0)
    assert snapshot.elapsed_s == 5.0
    assert (snapshot.exit_code, snapshot.message) == (3, "some rows failed")
    assert snapshot.continue_with == "lcbatch retry out.jsonl"


def test_nothing_has_happened_before_the_first_event() -> None:
    snapshot = Stats().snapshot(1234.0)
    assert (snapshot.elapsed_s, snapshot.rows.per_s, snapshot.eta_s, snapshot.waiting_for) == (0.0, 0.0, None, "")
    assert snapshot.calls.cost_usd == 0.0


def test_rows_that_end_without_having_started_do_not_make_a_negative_window() -> None:
    assert told([started(), RowsFinished(1.0, (done(0),))]).snapshot(1.0).rows.in_flight == 0
