"""What is said before the first call: it holds rows up for a second at most, and loses none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from lcbatch.execute.virtual_time import run_virtual
from lcbatch.outlay import _Ahead
from lcbatch.records import Row
from lcbatch.testing import make_row


async def _slowly(count: int, pause_s: float, closed: list[bool]) -> AsyncGenerator[Row]:
    try:
        for ordinal in range(count):
            await asyncio.sleep(pause_s)
            yield make_row(ordinal)
    finally:
        closed.append(True)


async def _read(count: int, pause_s: float, *, take: int | None = None) -> tuple[list[int], float, int, list[bool]]:
    """(rows in the order in which they came, when the first was handed on, how many were looked at before, closed)."""
    closed: list[bool] = []
    ahead = _Ahead(_slowly(count, pause_s, closed))
    await ahead.look()
    first_s, looked_at = asyncio.get_running_loop().time(), len(ahead.head)
    seen: list[int] = []
    async for row in ahead.rows():
        seen.append(row.ordinal)
        if len(seen) == take:
            break
    await ahead.aclose()
    return seen, first_s, looked_at, closed


def test_rows_that_are_there_are_looked_at_and_all_handed_on() -> None:
    assert run_virtual(_read(100, 0.0)) == (list(range(100)), 0.0, 32, [True])


def test_a_slow_pipe_is_waited_for_a_second_from_its_first_row() -> None:
    seen, first_s, looked_at, _ = run_virtual(_read(5, 10.0))
    assert (seen, looked_at) == (list(range(5)), 1)
    assert first_s == 11.0


def test_no_rows_at_all() -> None:
    assert run_virtual(_read(0, 1.0)) == ([], 0.0, 0, [True])


def test_a_run_that_ends_early_closes_the_rows() -> None:
    seen, _, _, closed = run_virtual(_read(5, 10.0, take=1))
    assert (seen, closed) == ([0], [True])


def test_closing_gives_up_a_row_that_is_awaited() -> None:
    async def look_and_leave() -> list[bool]:
        closed: list[bool] = []
        ahead = _Ahead(_slowly(5, 10.0, closed))
        await ahead.look()
        await ahead.aclose()
        return closed

    assert run_virtual(look_and_leave()) == [True]
