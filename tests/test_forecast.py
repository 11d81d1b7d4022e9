"""How long a run will take, held against what arithmetic says; the engine underneath is the real one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from lcbatch.chains import load_chain, load_templates
from lcbatch.errors import Failure, Kind
from lcbatch.estimate import Basis, Method
from lcbatch.forecast import Forecast, Scene, Typical, forecast
from lcbatch.job import Job
from lcbatch.ports import Call, Chain
from lcbatch.records import Json, Row
from lcbatch.sample import SAMPLE_ROWS, Seen
from lcbatch.testing import make_row
from lcbatch.wiring import Ended, Line

ANSWER, LATENCY_S = 100, 4.0
PROMPT = 25


async def _nobody(_request: object) -> Any:
    raise AssertionError("the forecast asks nobody")


def scene_of(
    rows: int, *, latency_s: float = LATENCY_S, limits: Mapping[str, Any] | None = None, **options: Any
) -> Scene:
    """Rows of one call: 100 characters in, 100 tokens out, each answered after the same time."""
    job = Job.of(model="openai:m", prompt="{text}", **options)

    def over(call: Call) -> Chain:
        templates = load_templates(job.chain)
        made = partial(load_chain, model_identity={}, document_alone=False, row_models=False)
        return made("run", job.chain, templates, call)

    return Scene(
        job=job,
        rows=rows,
        sample=[make_row(ordinal, {"text": "x" * 100}) for ordinal in range(10)],
        over=over,
        lines=[Line("openai:m", (Ended(_nobody, lambda _model, _usage: 0.0),))],
        basis=Basis(1 / 4, float(ANSWER), ((ANSWER, latency_s),), Method("", "", "")),
        limits={"openai:m": limits} if limits else {},
        chars=100.0,
    )


def test_requests_a_minute_decide() -> None:
    found = forecast(scene_of(6000, rpm=600.0, concurrency="100"))
    assert found.seconds == pytest.approx(600, rel=0.05)
    assert max(found.held, key=lambda gate: found.held[gate]) == "rpm"
    assert (found.simulated, found.failed) == (6000, 0)


def test_tokens_a_minute_decide() -> None:
    found = forecast(scene_of(3000, tpm=60_000.0, concurrency="100"))
    assert found.seconds == pytest.approx(60 * 3000 * (PROMPT + ANSWER) / 60_000, rel=0.05)
    assert max(found.held, key=lambda gate: found.held[gate]) == "tpm"


def test_latency_decides_under_a_few_calls_in_flight() -> None:
    found = forecast(scene_of(400, concurrency="8"))
    assert found.seconds == pytest.approx(400 / 8 * LATENCY_S, rel=0.01)
    assert found.peak_calls == 8


def test_beyond_what_is_simulated_the_steady_rate_goes_on() -> None:
    found = forecast(scene_of(100_000, concurrency="200"))
    assert found.simulated < found.rows == 100_000
    assert found.seconds == pytest.approx(100_000 / 200 * LATENCY_S, rel=0.03)


def test_auto_pays_for_finding_its_limit_once() -> None:
    few, many = forecast(scene_of(20_000)), forecast(scene_of(200_000))
    assert many.peak_calls == 1000
    assert many.rows_per_s > few.rows_per_s
    assert many.seconds == pytest.approx(200_000 / 1000 * LATENCY_S, rel=0.15)


def test_this_machine_is_a_bound_where_answers_take_no_time() -> None:
    found = forecast(replace(scene_of(1_000_000, latency_s=1e-6, concurrency="1000"), machine_s=0.0015))
    assert found.seconds == pytest.approx(2000, rel=0.01)
    assert found.held == {"cpu": 1.0}


@pytest.mark.parametrize("given", [None, 6000.0], ids=["learned", "given too high"])
def test_a_providers_own_limit_holds(given: float | None) -> None:
    found = forecast(scene_of(1500, limits={"rpm": 300.0, "tpm": None}, rpm=given, concurrency="100"))
    assert found.seconds >= (1500 - 300) / 300 * 60 * 0.95, "a minute's worth may be had at once"
    assert found.seconds <= 1500 / 300 * 60 * 1.35
    assert bool(found.throttled) == (given is not None)


def test_what_no_waiting_can_make_fit_is_said() -> None:
    found = forecast(scene_of(20, tpm=100.0))
    assert found.failed == 20
    assert "tokens in one request" in found.failure


def test_it_is_the_same_each_time() -> None:
    scene = replace(scene_of(300, rpm=600.0), basis=replace(scene_of(1).basis, replies=()))
    assert forecast(scene) == forecast(scene)


def test_rows_that_fail_without_a_call_take_no_time() -> None:
    scene = scene_of(100, concurrency="1")
    half = [replace(row, failure=Failure(Kind.BAD_ROW, "no")) if row.ordinal % 2 else row for row in scene.sample]
    assert forecast(replace(scene, sample=half)).seconds == pytest.approx(50 * LATENCY_S, rel=0.01)


def test_when_so_many_rows_will_have_ended() -> None:
    found = forecast(scene_of(400, concurrency="8"))
    assert [found.rows_by(seconds) for seconds in (0.0, 21.0, 1e9)] == [0, 40, 400]
    assert Forecast(20.0, 100, 50, 5.0, 1, 0, {}, [(10.0, 50)]).rows_by(12.0) == 60


def test_a_chain_of_the_users_own_makes_its_calls_one_after_the_other() -> None:
    scene = replace(scene_of(16, concurrency="8"), over=lambda call: Typical(call, 3, 100))
    assert forecast(scene).seconds == pytest.approx(2 * 3 * LATENCY_S, rel=0.01)


def rows(count: int, **more: Any) -> list[Row]:
    return [replace(make_row(ordinal), **more) for ordinal in range(count)]


def test_every_part_of_the_input_is_as_likely_to_be_sampled() -> None:
    seen = Seen(None, bytearray())
    for row in rows(50_000):
        seen.see(row)
    ordinals = [row.ordinal for row in seen.sample]
    assert len(set(ordinals)) == SAMPLE_ROWS
    by_tenth = [sum(ordinal // 5000 == tenth for ordinal in ordinals) for tenth in range(10)]
    assert all(abs(number - 100) < 4 * math.sqrt(100) for number in by_tenth)


def test_no_row_beyond_the_limit_is_sampled() -> None:
    seen = Seen(20, bytearray())
    for row in rows(100):
        seen.see(row)
    assert (seen.to_call, seen.beyond_limit) == (20, 80)
    assert [row.ordinal for row in seen.sample] == list(range(20))


def _ended(found: Json) -> bytearray:
    return bytearray(found)


def test_rows_are_told_apart_by_how_they_ended_before() -> None:
    seen = Seen(None, _ended([0, 1, 2, 3, 0]))
    for row in rows(5):  # a row's number in the store is one more than its place
        seen.see(row)
    assert (seen.stale, seen.again, seen.to_call) == (2, 1, 5)
