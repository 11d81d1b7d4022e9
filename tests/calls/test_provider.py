"""One queue over several endpoints, in virtual time: what is down or throttled does not slow the rest."""

from __future__ import annotations

import asyncio
import random

import pytest

from lcbatch.calls.breaker import BreakerPolicy
from lcbatch.calls.concurrency import ConcurrencyPolicy
from lcbatch.calls.fallback import fallback
from lcbatch.calls.provider import Endpoint, Provider
from lcbatch.calls.rate import RateLimits
from lcbatch.calls.retry import RetryPolicy, retry
from lcbatch.calls.waiting import Waiting, unhurried
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Event, Gate, Notice
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Call
from lcbatch.records import Reply, Request
from tests.calls.support import provider_of

_LATENCY_S = 1.0


class _Server:
    """Answers in a second as many calls as its slots and its rate allow; `down` from one moment to another."""

    def __init__(
        self,
        name: str,
        *,
        slots: int = 1000,
        rpm: float | None = None,
        down: tuple[float, float] = (0.0, 0.0),
        says: Failure | None = None,
    ) -> None:
        self.name = name
        self.answered_s: list[float] = []
        self.sent = 0
        self._slots = asyncio.Semaphore(slots)
        self._rpm = rpm
        self._next_s = 0.0
        self._down = down
        self._says = says

    async def __call__(self, request: Request) -> Reply:  # noqa: ARG002 - a Call by its shape
        loop = asyncio.get_running_loop()
        self.sent += 1
        await asyncio.sleep(0.01)
        if self._says is not None:
            raise CallFailed(self._says)
        if self._down[0] <= loop.time() < self._down[1]:
            raise CallFailed(Failure(Kind.CONNECTION, "refused"))
        if self._rpm is not None:
            if loop.time() < self._next_s:
                raise CallFailed(Failure(Kind.THROTTLE, "slow", retry_after_s=self._next_s - loop.time(), status=429))
            self._next_s = loop.time() + 60.0 / self._rpm
        async with self._slots:
            await asyncio.sleep(_LATENCY_S - 0.01)
        self.answered_s.append(loop.time())
        return Reply(self.name, {}, "m")


def _patient(call: Call) -> Call:
    dice = random.Random(5)  # noqa: S311 - jitter
    loop = asyncio.get_running_loop()
    policy = RetryPolicy(uniform=dice.uniform)
    return retry(policy, clock=loop.time, sleep=asyncio.sleep, emit=lambda _: None, waiting=Waiting())(call)


async def _all(call: Call, rows: int, callers: int) -> list[str | Failure]:
    numbers = iter(range(rows))
    ended: list[str | Failure] = []

    async def caller() -> None:
        for _ in numbers:
            try:
                ended.append((await call(Request([]))).text)
            except CallFailed as error:
                ended.append(error.failure)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return ended


def test_one_throttled_and_one_down_leave_the_healthy_one_its_throughput() -> None:
    async def main() -> None:
        healthy, throttled = _Server("healthy"), _Server("throttled", rpm=60)
        down = _Server("down", down=(0.0, 1e9))
        call = provider_of(healthy, throttled, down, concurrency=lambda: ConcurrencyPolicy(most=20), most=1000)
        ended = await _all(_patient(call), 12_000, 80)
        took_s = asyncio.get_running_loop().time()
        best_per_s = 20 / _LATENCY_S + 60 / 60
        assert all(isinstance(outcome, str) for outcome in ended)
        assert 12_000 / took_s >= 0.95 * best_per_s
        assert len(throttled.answered_s) >= 0.95 * took_s * 60 / 60

    run_virtual(main())


def test_an_endpoint_that_goes_down_in_mid_run_is_used_again_when_it_is_back() -> None:
    async def main() -> None:
        one, two = _Server("one"), _Server("two", down=(100.0, 400.0))
        said: list[Event] = []
        call = provider_of(
            one, two, concurrency=lambda: ConcurrencyPolicy(least=10, most=10, limit=10), emit=said.append
        )
        ended = await _all(_patient(call), 8_000, 60)
        assert all(isinstance(outcome, str) for outcome in ended)
        assert sum(300.0 <= moment < 400.0 for moment in one.answered_s) >= 0.95 * 10 * 100
        assert sum(450.0 <= moment < 500.0 for moment in two.answered_s) >= 0.95 * 10 * 50
        notices = [event.text for event in said if isinstance(event, Notice)]
        assert len(notices) == 2
        assert "http://1 is down" in notices[0]
        assert "its calls go elsewhere" in notices[0]

    run_virtual(main())


@pytest.mark.parametrize("kind", [Kind.AUTH, Kind.QUOTA, Kind.NOT_FOUND])
def test_an_endpoint_that_refuses_for_good_is_left_out(kind: Kind) -> None:
    async def main() -> None:
        good, bad = _Server("good"), _Server("bad", says=Failure(kind, "no", status=401))
        said: list[Event] = []
        call = _patient(provider_of(good, bad, emit=said.append))
        assert set(await _all(call, 100, 10)) == {"good"}
        assert bad.sent <= 4
        assert [event.text for event in said if isinstance(event, Notice)] == [f"http://1 is left out: {kind}: no"]

    run_virtual(main())


def test_when_all_refuse_that_is_the_verdict() -> None:
    async def main() -> None:
        servers = [_Server("bad", says=Failure(Kind.AUTH, f"no {number}", status=401)) for number in range(3)]
        ended = await _all(_patient(provider_of(*servers)), 50, 10)
        assert {outcome.kind for outcome in ended if isinstance(outcome, Failure)} == {Kind.AUTH}
        assert len(ended) == 50
        assert sum(server.sent for server in servers) <= 12

    run_virtual(main())


def test_all_together_no_more_than_the_most() -> None:
    async def main() -> None:
        servers = [_Server(str(number)) for number in range(3)]
        call = provider_of(*servers, concurrency=lambda: ConcurrencyPolicy(least=10, most=10, limit=10), most=10)
        await _all(call, 300, 60)
        assert asyncio.get_running_loop().time() == pytest.approx(30 * _LATENCY_S)
        assert min(server.sent for server in servers) >= 90, "they take turns"

    run_virtual(main())


def test_a_provider_in_an_outage_hands_its_calls_on_and_gets_them_back() -> None:
    async def main() -> None:
        first, second = _Server("first", down=(100.0, 400.0)), _Server("second")
        said: list[Event] = []

        def policy() -> ConcurrencyPolicy:
            return ConcurrencyPolicy(least=10, most=10, limit=10)

        models = [
            ("a:first", _patient(provider_of(first, concurrency=policy, emit=said.append, hands_on=True))),
            ("b:second", _patient(provider_of(second, concurrency=policy, emit=said.append))),
        ]
        ended = await _all(fallback(models, said.append), 6_000, 10)
        assert all(isinstance(outcome, str) for outcome in ended)
        assert asyncio.get_running_loop().time() <= 1.05 * 600
        assert sum(450.0 <= moment < 550.0 for moment in first.answered_s) >= 0.95 * 10 * 100
        assert sum(isinstance(event, Notice) and "b:second takes" in event.text for event in said) + 1 >= 2

    run_virtual(main())


@pytest.mark.parametrize(
    ("kind", "goes_on"),
    [
        (Kind.CONTEXT_LENGTH, True),
        (Kind.CONTENT_FILTER, True),
        (Kind.QUOTA, True),
        (Kind.INVALID_REQUEST, False),
        (Kind.AUTH, False),
        (Kind.NOT_FOUND, False),
    ],
)
def test_what_another_model_is_asked_for(kind: Kind, goes_on: bool) -> None:  # noqa: FBT001 - a table
    async def main() -> None:
        first, second = _Server("first", says=Failure(kind, "no", status=400)), _Server("second")
        call = fallback([("a:first", _patient(provider_of(first))), ("b:second", second)], lambda _: None)
        ended = await _all(call, 10, 1)
        assert ended == (["second"] * 10 if goes_on else [Failure(kind, "no", status=400)] * 10)
        assert first.sent == (1 if kind in {Kind.QUOTA, Kind.AUTH, Kind.NOT_FOUND} else 10)

    run_virtual(main())


def test_the_users_own_budget_is_not_handed_on() -> None:
    async def main() -> None:
        spent = _Server("first", says=Failure(Kind.QUOTA, "--max-cost", budget=True))
        second = _Server("second")
        call = fallback([("a:first", _patient(provider_of(spent))), ("b:second", second)], lambda _: None)
        assert await _all(call, 1, 1) == [Failure(Kind.QUOTA, "--max-cost", budget=True)]
        assert second.sent == 0

    run_virtual(main())


def test_what_calls_wait_for_is_known() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = Waiting()
        server = _Server("one", down=(10.0, 20.0))
        endpoint = Endpoint(
            server,
            ConcurrencyPolicy(least=2, most=2, limit=2),
            BreakerPolicy(hopeful=True),
            RateLimits(rpm=None, tpm=None),
        )
        call = Provider([endpoint], most=2, clock=loop.time, emit=lambda _: None, resize=lambda _: None, wait=unhurried)
        waiting.watch(call.held_up_by)
        assert waiting.binding() is None
        rows = asyncio.ensure_future(_all(_patient(call), 40, 4))
        await asyncio.sleep(5.5)
        assert waiting.binding() is Gate.CONCURRENCY
        await asyncio.sleep(10.0)
        assert waiting.binding() is Gate.OUTAGE
        endpoint.pause.throttled(30.0, sent_s=loop.time(), now_s=loop.time())
        assert waiting.binding() is Gate.PAUSE
        await rows
        assert waiting.binding() is None

    run_virtual(main())
