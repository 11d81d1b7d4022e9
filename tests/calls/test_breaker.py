"""Outages in virtual time: rows wait, probes are few, and a wrong address is said at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from lcbatch.calls.breaker import BreakerPolicy
from lcbatch.calls.concurrency import ConcurrencyPolicy
from lcbatch.calls.provider import ProviderDown
from lcbatch.calls.retry import RetryPolicy, retry
from lcbatch.calls.waiting import Waiting
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Event, Notice
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Call
from lcbatch.records import Reply, Request
from tests.calls.support import provider_of

_REPLY = Reply("x", {}, "m")


class _Provider:
    """Answers in about a second, but for the times when it is down or the share of calls that it fails."""

    def __init__(
        self, *, down: tuple[float, float] = (0.0, 0.0), share: float = 0.0, kind: Kind = Kind.CONNECTION
    ) -> None:
        self.sent_s: list[float] = []
        self.answered_s: list[float] = []
        self._down = down
        self._share = share
        self._kind = kind
        self._dice = random.Random(11)  # noqa: S311 - latencies

    async def __call__(self, request: Request) -> Reply:  # noqa: ARG002 - a Call by its shape
        loop = asyncio.get_running_loop()
        self.sent_s.append(loop.time())
        if self._down[0] <= loop.time() < self._down[1] or self._dice.random() < self._share:
            await asyncio.sleep(0.01)
            raise CallFailed(Failure(self._kind, "no", status=None if self._kind is Kind.CONNECTION else 500))
        await asyncio.sleep(self._dice.lognormvariate(-0.125, 0.5))
        self.answered_s.append(loop.time())
        return _REPLY


def _stack(provider: Call, policy: BreakerPolicy, said: list[Event]) -> Call:
    loop = asyncio.get_running_loop()
    dice = random.Random(5)  # noqa: S311 - jitter
    again = retry(
        RetryPolicy(uniform=dice.uniform), clock=loop.time, sleep=asyncio.sleep, emit=lambda _: None, waiting=Waiting()
    )
    return again(provider_of(provider, concurrency=ConcurrencyPolicy(most=40), breaker=policy, emit=said.append))


async def _rows(call: Call, rows: int, callers: int) -> list[Failure]:
    """Run so many rows; the failures."""
    numbers = iter(range(rows))
    failures: list[Failure] = []

    async def caller() -> None:
        for number in numbers:
            try:
                await call(Request([{"role": "user", "content": str(number)}]))
            except CallFailed as error:
                failures.append(error.failure)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return failures


@pytest.mark.parametrize("kind", [Kind.CONNECTION, Kind.SERVER])
@pytest.mark.parametrize("callers", [1, 80])
def test_ten_minutes_down_fail_no_row_and_cost_few_probes(kind: Kind, callers: int) -> None:
    async def main() -> None:
        provider = _Provider(down=(300.0, 900.0), kind=kind)
        said: list[Event] = []
        call = _stack(provider, BreakerPolicy(hopeful=False), said)
        assert await _rows(call, 600 * callers, callers) == []
        probes = [moment for moment in provider.sent_s if 310.0 <= moment < 900.0]
        assert 8 <= len(probes) <= 60
        before = sum(200.0 <= moment < 300.0 for moment in provider.answered_s)
        after = sum(960.0 <= moment < 1060.0 for moment in provider.answered_s)
        assert after >= 0.8 * before
        assert [type(event) for event in said if isinstance(event, Notice)] == [Notice, Notice]

    run_virtual(main())


def test_a_third_of_all_calls_failing_costs_retries_and_no_row() -> None:
    async def main() -> None:
        provider = _Provider(share=0.3, kind=Kind.SERVER)
        failures = await _rows(_stack(provider, BreakerPolicy(hopeful=False), []), 3000, 80)
        assert len(provider.sent_s) <= 1.6 * 3000
        assert len(failures) <= 0.005 * 3000

    run_virtual(main())


@pytest.mark.parametrize("kind", [Kind.CONNECTION, Kind.BAD_BODY])
def test_a_wrong_address_is_said_after_the_first_tries(kind: Kind) -> None:
    async def main() -> None:
        provider = _Provider(share=1.0, kind=kind)
        failures = await _rows(_stack(provider, BreakerPolicy(hopeful=False), []), 100, 40)
        assert len(provider.sent_s) <= 4
        assert {failure.kind for failure in failures} == {kind}
        assert asyncio.get_running_loop().time() < 10.0

    run_virtual(main())


class _Odd:
    """Sends what is no answer for the text `bad`, and answers all others."""

    def __init__(self, *, page: bool = False) -> None:
        self.asked: list[str] = []
        self._page = page

    async def __call__(self, request: Request) -> Reply:
        self.asked.append(request.messages[0]["content"])
        if self.asked[-1].startswith("bad"):
            raise CallFailed(Failure(Kind.BAD_BODY, "its choices are empty", maybe_paid=True, page=self._page))
        return _REPLY


@pytest.mark.parametrize("hopeful", [False, True])
@pytest.mark.parametrize("page", [False, True])
def test_a_row_that_alone_draws_bad_bodies_fails_alone(*, hopeful: bool, page: bool) -> None:
    async def main() -> None:
        provider = _Odd(page=page)
        call = _stack(provider, BreakerPolicy(hopeful=hopeful), [])
        for text in ("bad", "a", "b"):
            request = Request([{"role": "user", "content": text}])
            if text != "bad":
                assert await call(request) == _REPLY
                continue
            with pytest.raises(CallFailed) as raised:
                await call(request)
            assert not raised.value.failure.outage
        assert provider.asked == ["bad", "bad", "a", "b"]
        assert asyncio.get_running_loop().time() < 10.0

    run_virtual(main())


@pytest.mark.parametrize(("page", "outage"), [(True, [False, True]), (False, [False, False])])
def test_who_has_answered_before_is_another_only_when_pages_come(*, page: bool, outage: list[bool]) -> None:
    async def main() -> None:
        call = _stack(_Odd(page=page), BreakerPolicy(hopeful=True), [])
        found = []
        for text in ("bad 1", "bad 2"):
            with pytest.raises(CallFailed) as raised:
                await call(Request([{"role": "user", "content": text}]))
            found.append(raised.value.failure.outage)
        assert found == outage

    run_virtual(main())


def test_an_outage_without_end_is_given_up() -> None:
    async def main() -> None:
        provider = _Provider(down=(60.0, 1e9))
        call = _stack(provider, BreakerPolicy(hopeful=True, outage_timeout_s=1800.0), [])
        failures = await _rows(call, 4000, 20)
        assert failures
        assert 1800.0 <= asyncio.get_running_loop().time() < 2000.0

    run_virtual(main())


def test_giving_up_is_final() -> None:
    policy = BreakerPolicy(hopeful=False)
    for _ in range(3):
        policy.faulted(Failure(Kind.CONNECTION, "refused"), 0.0)

    async def main() -> None:
        with pytest.raises(ProviderDown):
            await provider_of(provider, breaker=policy)(Request([]))
        assert len(provider.sent_s) == 0

    provider = _Provider()
    run_virtual(main())
