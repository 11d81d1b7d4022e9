"""The limit that finds itself, against providers in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

from lcbatch.calls.concurrency import ConcurrencyPolicy, PausePolicy
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Event, LimitChanged
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Call
from lcbatch.records import Reply, Request
from tests.calls.support import provider_of

_REPLY = Reply("x", {}, "m")
_THROTTLE = CallFailed(Failure(Kind.THROTTLE, "slow down"))


class _Trial:
    """A closed loop of callers against one provider; afterwards what happened."""

    def __init__(self, policy: ConcurrencyPolicy) -> None:
        self.policy = policy
        self.changes: list[LimitChanged] = []
        self.windows: list[int] = []
        self.requests = 0
        self.rejected = 0
        self.in_flight = 0
        self.peak = 0
        self.took_s = 0.0

    def run(self, provider: Callable[[], Awaitable[Reply]], calls: int, callers: int = 1200) -> None:
        run_virtual(self._run(provider, calls, callers))

    async def _run(self, provider: Callable[[], Awaitable[Reply]], calls: int, callers: int) -> None:
        loop = asyncio.get_running_loop()

        async def attempt(request: Request) -> Reply:  # noqa: ARG001 - a Call by its shape
            self.requests += 1
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            try:
                return await provider()
            finally:
                self.in_flight -= 1

        call = provider_of(attempt, concurrency=self.policy, emit=self._note, resize=self.windows.append)
        numbers = iter(range(calls))
        await asyncio.gather(*(self._caller(numbers, call) for _ in range(callers)))
        self.took_s = loop.time()
        assert call.endpoints[0].in_flight == 0, "a slot leaked"

    async def _caller(self, numbers: object, call: Call) -> None:
        for _ in numbers:  # type: ignore[attr-defined]
            while True:
                try:
                    await call(Request([]))
                except CallFailed:
                    self.rejected += 1
                else:
                    break

    def _note(self, event: Event) -> None:
        assert isinstance(event, LimitChanged)
        self.changes.append(event)


def _latency(seed: int) -> Callable[[], float]:
    dice = random.Random(seed)  # noqa: S311 - a latency, no secret
    return lambda: dice.lognormvariate(-0.125, 0.5)


def test_it_doubles_up_to_the_most_and_stays() -> None:
    for seed in range(3):
        latency = _latency(seed)
        trial = _Trial(ConcurrencyPolicy())

        async def provider(latency: Callable[[], float] = latency) -> Reply:
            await asyncio.sleep(latency())
            return _REPLY

        trial.run(provider, 5000)
        assert [change.limit for change in trial.changes] == [8, 16, 32, 64, 128, 256, 512, 1000]
        assert trial.windows == [8, 16, 32, 64, 128, 256, 512, 1000]
        assert trial.peak <= 1000


def test_a_provider_that_saturates_at_40_is_found_without_a_single_429() -> None:
    for seed in range(3):
        latency = _latency(seed)
        servers = asyncio.Semaphore(40)
        trial = _Trial(ConcurrencyPolicy())

        async def provider(latency: Callable[[], float] = latency, servers: asyncio.Semaphore = servers) -> Reply:
            async with servers:
                await asyncio.sleep(latency())
            return _REPLY

        trial.run(provider, 20_000)
        assert 30 <= trial.policy.limit <= 80
        assert trial.took_s <= (20_000 / 40) / 0.95


def test_a_cap_on_concurrency_costs_one_cut_an_episode() -> None:
    trial = _Trial(ConcurrencyPolicy())

    async def provider() -> Reply:
        if trial.in_flight > 50:
            await asyncio.sleep(0.05)
            raise _THROTTLE
        await asyncio.sleep(1.0)
        return _REPLY

    trial.run(provider, 20_000)
    cuts = [change for change in trial.changes if change.reason == "throttled"]
    assert all(later.now_s - earlier.now_s >= 10.0 for earlier, later in itertools.pairwise(cuts))
    assert trial.rejected <= 0.01 * trial.requests
    assert trial.took_s <= (20_000 / 50) / 0.8


def test_a_fixed_limit_is_full_at_once_and_never_passed() -> None:
    trial = _Trial(ConcurrencyPolicy(least=100, most=100, limit=100))

    async def provider() -> Reply:
        await asyncio.sleep(1.0)
        return _REPLY

    trial.run(provider, 1000)
    assert trial.peak == 100
    assert trial.took_s == 10.0
    assert trial.changes == []


def test_everybody_waits_out_one_throttle_once() -> None:
    trial = _Trial(ConcurrencyPolicy(least=20, most=20, limit=20))
    sent_s: list[float] = []

    async def provider() -> Reply:
        loop = asyncio.get_running_loop()
        sent_s.append(loop.time())
        await asyncio.sleep(0.1 + 0.01 * (len(sent_s) % 7))
        if len(sent_s) <= 20:
            raise CallFailed(Failure(Kind.THROTTLE, "slow down", retry_after_s=300.0))
        return _REPLY

    trial.run(provider, 200)
    assert trial.rejected == 20
    assert all(moment == 0.0 or moment >= 300.0 for moment in sent_s)
    assert trial.took_s < 315.0


def test_without_a_time_the_pause_doubles_until_an_answer() -> None:
    pause = PausePolicy()
    waits = []
    now_s = 0.0
    for _ in range(8):
        pause.throttled(None, sent_s=now_s, now_s=now_s + 0.1)
        waits.append(pause.until_s - now_s - 0.1)
        now_s = pause.until_s
    assert [round(wait) for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60]
    pause.answered()
    pause.throttled(None, sent_s=now_s, now_s=now_s)
    assert round(pause.until_s - now_s) == 1


def test_a_late_report_of_the_same_throttle_starts_no_second_pause() -> None:
    pause = PausePolicy()
    pause.throttled(None, sent_s=0.0, now_s=0.5)
    until_s = pause.until_s
    pause.throttled(None, sent_s=0.4, now_s=1.4)
    assert pause.until_s == until_s


def test_faults_hold_growth_back_and_cut_nothing() -> None:
    policy = ConcurrencyPolicy()
    policy.faulted(0.0)
    for step in range(200):
        policy.answered(policy.limit, 0.01 * step)
    assert policy.limit == 4
    for step in range(200):
        policy.answered(policy.limit, 6.0 + 0.01 * step)
    assert policy.limit > 4


def test_an_unused_limit_does_not_grow() -> None:
    policy = ConcurrencyPolicy()
    for step in range(1000):
        policy.answered(1, 0.1 * step)
    assert policy.limit == 4


def test_this_machines_own_limit_is_what_it_carried_however_many_find_out_and_whatever_is_asked_for() -> None:
    policy = ConcurrencyPolicy(least=100, limit=100)
    for in_flight in range(100, 17, -1):
        assert policy.ran_out(in_flight) is not None
    assert policy.limit == policy.most == policy.least == 17
    assert policy.ran_out(1) is not None
    assert policy.limit == 1, "there is always one"


def test_a_cancelled_caller_gives_its_place_up() -> None:
    async def main() -> None:
        answers = [asyncio.Event() for _ in range(3)]
        sent = 0

        async def attempt(request: Request) -> Reply:  # noqa: ARG001 - a Call by its shape
            nonlocal sent
            sent += 1
            await answers[sent - 1].wait()
            return _REPLY

        call = provider_of(attempt, concurrency=ConcurrencyPolicy(least=1, most=1, limit=1))
        calls = [asyncio.ensure_future(call(Request([]))) for _ in range(3)]
        await asyncio.sleep(1)
        calls[1].cancel()
        answers[0].set()
        await asyncio.sleep(1)
        assert sent == 2, "the third has the place that the second gave up"
        calls[2].cancel()
        await asyncio.wait(calls)
        assert call.endpoints[0].in_flight == 0

    run_virtual(main())
