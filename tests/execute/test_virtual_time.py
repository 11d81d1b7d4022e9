"""The loop that jumps: time costs nothing, and a wait that nothing can end is an error."""

from __future__ import annotations

import asyncio

import pytest

from lcbatch.testing import run_virtual


def test_an_hour_passes_at_once_and_in_order() -> None:
    order = []

    async def after(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        order.append((delay_s, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(after(3600), after(1), after(60.5))

    run_virtual(main())
    assert order == [(1, 1), (60.5, 60.5), (3600, 3600)]


def test_a_wait_that_nothing_can_end_is_an_error() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        run_virtual(main())
