"""Timeouts in virtual time: they know a standstill from slowness, and waiting for a turn from work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from lcbatch.errors import CallFailed, Kind
from lcbatch.execute.deadlines import Deadlines, RowTimeout, sleeping
from lcbatch.execute.virtual_time import VirtualTimeLoop, run_virtual


async def _wait(awaitable: Awaitable[Any]) -> None:
    await awaitable


def _stand_still(seconds: float) -> None:
    """What SIGSTOP does: the clock goes on, and nothing runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop._jumping.now_s += seconds


async def _sleep_within(deadlines: Deadlines, limit_s: float, seconds: float) -> None:
    async with deadlines.within(limit_s):
        await asyncio.sleep(seconds)


def test_a_timeout_ends_a_block() -> None:
    async def main() -> float:
        deadlines = Deadlines()
        with deadlines.beating(), pytest.raises(TimeoutError):
            await _sleep_within(deadlines, 10.0, 11.0)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 10.0


@pytest.mark.parametrize("calls", [1, 500])
def test_ten_minutes_stopped_are_no_timeout(calls: int) -> None:
    async def main() -> None:
        deadlines = Deadlines()
        loop = asyncio.get_running_loop()

        with deadlines.beating():
            loop.call_later(7.3, _stand_still, 600.0)
            await asyncio.gather(*(_sleep_within(deadlines, 60.0, 30.0 + number % 20) for number in range(calls)))

    run_virtual(main())


def test_what_was_slow_before_times_out_after_a_standstill_too() -> None:
    async def main() -> float:
        deadlines = Deadlines()
        loop = asyncio.get_running_loop()
        loop.call_later(5.0, _stand_still, 600.0)
        with deadlines.beating(), pytest.raises(TimeoutError):
            await _sleep_within(deadlines, 60.0, 3600.0)
        return loop.time()

    assert 655.0 <= run_virtual(main()) <= 661.0


def test_a_row_is_bounded_but_for_its_waiting() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        row_timeout = RowTimeout(10.0, deadlines)
        turn = sleeping(row_timeout.waiting(_wait))

        async with row_timeout.row():
            await asyncio.sleep(6.0)
            await turn(3600.0)
            await asyncio.gather(turn(100.0), turn(200.0))
            await asyncio.sleep(3.0)

        async def too_long() -> None:
            async with row_timeout.row():
                await asyncio.sleep(6.0)
                await turn(3600.0)
                await asyncio.sleep(5.0)

        with pytest.raises(CallFailed) as caught:
            await too_long()
        assert caught.value.failure.kind is Kind.TIMEOUT
        assert "--row-timeout 10 s" in caught.value.failure.message

    run_virtual(main())


def test_a_chains_own_timeout_is_its_own() -> None:
    async def main() -> None:
        row_timeout = RowTimeout(10.0, Deadlines())
        with pytest.raises(TimeoutError):
            async with row_timeout.row():
                raise TimeoutError("mine")

    run_virtual(main())


def test_without_a_limit_nothing_is_bounded() -> None:
    async def main() -> None:
        row_timeout = RowTimeout(None, Deadlines())
        assert row_timeout.waiting(_wait) is _wait
        async with row_timeout.row():
            await asyncio.sleep(1e6)

    run_virtual(main())
