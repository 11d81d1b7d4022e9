"""The one retry loop: its policy as a plain function, its shell in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.calls.retry import History, RetryPolicy, retry
from lcbatch.calls.waiting import Waiting
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import CallWaits
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.records import Reply, Request
from lcbatch.testing import Answer, Events, ScriptedCall


def longest(_: float, most: float) -> float:
    return most


def shortest(least: float, _: float) -> float:
    return least


class Trial:
    """One call through the layer, with what came of it and when."""

    def __init__(self, *script: Answer, then: Answer | None = None, policy: RetryPolicy | None = None) -> None:
        self.inner = ScriptedCall(script, then)
        self.events = Events()
        self.policy = policy or RetryPolicy(uniform=shortest)
        self.ended_s = -1.0

    async def call(self) -> Reply:
        loop = asyncio.get_running_loop()
        layer = retry(self.policy, clock=loop.time, sleep=asyncio.sleep, emit=self.events, waiting=Waiting())
        try:
            return await layer(self.inner)(Request([]))
        finally:
            self.ended_s = loop.time()

    def answer(self) -> Reply:
        return run_virtual(self.call())

    def failure(self) -> CallFailed:
        with pytest.raises(CallFailed) as raised:
            run_virtual(self.call())
        return raised.value

    @property
    def requests(self) -> int:
        return len(self.inner.requests)


def failing(kind: Kind, *, maybe_paid: bool = False, retry_after_s: float | None = None) -> Failure:
    return Failure(kind, "no", retry_after_s, maybe_paid)


_ATTEMPTS = {
    **dict.fromkeys((Kind.CONNECTION, Kind.SERVER), 10),
    Kind.LOCAL: 5,
    **dict.fromkeys((Kind.TIMEOUT, Kind.TRUNCATED, Kind.BAD_BODY), 2),
}


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.THROTTLE}))
def test_each_kind_has_its_attempts(kind: Kind) -> None:
    trial = Trial(then=failing(kind))

    error = trial.failure()

    assert trial.requests == error.attempts == _ATTEMPTS.get(kind, 1)
    assert error.failure == failing(kind)


def test_what_may_have_been_paid_is_sent_twice_at_most() -> None:
    trial = Trial(then=failing(Kind.SERVER, maybe_paid=True))

    assert trial.failure().attempts == trial.requests == 2


def test_a_reply_counts_every_request_that_it_took() -> None:
    trial = Trial(failing(Kind.SERVER), failing(Kind.THROTTLE), failing(Kind.CONNECTION), "yes")

    assert trial.answer().attempts == trial.requests == 4


def test_the_first_try_leaves_the_reply_as_it_is() -> None:
    reply = Reply("yes", {}, "m")

    assert Trial(reply).answer() is reply


def test_a_throttle_uses_no_attempt() -> None:
    throttles = [failing(Kind.THROTTLE)] * 20
    trial = Trial(*throttles, *[failing(Kind.SERVER)] * 4, *throttles, "yes")

    assert trial.answer().attempts == 45


@pytest.mark.parametrize("kind", [Kind.THROTTLE, Kind.SERVER])
@pytest.mark.parametrize("asked_s", [0.02, 7.0, 300.0])
def test_what_the_provider_asks_for_is_the_least_wait(kind: Kind, asked_s: float) -> None:
    for uniform in (shortest, longest):
        trial = Trial(failing(kind, retry_after_s=asked_s), "yes", policy=RetryPolicy(uniform=uniform))
        trial.answer()

        assert asked_s <= trial.ended_s <= asked_s + 1.0
        assert [event.delay_s for event in trial.events.of(CallWaits)] == [trial.ended_s]


def test_without_any_success_a_throttled_call_ends_at_max_wait() -> None:
    trial = Trial(then=failing(Kind.THROTTLE), policy=RetryPolicy(max_wait_s=600, uniform=longest))

    error = trial.failure()

    assert error.failure.kind is Kind.THROTTLE
    assert 540 <= trial.ended_s <= 600
    assert error.attempts == trial.requests


@pytest.mark.parametrize("kind", [Kind.THROTTLE, Kind.SERVER])
def test_nobody_waits_longer_than_max_wait_for_a_provider_s_wish(kind: Kind) -> None:
    trial = Trial(failing(kind, retry_after_s=1e8))

    assert trial.failure().attempts == 1
    assert trial.ended_s == 0


def test_cancelling_ends_a_wait_at_once() -> None:
    trial = Trial(then=failing(Kind.THROTTLE, retry_after_s=3000.0))

    async def cancelled() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(trial.call())
            await asyncio.sleep(5)
            task.cancel()

    run_virtual(cancelled())

    assert (trial.ended_s, trial.requests) == (5, 1)


def test_what_is_no_verdict_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        Trial(ZeroDivisionError()).answer()


def test_the_jitter_is_full_and_its_bound_doubles_up_to_a_minute() -> None:
    bounds = []

    def noted(least: float, most: float) -> float:
        assert least == 0.0
        bounds.append(most)
        return 0.0

    policy, history = RetryPolicy(uniform=noted), History()
    for _ in range(40):
        _, history = policy.decide(failing(Kind.THROTTLE), history, now_s=0.0)

    assert bounds[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert bounds[-1] == 60


_FAILURES = st.builds(
    Failure,
    st.sampled_from(Kind),
    st.just("no"),
    retry_after_s=st.none() | st.floats(0, 1e6),
    maybe_paid=st.booleans(),
)


@given(st.lists(_FAILURES, max_size=60), st.floats(0, 1e5), st.floats(0, 1))
def test_whatever_fails_the_policy_ends_in_time_and_within_its_attempts(
    failures: list[Failure], max_wait_s: float, share: float
) -> None:
    policy = RetryPolicy(max_wait_s=max_wait_s, uniform=lambda least, most: least + share * (most - least))
    history, now_s, faults = History(), 0.0, 0
    for failure in failures:
        delay_s, history = policy.decide(failure, history, now_s)
        if delay_s is None:
            break
        faults += failure.kind is not Kind.THROTTLE
        assert (failure.retry_after_s or 0.0) <= delay_s <= max_wait_s
        assert faults < 5
        now_s += delay_s
