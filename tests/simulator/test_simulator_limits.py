from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcbatch.simulator.choices import RetryAfterForm
from lcbatch.simulator.limits import Bucket, Exceeded, Limiter, go_duration, retry_after

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()


def test_a_bucket_holds_its_burst_and_refills_continuously() -> None:
    bucket = Bucket(per_minute=60, burst_s=10, now=100)
    bucket.take(10, 100)
    assert bucket.level(100) == 0
    assert bucket.wait_s(1, 100.25) == pytest.approx(0.75)
    assert bucket.wait_s(1, 101) == 0
    assert bucket.level(1000) == 10


def test_a_bucket_never_lets_through_what_is_larger_than_itself() -> None:
    assert Bucket(per_minute=60, burst_s=10, now=0).wait_s(11, 0) == math.inf


def test_a_clock_that_steps_back_refills_nothing() -> None:
    bucket = Bucket(per_minute=60, burst_s=10, now=100)
    bucket.take(10, 100)
    assert bucket.level(50) == 0
    assert bucket.level(101) == pytest.approx(1)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20)), max_size=60))
def test_no_stretch_of_time_lets_more_through_than_burst_and_rate(arrivals: list[tuple[float, int]]) -> None:
    bucket, now, passed = Bucket(per_minute=120, burst_s=15, now=0), 0.0, 0
    for gap, amount in arrivals:
        now += gap
        if not bucket.wait_s(amount, now):
            bucket.take(amount, now)
            passed += amount
    assert passed <= 30 + 2 * now + 1e-6


def test_waiting_as_long_as_told_is_enough() -> None:
    bucket = Bucket(per_minute=7, burst_s=60, now=0)
    now = 0.0
    for _ in range(100):
        now += bucket.wait_s(3, now)
        assert bucket.wait_s(3, now) == 0
        bucket.take(3, now)
    assert now == pytest.approx((300 - 7) * 60 / 7, rel=1e-6)


def test_tokens_that_do_not_fit_use_up_no_request() -> None:
    limiter = Limiter(rpm=60, tpm=600, burst_s=60, now=0)
    assert limiter.admit(600, 0) is None
    assert limiter.admit(100, 0) == Exceeded("tokens", 600, 100, wait_s=10)
    assert b"x-ratelimit-remaining-requests: 59\r\n" in limiter.headers("openai", 0, NOON)


def test_a_rejected_request_counts_where_that_is_asked_for() -> None:
    limiter = Limiter(rpm=60, tpm=600, burst_s=60, now=0)
    limiter.admit(601, 0, count_rejected=True)
    assert b"x-ratelimit-remaining-requests: 59\r\n" in limiter.headers("openai", 0, NOON)


def test_requests_are_refused_before_tokens() -> None:
    limiter = Limiter(rpm=60, tpm=600, burst_s=1, now=0)
    assert limiter.admit(1, 0) is None
    exceeded = limiter.admit(1, 0)
    assert exceeded is not None
    assert exceeded.what == "requests"
    assert exceeded.wait_s == pytest.approx(1)


def test_headers_of_openai() -> None:
    limiter = Limiter(rpm=600, tpm=60_000, burst_s=60, now=0)
    limiter.admit(1000, 0)
    assert limiter.headers("openai", 0, NOON).decode().splitlines() == [
        "x-ratelimit-limit-requests: 600",
        "x-ratelimit-remaining-requests: 599",
        "x-ratelimit-reset-requests: 100ms",
        "x-ratelimit-limit-tokens: 60000",
        "x-ratelimit-remaining-tokens: 59000",
        "x-ratelimit-reset-tokens: 1s",
    ]


def test_headers_of_anthropic() -> None:
    limiter = Limiter(rpm=60, tpm=0, burst_s=60, now=0)
    for _ in range(30):
        limiter.admit(1, 0)
    assert limiter.headers("anthropic", 0, NOON).decode().splitlines() == [
        "anthropic-ratelimit-requests-limit: 60",
        "anthropic-ratelimit-requests-remaining: 30",
        "anthropic-ratelimit-requests-reset: 2024-02-29T12:00:30Z",
    ]


def test_halved_limits_keep_what_was_used_and_refill_at_the_new_rate() -> None:
    limiter = Limiter(rpm=60, tpm=0, burst_s=60, now=0)
    for _ in range(50):
        limiter.admit(1, 0)
    limiter.retune(30, 0, 60, 0)
    for _ in range(10):
        assert limiter.admit(1, 0) is None
    exceeded = limiter.admit(1, 0)
    assert exceeded is not None
    assert exceeded.wait_s == pytest.approx(2)
    limiter.retune(0, 0, 60, 0)
    assert limiter.admit(1, 0) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0004, "1ms"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (3661.5, "1h1m1.5s")],
)
def test_durations_read_as_openai_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("seconds", b"retry-after: 2\r\n"),
        ("ms", b"retry-after-ms: 1500\r\n"),
        ("both", b"retry-after: 2\r\nretry-after-ms: 1500\r\n"),
        ("date", b"retry-after: Thu, 29 Feb 2024 12:00:02 GMT\r\ndate: Thu, 29 Feb 2024 12:00:00 GMT\r\n"),
        ("garbage", b"retry-after: soon\r\n"),
        ("negative", b"retry-after: -5\r\n"),
        ("absent", b""),
    ],
)
def test_the_forms_of_retry_after(form: RetryAfterForm, lines: bytes) -> None:
    assert retry_after(form, 1.5, NOON) == lines


def test_nobody_is_told_to_come_back_for_what_will_never_fit() -> None:
    assert retry_after("seconds", math.inf, NOON) == b""
