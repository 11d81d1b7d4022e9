"""What a run notes about itself while it works: which gate holds it up, and figures in the store for `lcbatch status`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from lcbatch.calls.waiting import Waiting
from lcbatch.errors import LcbatchError
from lcbatch.events import Gate, Waited
from lcbatch.ports import Clock, Emit, Sleep
from lcbatch.records import Json

_SAMPLE_S = 0.2
_NOTE_S = 5.0
_BUSY = 0.9
"""A loop whose thread computes for so much of the time has none left for more calls."""


@asynccontextmanager
async def sampling(
    waiting: Waiting,
    emit: Emit,
    clock: Clock,
    *,
    sleep: Sleep = asyncio.sleep,
    cpu_s: Callable[[], float] = time.thread_time,
) -> AsyncIterator[None]:
    """Emit what the calls wait for, a few times a second, while inside."""

    async def sample() -> None:
        last_s, last_cpu_s = clock(), cpu_s()
        while True:
            await sleep(_SAMPLE_S)
            now_s, now_cpu_s = clock(), cpu_s()
            busy = now_cpu_s - last_cpu_s >= _BUSY * (now_s - last_s)
            emit(Waited(now_s, Gate.CPU if busy else waiting.binding(), now_s - last_s))
            last_s, last_cpu_s = now_s, now_cpu_s

    async with _task(sample()):
        yield


@asynccontextmanager
async def noting(
    figures: Callable[[], Mapping[str, Json]], note: Callable[[Mapping[str, Json]], Awaitable[None]]
) -> AsyncIterator[None]:
    """Note the run's figures every few seconds, and once more at the end, while inside. A broken store is others' affair."""

    async def often() -> None:
        while True:
            await asyncio.sleep(_NOTE_S)
            await once()

    async def once() -> None:
        try:
            await note(figures())
        except LcbatchError:
            return

    async with _task(often()):
        yield
    await once()


@asynccontextmanager
async def _task(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
