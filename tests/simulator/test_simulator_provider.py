from __future__ import annotations

import json
import statistics
from typing import Any

import pytest

from lcbatch.simulator.answers import Answer, answer_for
from lcbatch.simulator.ledger import Ledger
from lcbatch.simulator.provider import Provider, Work, spoiled
from lcbatch.simulator.replies import Reply
from lcbatch.simulator.settings import Settings, SettingsError

from .wire import chat


def provider(**settings: Any) -> Provider:
    return Provider(Settings().changed(settings), Ledger("full"), now=100, wall_offset_s=1_700_000_000 - 100)


def ask(one: Provider, body: Any = None, now: float = 100, key: str = "") -> Work | Reply:
    return one.admit("chat", chat() if body is None else body, key, now)


def status(outcome: Work | Reply) -> int:
    return 200 if isinstance(outcome, Work) else int(outcome.payload[9:12])


def error(outcome: Work | Reply) -> dict[str, Any]:
    assert isinstance(outcome, Reply)
    found: dict[str, Any] = json.loads(outcome.payload.split(b"\r\n\r\n", 1)[1])["error"]
    return found


def admitted(one: Provider, body: Any = None, now: float = 100) -> Work:
    outcome = ask(one, body, now)
    assert isinstance(outcome, Work)
    return outcome


def test_a_call_is_billed_when_it_is_finished_and_not_before() -> None:
    one = provider()
    work = admitted(one)
    assert one.start(work)
    assert one.ledger.billed == 0
    reply = one.finish(work, 101)
    body = json.loads(reply.payload.split(b"\r\n\r\n", 1)[1])
    assert (one.ledger.billed, reply.number, body["id"]) == (1, 1, "chatcmpl-1")
    assert body["choices"][0]["message"]["content"] == answer_for(chat())
    assert body["created"] == 1_700_000_001
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


def test_a_key_that_is_asked_for_must_match() -> None:
    one = provider(require_key="right")
    assert [status(ask(one, key=key)) for key in ("", "Bearer wrong", "Bearer right")] == [401, 401, 200]
    assert error(ask(one))["code"] == "invalid_api_key"


def test_the_quota_ends_after_its_calls() -> None:
    one = provider(quota_after=2)
    outcomes = [ask(one) for _ in range(4)]
    assert [status(outcome) for outcome in outcomes] == [200, 200, 429, 429]
    assert error(outcomes[2])["code"] == "insufficient_quota"


def test_concurrency_beyond_the_limit_is_refused_until_a_call_is_released() -> None:
    one = provider(max_concurrency=1)
    work = admitted(one)
    one.start(work)
    assert error(ask(one))["code"] == "rate_limit_exceeded"
    one.release()
    assert status(ask(one)) == 200
    assert one.stats.rejected["concurrency"] == 1


def test_a_prompt_beyond_the_context_window_is_refused() -> None:
    one = provider(context_tokens=20)
    assert status(ask(one)) == 200
    refused = error(ask(one, chat("x" * 100)))
    assert (refused["code"], refused["param"]) == ("context_length_exceeded", "messages")


def test_rates_refuse_with_the_time_to_wait() -> None:
    one = provider(rpm=60, burst_s=1)
    assert status(ask(one)) == 200
    refused = ask(one)
    assert isinstance(refused, Reply)
    assert error(refused)["type"] == "requests"
    assert b"\r\nretry-after: 1\r\n" in refused.payload
    assert b"\r\nx-ratelimit-remaining-requests: 0\r\n" in refused.payload
    assert status(ask(one, now=101)) == 200


def test_retry_after_may_be_dictated() -> None:
    one = provider(rpm=60, burst_s=1, retry_after_s=300)
    ask(one)
    refused = ask(one)
    assert isinstance(refused, Reply)
    assert b"\r\nretry-after: 300\r\n" in refused.payload


def test_a_request_above_the_token_limit_is_told_that_no_wait_helps() -> None:
    refused = ask(provider(tpm=60, burst_s=10))
    assert isinstance(refused, Reply)
    assert error(refused)["message"].startswith(
        "Request too large for sim on tokens per min (TPM): Limit 60, Requested"
    )
    assert b"retry-after" not in refused.payload


def test_an_hour_of_work_gets_the_rate_that_is_allowed() -> None:
    one, now, passed = provider(rpm=600, burst_s=1, ledger="none"), 100.0, 0
    while now < 3700:
        passed += status(ask(one, now=now)) == 200
        now += 0.5 if passed % 2 else 0.01
    assert passed <= 600 * 60 + 10


def test_saturation_lines_up_what_is_beyond_and_loses_nothing() -> None:
    one = provider(saturate_at=2)
    works = [admitted(one) for _ in range(5)]
    assert [one.start(work) for work in works] == [True, True, False, False, False]
    assert one.release() == [works[2]]
    one.reconfigure({"saturate_at": 4}, 100)
    assert one.startable() == [works[3], works[4]]
    assert [one.release() for _ in range(4)] == [[], [], [], []]
    assert one.stats.in_flight == 0


def test_lifting_the_saturation_starts_all_that_wait() -> None:
    one = provider(saturate_at=1)
    works = [admitted(one) for _ in range(3)]
    for work in works:
        one.start(work)
    one.reconfigure({"saturate_at": 0}, 100)
    assert one.startable() == works[1:]


def test_latency_is_lognormal_with_the_mean_asked_and_repeats_with_its_seed() -> None:
    one, other = (provider(latency_s=2, latency_sigma=0.5) for _ in range(2))
    work = admitted(one)
    drawn = [one.latency_s(work) for _ in range(5000)]
    assert statistics.fmean(drawn) == pytest.approx(2, rel=0.05)
    assert drawn == [other.latency_s(work) for _ in range(5000)]


def test_latency_grows_with_the_answer_but_not_before_a_stream() -> None:
    one = provider(latency_s=1, latency_per_token_s=0.5)
    work = admitted(one)
    assert one.latency_s(work) == 1 + 0.5 * work.completion_tokens
    assert one.latency_s(admitted(one, chat(stream=True))) == 1


def test_a_schedule_runs_on_the_clock_of_the_server() -> None:
    one = provider(schedule=["10-20:503"])
    assert [status(ask(one, now=now)) for now in (109, 110, 119, 120)] == [200, 503, 503, 200]


def test_a_schedule_by_number_counts_requests() -> None:
    one = provider(schedule=["#2-#3:500"])
    assert [status(ask(one)) for _ in range(4)] == [200, 500, 500, 200]
    assert one.stats.faults["500"] == 2


def test_what_was_used_of_a_limit_survives_its_change() -> None:
    one = provider(rpm=600)
    for _ in range(590):
        ask(one)
    one.reconfigure({"rpm": 300}, 100)
    assert [status(ask(one)) for _ in range(11)] == [200] * 10 + [429]


@pytest.mark.parametrize("changes", [{"ledger": "none"}, {"seed": 1}, {"rpm": 5, "nonsense": 1}])
def test_a_change_that_cannot_be_made_changes_nothing(changes: dict[str, Any]) -> None:
    one = provider()
    with pytest.raises(SettingsError):
        one.reconfigure(changes, 100)
    assert one.settings == Settings()


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        {},
        {"model": "sim"},
        {"model": "sim", "messages": []},
        {"model": "sim", "messages": ["hello"]},
        {"model": "", "messages": [{"role": "user", "content": "x"}]},
        chat(n=0),
        chat(n="2"),
        chat(n=10**9),
        chat(tools=[{"type": "function"}]),
        chat(response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "#/x"}}}),
    ],
)
def test_a_body_that_makes_no_sense_is_400(body: Any) -> None:
    outcome = ask(provider(), body)
    assert status(outcome) == 400
    assert error(outcome)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("filter", Answer("", "content_filter")),
        ("empty", Answer("")),
        ("length", Answer('{"a"', "length")),
        ("surrogate", Answer('{"a": 1}\ud83d')),
        ("nul", Answer('{"a": 1}\0')),
        ("big", Answer('{"a": 1} ' + "x" * 11)),
        ("brokenschema", Answer('{"a":')),
        ("drip", Answer('{"a": 1}')),
    ],
)
def test_content_faults_spoil_the_answer(fault: str, answer: Answer) -> None:
    assert spoiled(Answer('{"a": 1}'), fault, big_bytes=20) == answer


def test_a_refusal_has_no_content() -> None:
    spoilt = spoiled(Answer("text"), "refusal")
    assert spoilt.text == ""
    assert spoilt.refusal


def test_a_broken_schema_leaves_text_alone() -> None:
    assert spoiled(Answer("text"), "brokenschema") == Answer("text")
