"""What a run will cost, said before its first call where money or a cap is at stake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from lcbatch.calls.budget import BudgetPolicy
from lcbatch.choosing import prepare_chain, rehearsed
from lcbatch.errors import LcbatchError
from lcbatch.estimate import Basis, Pricing, RowCost, assumed, calibrated, learned, measured, past_of, row_cost
from lcbatch.events import Notice
from lcbatch.observers.format import count, counted, dollars
from lcbatch.opening import Run
from lcbatch.plan import Plan
from lcbatch.ports import DocumentReader
from lcbatch.records import Row, Usage

T = TypeVar("T")

_HEAD_ROWS = 32
_HEAD_DOCUMENTS = 4
_PAST_ROWS = 200
_PATIENCE_S = 1.0
"""So long the first call may wait for what makes the estimate better: more rows, and how many there are in all."""


def told_first(
    run: Run, rows: AsyncGenerator[Row], read: DocumentReader, counting: asyncio.Task[None] | None
) -> AsyncGenerator[Row]:
    """The same rows. Where money is at stake, a Notice of what they will cost goes out before the first of them.

    `counting` is the task that counts the input, None where nobody does. Free models wait for nothing.
    """
    return _announced(run, rows, read, counting) if _at_stake(run) else rows


def _at_stake(run: Run) -> bool:
    if not run.models or run.job.display.quiet:
        return False
    if run.budget is not None:
        return True
    served = run.models[0]
    return bool(served.model.price(served.label.partition(":")[2], Usage(1000, 1000)))


async def _announced(
    run: Run, rows: AsyncGenerator[Row], read: DocumentReader, counting: asyncio.Task[None] | None
) -> AsyncGenerator[Row]:
    async with aclosing(_Ahead(rows)) as ahead:
        until_s = await ahead.look()
        if ahead.head:
            head = ahead.head[: _HEAD_DOCUMENTS if ahead.head[0].document is not None else _HEAD_ROWS]
            if (told := await _within(_estimate(run, head, read), until_s)) is not None:
                if counting is not None:
                    await asyncio.wait({counting}, timeout=max(0.0, until_s - _now_s()))
                run.fanout.emit(Notice(_sentence(run, *told)))
        async for row in ahead.rows():
            yield row


class _Ahead:
    """Rows of which the first few are looked at before they are handed on. To be closed; then the rows are, too."""

    def __init__(self, rows: AsyncGenerator[Row]) -> None:
        self.head: list[Row] = []
        self._rows = rows
        self._coming: asyncio.Future[Row | None] | None = None

    async def look(self) -> float:
        """Take rows as long as they come at once; until when there is patience, on the loop's clock."""
        until_s = float("inf")
        while len(self.head) < _HEAD_ROWS:
            self._coming = asyncio.ensure_future(anext(self._rows, None))
            left_s = None if not self.head else max(0.0, until_s - _now_s())
            done, _ = await asyncio.wait({self._coming}, timeout=left_s)
            row = self._coming.result() if done else None
            if row is None:
                break
            if not self.head:
                until_s = _now_s() + _PATIENCE_S
            self.head.append(row)
            self._coming = None
        return until_s

    async def rows(self) -> AsyncGenerator[Row]:
        """All of them, from the first."""
        for row in self.head:
            yield row
        coming, self._coming = self._coming, None
        if coming is not None and (next_row := await coming) is not None:
            yield next_row
        async for row in self._rows:
            yield row

    async def aclose(self) -> None:
        """Give up what is awaited, then close the rows: a generator cannot be closed while it runs."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        await self._rows.aclose()


async def _estimate(run: Run, head: list[Row], read: DocumentReader) -> tuple[RowCost, Basis] | None:
    """What a row like these takes; None where that cannot be told."""
    job, served = run.job, run.models[0]
    try:
        over = rehearsed(prepare_chain(job, run.models))
        past = []
        if run.store.holds_rows:
            past = await asyncio.to_thread(past_of, run.store.path, Plan.identity_of(run.chain), _PAST_ROWS)
        basis = learned(assumed(job, served.model.max_output_tokens), past, served.model.max_output_tokens)
        sample = await measured(head, over, basis.answer_tokens, read)
        basis = await calibrated(basis, past, sample, lambda rows: measured(rows, over, basis.answer_tokens, read))
    except LcbatchError:
        return None  # the run itself says what is wrong
    pricing = Pricing(served.label.partition(":")[2], served.model.price, served.model.max_output_tokens, None)
    cost = row_cost(sample, basis, pricing)
    return (cost, basis) if cost is not None and cost.calls else None


async def _within(work: Awaitable[T], until_s: float) -> T | None:
    """What the work gives, None where that is not there in time."""
    try:
        async with asyncio.timeout_at(until_s):
            return await work
    except TimeoutError:
        return None


def _sentence(run: Run, cost: RowCost, basis: Basis) -> str:
    rows = run.stats.snapshot(run.world.clock()).rows.left
    limit = run.job.run.limit
    rows = limit if rows is None else min(rows, limit if limit is not None else rows)
    assumption = " assumed" if not basis.replies else ""
    tokens = f"{count(round(cost.prompt_tokens))} tokens in, {count(round(cost.answer_tokens))} out{assumption}"
    if cost.usd is None:
        text = f"about {count(round(cost.tokens))} tokens a row ({tokens})"
        whole = "" if rows is None else f", about {count(round(cost.tokens * rows))} for {counted(rows, 'row')}"
    else:
        text = f"about {dollars(cost.usd)} a row ({tokens})"
        whole = "" if rows is None else f", about {dollars(cost.usd * rows)} for {counted(rows, 'row')}"
    return text + whole + (_spent(run.budget) if run.budget is not None else "")


def _spent(budget: BudgetPolicy) -> str:
    """What is left of the caps, in words."""
    parts = []
    if budget.most_usd is not None:
        parts.append(f"{dollars(budget.spent.usd)} of --max-cost ${budget.most_usd:g} spent so far")
    if budget.most_tokens is not None:
        parts.append(f"{count(budget.spent.tokens)} of --max-total-tokens {count(budget.most_tokens)} used so far")
    return "; " + ", ".join(parts)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
