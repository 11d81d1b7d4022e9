"""Rate limits in virtual time: a provider with real buckets, and the stack from retry to rate in front of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.calls.limits import limits_of
from lcbatch.calls.rate import Estimate, Meter, RateLimits
from lcbatch.calls.retry import RetryPolicy, retry
from lcbatch.calls.waiting import Waiting
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Call
from lcbatch.records import Reply, Request, Usage
from tests.calls.support import provider_of

_PROMPT = "word " * 240


class _Bucket:
    """A provider's: refills continuously, holds a minute's worth."""

    def __init__(self, per_minute: float, loop: asyncio.AbstractEventLoop) -> None:
        self.per_minute = per_minute
        self.level = per_minute / 60.0
        self._loop = loop
        self._seen_s = loop.time()

    def take(self, amount: float) -> bool:
        now_s = self._loop.time()
        self.level = min(self.per_minute, self.level + (now_s - self._seen_s) * self.per_minute / 60.0)
        self._seen_s = now_s
        if self.level < amount:
            return False
        self.level -= amount
        return True


class _Provider:
    """Answers in about a second; says its limits in headers, as OpenAI does."""

    def __init__(self, rpm: float, tpm: float, limits: RateLimits) -> None:
        loop = asyncio.get_running_loop()
        self.requests, self.tokens = _Bucket(rpm, loop), _Bucket(tpm, loop)
        self.answered_s: list[float] = []
        self.rejected_s: list[float] = []
        self._limits = limits
        self._dice = random.Random(3)  # noqa: S311 - latencies
        self._loop = loop

    def set(self, factor: float) -> None:
        for bucket in (self.requests, self.tokens):
            bucket.per_minute *= factor

    async def __call__(self, request: Request) -> Reply:
        usage = Usage(int(len(request.messages[0]["content"]) / 4.4), self._dice.randrange(20, 60))
        await asyncio.sleep(0.05)
        admitted = self.requests.take(1) and self.tokens.take(usage.prompt_tokens + usage.completion_tokens)
        self._limits.heard(self._headers(), self._loop.time(), 0.0)
        if not admitted:
            self.rejected_s.append(self._loop.time())
            raise CallFailed(Failure(Kind.THROTTLE, "rate limit", retry_after_s=1.0))
        await asyncio.sleep(self._dice.lognormvariate(-0.125, 0.5))
        self.answered_s.append(self._loop.time())
        return Reply("x", {}, "m", usage=usage)

    def _headers(self) -> Mapping[str, str]:
        return {
            "x-ratelimit-limit-requests": f"{self.requests.per_minute:.0f}",
            "x-ratelimit-remaining-requests": f"{max(0.0, self.requests.level):.0f}",
            "x-ratelimit-limit-tokens": f"{self.tokens.per_minute:.0f}",
            "x-ratelimit-remaining-tokens": f"{max(0.0, self.tokens.level):.0f}",
        }

    def rate_between(self, start_s: float, end_s: float) -> float:
        """Answers a minute."""
        return sum(start_s <= moment < end_s for moment in self.answered_s) * 60.0 / (end_s - start_s)


def _stack(provider: Call, limits: RateLimits) -> Call:
    loop = asyncio.get_running_loop()
    dice = random.Random(5)  # noqa: S311 - jitter
    again = retry(
        RetryPolicy(uniform=dice.uniform), clock=loop.time, sleep=asyncio.sleep, emit=lambda _: None, waiting=Waiting()
    )
    return again(provider_of(provider, limits=limits))


async def _work_for(call: Call, seconds: float, callers: int = 300) -> int:
    """Callers that never run out of rows; how many rows failed."""
    loop = asyncio.get_running_loop()
    failed = 0

    async def caller() -> None:
        nonlocal failed
        while loop.time() < seconds:
            try:
                await call(Request([{"role": "user", "content": _PROMPT}]))
            except CallFailed:
                failed += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return failed


@pytest.mark.parametrize(("rpm", "tpm"), [(600.0, 60_000.0), (600.0, 1_000_000.0), (100_000.0, 60_000.0)])
def test_an_hour_uses_what_is_allowed_and_is_hardly_ever_refused(rpm: float, tpm: float) -> None:
    async def main() -> None:
        limits = RateLimits(rpm=None, tpm=None)
        provider = _Provider(rpm, tpm, limits)
        failed = await _work_for(_stack(provider, limits), 3600.0)
        per_call = len(_PROMPT) / 4.4 + 39.5
        allowed = min(rpm, tpm / per_call)
        assert provider.rate_between(60.0, 3600.0) >= 0.97 * allowed
        assert len(provider.rejected_s) <= 0.01 * (len(provider.answered_s) + len(provider.rejected_s))
        assert failed == 0

    run_virtual(main())


def test_limits_that_change_in_mid_run_are_followed_within_a_minute() -> None:
    async def main() -> None:
        limits = RateLimits(rpm=None, tpm=None)
        provider = _Provider(600.0, 1_000_000.0, limits)
        loop = asyncio.get_running_loop()
        loop.call_at(600.0, provider.set, 0.5)
        loop.call_at(1200.0, provider.set, 2.0)
        await _work_for(_stack(provider, limits), 1800.0)
        assert provider.rate_between(660.0, 1200.0) == pytest.approx(300.0, rel=0.05)
        assert provider.rate_between(1260.0, 1800.0) == pytest.approx(600.0, rel=0.05)

    run_virtual(main())


def test_the_users_own_limit_is_kept_whatever_the_provider_says() -> None:
    async def main() -> None:
        limits = RateLimits(rpm=60.0, tpm=None)
        provider = _Provider(6000.0, 1_000_000.0, limits)
        await _work_for(_stack(provider, limits), 600.0)
        assert provider.rate_between(0.0, 600.0) == pytest.approx(60.0, rel=0.03)
        assert provider.rejected_s == []

    run_virtual(main())


def test_a_request_larger_than_the_limit_fails_at_once() -> None:
    async def main() -> None:
        limits = RateLimits(rpm=None, tpm=1000.0)
        provider = _Provider(600.0, 1_000_000.0, limits)
        with pytest.raises(CallFailed) as caught:
            await _stack(provider, limits)(Request([{"role": "user", "content": "x" * 100_000}]))
        assert caught.value.failure.kind is Kind.INVALID_REQUEST
        assert asyncio.get_running_loop().time() == 0.0

    run_virtual(main())


def test_a_large_call_is_not_starved_by_small_ones() -> None:
    meter = Meter(per_s=10.0)
    moments = [meter.reserve(amount, 0.0) for amount in (5.0, 5.0, 100.0, 1.0, 1.0)]
    assert moments == sorted(moments)


def test_estimates_calibrate_themselves() -> None:
    estimate = Estimate()
    request = Request([{"role": "user", "content": "a" * 1000}])
    for _ in range(50):
        estimate.learn(request, Reply("", {}, "m", usage=Usage(500, 30)))
    assert estimate.of(request) == pytest.approx(530, rel=0.02)


@pytest.mark.parametrize(
    ("headers", "requests", "tokens"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s", "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s",
            },
            (60.0, 59.0, 1.0),
            (150000.0, 149984.0, 360.0),
        ),
        (
            {
                "anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "1970-01-01T00:01:00Z", "anthropic-ratelimit-tokens-limit": "40000",
            },
            (50.0, 0.0, 60.0),
            (40000.0, None, None),
        ),
        ({"X-RateLimit-Limit-Requests": "10", "x-ratelimit-reset-requests": "120ms"}, (10.0, None, 0.12), (None, None, None)),
    ],
)  # fmt: skip
def test_limit_headers(
    headers: Mapping[str, str],
    requests: tuple[float | None, ...],
    tokens: tuple[float | None, ...],
) -> None:
    limits = limits_of(headers, 0.0)
    assert limits is not None
    assert (limits.requests.limit, limits.requests.remaining, limits.requests.reset_s) == requests
    assert (limits.tokens.limit, limits.tokens.remaining, limits.tokens.reset_s) == tokens


_NAMES = st.sampled_from(
    ["x-ratelimit-limit-requests", "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset", "x-ratelimit-x"]
)


@given(st.dictionaries(_NAMES, st.text(max_size=30)))
def test_any_header_is_read_or_passed_over(headers: dict[str, str]) -> None:
    limits = limits_of(headers, 0.0)
    assert limits is None or (limits.tokens.reset_s or 0.0) >= 0.0
