"""The product in one loop: rows through the executor, outcomes into the store, the store into the sinks.

It flows one way. The loop only puts; sinks advance by reading the store after their own position, so that ordered output,
reused rows, rebuilds and pipes are one mechanism.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from lcbatch.errors import LcbatchError
from lcbatch.events import RowsFinished
from lcbatch.execute.shutdown import Shutdown
from lcbatch.ports import Clock, Emit, Executor, Work
from lcbatch.records import Outcome, Row
from lcbatch.rules import StopRules
from lcbatch.sinks.projector import Projector
from lcbatch.store.run_store import RunStore

_MOST_LAG = 2000
"""Outcomes that a slow reader of our output may be behind before rows are held up."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of; all of it is open."""

    executor: Executor
    work: Work
    store: RunStore
    projectors: Sequence[Projector]
    rules: StopRules
    shutdown: Shutdown
    clock: Clock
    emit: Emit


async def run(parts: Parts, rows: AsyncIterator[Row]) -> None:
    """Run the rows to their end, or to a stop. Afterwards `parts.shutdown.reason` says why, if it was one."""
    async with parts.executor.run(rows, parts.work) as finished:
        async for outcomes in finished:
            await _settle(parts, parts.rules.judge(outcomes))
            if parts.rules.stop is not None and parts.shutdown.reason is None:
                parts.shutdown.request(parts.rules.stop)
            del outcomes  # the next may be long in coming, and these may hold rows of 50 MB
    await _settle(parts, parts.rules.rest())


async def _settle(parts: Parts, outcomes: Sequence[Outcome]) -> None:
    """Commit, then tell. Once the store is broken, what still comes lands in its reserve, and nobody is told."""
    if not outcomes:
        return
    try:
        shared = await parts.store.put(outcomes)
        parts.emit(RowsFinished(parts.clock(), tuple(outcomes)))
        count = shared.reused + sum(shared.failed.values())
        if count:
            parts.emit(shared)
        for projector in parts.projectors:
            projector.wake(len(outcomes) + count)
        for projector in parts.projectors:
            await projector.caught_up(_MOST_LAG)
    except LcbatchError as error:
        parts.shutdown.request(error)
