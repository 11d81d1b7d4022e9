"""The one retry loop.

Delays follow "full jitter" (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015): uniform in
[0, min(cap, base * 2^attempt)], which spreads callers that failed together. What the provider asks for is a floor.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from lcbatch.calls.waiting import Waiting
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import CallWaits, Gate
from lcbatch.ports import Call, Clock, Emit, Layer, Sleep
from lcbatch.records import Reply, Request

_FAULT_ATTEMPTS = 10
"""Where 30 % of all calls fail, five attempts would lose one row in 400; ten lose one in 170,000."""

_LOCAL_ATTEMPTS = 5
_MAYBE_PAID_ATTEMPTS = 2
"""A timed out call may have been billed: trying it five times could cost five answers."""

_ATTEMPTS = {
    Kind.CONNECTION: _FAULT_ATTEMPTS,
    Kind.SERVER: _FAULT_ATTEMPTS,
    Kind.LOCAL: _LOCAL_ATTEMPTS,
    Kind.TIMEOUT: _MAYBE_PAID_ATTEMPTS,
    Kind.TRUNCATED: _MAYBE_PAID_ATTEMPTS,
    Kind.BAD_BODY: _MAYBE_PAID_ATTEMPTS,
}
"""Attempts in all, by kind; kinds that are not named are final."""

_LATE = 0.05
"""Share of a wait that was asked for by which callers are spread beyond it: a short one is not to become twice as long."""

_BASE_S = 0.5
_CAP_S = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """What a call has been through: faults that count as attempts, throttles that do not, and when it first waited."""

    faults: int = 0
    throttles: int = 0
    throttled_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Whether and when to try again.

    `max_wait_s` bounds how long one call is throttled without an answer, and any single wait that a provider asks for.
    """

    max_wait_s: float = 3600.0
    uniform: Callable[[float, float], float] = random.uniform

    def decide(self, failure: Failure, history: History, now_s: float) -> tuple[float | None, History]:
        """(seconds to wait, or None to give up; the history with this failure in it)."""
        if failure.kind is Kind.THROTTLE:
            since = now_s if history.throttled_since_s is None else history.throttled_since_s
            after = replace(history, throttles=history.throttles + 1, throttled_since_s=since)
            delay = self._delay(after.throttles, failure)
            return (delay if now_s + delay - since <= self.max_wait_s else None), after
        after = replace(history, faults=history.faults + 1, throttled_since_s=None)
        allowed = min(_ATTEMPTS.get(failure.kind, 0), _MAYBE_PAID_ATTEMPTS if failure.maybe_paid else _FAULT_ATTEMPTS)
        delay = self._delay(after.faults, failure)
        return (delay if after.faults < allowed and delay <= self.max_wait_s else None), after

    def _delay(self, times: int, failure: Failure) -> float:
        jitter = self.uniform(0.0, min(_CAP_S, _BASE_S * 2.0 ** min(times, 16)))
        floor = failure.retry_after_s
        return jitter if floor is None else floor + min(jitter, 1.0, _LATE * floor)


@dataclass(slots=True)
class RetryBudget:
    """Keeps retries to a share of recent calls by delaying them, so that a server in trouble is not hit harder for it.

    The share is Finagle's (10 %); calls are forgotten with a time constant of 10 s. No retry is refused.
    """

    _calls: float = 0.0
    _retries: float = 0.0
    _seen_s: float = 0.0

    def called(self, now_s: float) -> None:
        """A call is made for the first time."""
        self._fade(now_s)
        self._calls += 1.0

    def delay(self, now_s: float) -> float:
        """Count a retry; the seconds to wait beyond its own delay."""
        self._fade(now_s)
        self._retries += 1.0
        over = self._retries / max(_FREE_RETRIES, _RETRY_SHARE * self._calls)
        return min(_LONGEST_DELAY_S, over) if over > 1.0 else 0.0

    def _fade(self, now_s: float) -> None:
        kept = math.exp(-(now_s - self._seen_s) / _REMEMBERED_S)
        self._calls, self._retries, self._seen_s = self._calls * kept, self._retries * kept, now_s


_RETRY_SHARE = 0.1
_FREE_RETRIES = 3.0
"""Below so many no share can be told."""

_REMEMBERED_S = 10.0
_LONGEST_DELAY_S = 30.0


def retry(policy: RetryPolicy, *, clock: Clock, sleep: Sleep, emit: Emit, waiting: Waiting) -> Layer:
    """A layer that tries again as the policy says. Cancelling ends the wait at once."""
    budget = RetryBudget()

    def wrap(inner: Call) -> Call:
        async def call(request: Request) -> Reply:
            history, attempts = History(), 0
            budget.called(clock())
            while True:
                attempts += 1
                try:
                    reply = await inner(request)
                except CallFailed as error:
                    delay_s, history = policy.decide(error.failure, history, clock())
                    if delay_s is None or error.final:
                        raise CallFailed(error.failure, attempts) from error
                    if error.failure.kind is not Kind.THROTTLE:
                        delay_s += budget.delay(clock())
                    emit(CallWaits(clock(), delay_s, error.failure))
                    with waiting.at(Gate.RETRY):
                        await sleep(delay_s)
                else:
                    return reply if attempts == 1 else replace(reply, attempts=attempts)

        return call

    return wrap
