"""What the tests of the call stack share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lcbatch.calls.breaker import BreakerPolicy
from lcbatch.calls.concurrency import ConcurrencyPolicy
from lcbatch.calls.provider import Endpoint, Provider
from lcbatch.calls.rate import RateLimits
from lcbatch.calls.waiting import Waiting, unhurried
from lcbatch.ports import Call, Emit
from lcbatch.records import Reply, Row
from lcbatch.testing import MemoryReplies


class LateReplies(MemoryReplies):
    """Commits what it is given a minute later."""

    def keep_reply(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(60.0, super().keep_reply, row, key, reply, kept)

    async def all_kept(self) -> None:
        await asyncio.sleep(60.0)


def provider_of(  # noqa: PLR0913 - whatever a test wants to vary
    *calls: Call,
    concurrency: ConcurrencyPolicy | Callable[[], ConcurrencyPolicy] = ConcurrencyPolicy,
    breaker: BreakerPolicy | None = None,
    limits: RateLimits | None = None,
    emit: Emit = lambda _: None,
    resize: Callable[[int], None] = lambda _: None,
    most: int = 100_000,
    hands_on: bool = False,
    waiting: Waiting | None = None,
) -> Provider:
    """A provider whose endpoints make these calls, on the clock of the running loop."""
    endpoints = [
        Endpoint(
            call,
            concurrency() if callable(concurrency) else concurrency,
            breaker or BreakerPolicy(hopeful=False),
            limits or RateLimits(rpm=None, tpm=None),
            f"http://{index}",
        )
        for index, call in enumerate(calls)
    ]
    provider = Provider(
        endpoints,
        most=most,
        clock=asyncio.get_running_loop().time,
        emit=emit,
        resize=resize,
        wait=unhurried,
        hands_on=hands_on,
    )
    if waiting is not None:
        waiting.watch(provider.held_up_by)
    return provider
