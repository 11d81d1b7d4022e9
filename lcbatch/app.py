"""Opens everything a run needs on one exit stack, runs it, and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from lcbatch import pipeline
from lcbatch.bounds import bounds_of, model_name
from lcbatch.calls.budget import Spend
from lcbatch.choosing import pieces_of
from lcbatch.ending import cleared_away, continue_with, failed_rows, noted
from lcbatch.errors import LcbatchError, TimeIsUp, UsageError, exit_code_of
from lcbatch.events import InputSize, RunFinished, RunStarted
from lcbatch.execute.shutdown import on_time
from lcbatch.job import Job
from lcbatch.observers.fanout import Fanout
from lcbatch.observers.figures import Snapshot
from lcbatch.observers.summary import summary_json
from lcbatch.opening import Run, open_run, text_reader, whole_source_of
from lcbatch.outlay import told_first
from lcbatch.plan import Plan
from lcbatch.projecting import bring_up_to_date, projecting
from lcbatch.records import Json, Row
from lcbatch.retrying import Retry, requeued
from lcbatch.rules import StopRules, check_fail_on, check_max_failures
from lcbatch.sinks import Projector
from lcbatch.sources.rows import printable
from lcbatch.watching import noting, sampling
from lcbatch.wiring import traced
from lcbatch.work import make_work
from lcbatch.world import World, typed, working_folder

__all__ = ["Report", "Retry", "run_job"]


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended: its figures, its exit code, and the error that ended it (None: every row is done).

    `store_failed` says that the store could not be written: the process has to leave without closing anything.
    """

    snapshot: Snapshot
    exit_code: int
    error: LcbatchError | None
    errors_path: Path | None
    store_path: Path
    store_failed: bool


async def run_job(job: Job, world: World, retry: Retry | None = None) -> Report:
    """Run a job to its end, whatever that is. Raises LcbatchError for what was wrong before anything was touched."""
    if job.run.dry_run:
        raise UsageError("this would make calls, and dry_run asks for none", hint="use lcbatch.dry_run.dry_run")
    check_fail_on(job.run.fail_on)
    check_max_failures(job.run.max_failures)
    async with AsyncExitStack() as stack:
        run = await open_run(
            job, world, stack, from_store=retry is not None, row_model=retry.row_model if retry else None
        )
        await stack.enter_async_context(displays(run.fanout))
        async with run.shutdown.listening() if world.handles_signals else nullcontext():
            error = await _to_its_end(run, retry)
        error = await noted(run, error, exit_code_of(error) if error else 0)
        exit_code = exit_code_of(error) if error else 0
        go_on = continue_with(run, exit_code, nothing=await cleared_away(run, error))
        return finished(run, error, go_on)


def finished(run: Run, error: LcbatchError | None, go_on: str) -> Report:
    """Tell who is watching that the run is over, and how; `go_on` is the command that goes on from here."""
    exit_code = exit_code_of(error) if error else 0
    run.fanout.emit(RunFinished(run.world.clock(), exit_code, error.message if error else "", go_on))
    return Report(
        snapshot=run.stats.snapshot(run.world.clock()),
        exit_code=exit_code,
        error=error,
        errors_path=run.place.errors,
        store_path=run.place.store,
        store_failed=run.store.failed,
    )


@asynccontextmanager
async def displays(fanout: Fanout) -> AsyncIterator[None]:
    """While inside, what is shown follows the clock too."""
    timers = asyncio.create_task(fanout.run())
    try:
        yield
    finally:
        timers.cancel()
        await asyncio.gather(timers, return_exceptions=True)


async def _to_its_end(run: Run, retry: Retry | None) -> LcbatchError | None:
    """Plan, run, and bring the outputs up to date; the error that ended the run."""
    try:
        rows = await _plan(run, retry)
        await _begin(run, retry)
        async with AsyncExitStack() as stack:
            projectors = [await stack.enter_async_context(projecting(run, sink)) for sink in run.sinks]
            await _run_rows(run, rows, projectors)
            await bring_up_to_date(run, projectors)
    except LcbatchError as error:
        return run.shutdown.reason or error
    return run.shutdown.reason or run.damaged or await failed_rows(run)


async def _plan(run: Run, retry: Retry | None) -> AsyncGenerator[Row]:
    """The rows to run. On a store that holds rows the whole input is placed first, or refused untouched."""
    if run.source is None:
        return await requeued(run, retry or Retry())
    plan = Plan(
        job=run.job,
        store=run.store,
        chain=run.chain,
        source=run.source,
        emit=run.fanout.emit,
        stop_reason=lambda: run.shutdown.reason,
        lenient=run.place.is_temporary,
    )
    if not (run.source.rereadable and run.store.holds_rows):
        await plan.adopt_chain()
        return _completing(run, plan)
    await run.store.hold()
    try:
        await plan.adopt_chain()
        await plan.place_everything()
    except BaseException:
        await run.store.release(commit=False)
        raise
    await run.store.release(commit=True)
    return _completing(run, plan)


async def _completing(run: Run, plan: Plan) -> AsyncGenerator[Row]:
    """The plan's rows; notes whether they were all of them. What is wrong with the input stops the run in order.

    What could not be read of it does not: the rows that could are done first.
    """
    try:
        async with aclosing(plan.rows()) as rows:
            async for row in rows:
                yield row
        run.complete, run.damaged = plan.exhausted, plan.damaged
    except LcbatchError as error:
        run.shutdown.request(error)


async def _begin(run: Run, retry: Retry | None) -> None:
    """Note the run, and tell who is watching."""
    job = run.job
    described: dict[str, Json] = {"task": job.task, "inputs": list(job.inputs), "options": job.options()}
    described["cwd"] = str(working_folder())
    if retry is not None and retry.origin is not None:
        described["origin"] = retry.origin
    await run.store.begin_run(typed(run.world.command), described, in_flight=bounds_of(job).answers)
    run.begun = True
    run.world.when_begun(bounds_of(job).most)
    output = printable(job.output.output or "-")
    run.fanout.emit(RunStarted(run.world.clock(), job.task, run.label, output, bounds_of(job).start))


async def _run_rows(run: Run, rows: AsyncGenerator[Row], projectors: list[Projector]) -> None:
    job, world = run.job, run.world
    rules = StopRules(
        model=run.models[0].label if run.models else "the model",
        max_failures=job.run.max_failures,
        hopeful=await run.store.ever_succeeded(),
        row_models=model_name(job) is None or job.chain.chain is not None,
        own_chain=job.chain.chain is not None,
    )
    async with AsyncExitStack() as stack:
        counting = None
        if run.source is not None and run.source.rereadable and not run.store.holds_rows:
            enough = asyncio.Event()
            counting = asyncio.create_task(_count(run, enough))
            stack.push_async_callback(_cut_short, counting, enough)
        bound = await stack.enter_async_context(
            traced(world.env, world.clock, run.fanout.emit, run.engine.row_timeout.row)
        )
        await stack.enter_async_context(run.govern())
        stack.enter_context(run.engine.deadlines.beating())
        await stack.enter_async_context(sampling(run.engine.waiting, run.fanout.emit, world.clock))
        await stack.enter_async_context(noting(lambda: _figures(run), run.store.note_figures))
        read = await stack.enter_async_context(text_reader(job))
        if job.run.max_time is not None:
            error = TimeIsUp("--max-time has passed", hint="run the same command again to continue")
            stack.callback(on_time(run.shutdown, job.run.max_time, lambda: error, asyncio.sleep).cancel)
        engine = run.engine
        parts = pipeline.Parts(
            executor=engine.executor,
            work=make_work(run.chain, read, world.clock, engine.patience.settled, bound),
            store=run.store,
            projectors=projectors,
            rules=rules,
            shutdown=run.shutdown,
            clock=world.clock,
            emit=run.fanout.emit,
        )
        async with aclosing(_to_the_last(run, told_first(run, rows, read, counting))) as told:
            await pipeline.run(parts, told)


async def _to_the_last(run: Run, rows: AsyncGenerator[Row]) -> AsyncGenerator[Row]:
    """The same rows; after the last of them no batch waits for another."""
    async with aclosing(rows):
        async for row in rows:
            yield row
    if run.batching is not None:
        run.batching.no_more()


def _figures(run: Run) -> Mapping[str, Json]:
    """What the store keeps of a run: its figures, the limits that it learned, and what was perhaps billed in vain."""
    uncertain = run.budget.uncertain if run.budget else Spend()
    return {
        **summary_json(run.stats.snapshot(run.world.clock())),
        "limits": {label: limits.known() for label, limits in run.limits.items()},
        "uncertain": {"usd": uncertain.usd, "tokens": uncertain.tokens},
    }


async def _cut_short(counting: asyncio.Task[None], enough: asyncio.Event) -> None:
    """Let it end with the batch that it is at: cancelled while a thread opens a file, it would leave that open."""
    enough.set()
    await asyncio.gather(counting, return_exceptions=True)


_COUNTED_BYTES = 4 * 1024 * 1024


async def _count(run: Run, enough: asyncio.Event) -> None:
    """How many rows there will be, for whoever watches: the input read once more, for its number alone.

    Where documents are cut into rows, their number is known only when each has been read: that is not done twice. A row beyond
    `_COUNTED_BYTES` is one that could not be read, which is a row as well: it must not stand in memory twice over for its number.
    """
    rows, in_pieces = 0, pieces_of(run.job) is not None
    given = run.job.input
    job = replace(run.job, input=replace(given, max_row_bytes=min(given.max_row_bytes, _COUNTED_BYTES)))
    try:
        async with aclosing(whole_source_of(job, run.world, run.place).batches()) as batches:
            async for batch in batches:
                rows += len(batch)
                if in_pieces and any(item.document is not None for item in batch):
                    return
                if enough.is_set():
                    return
                await asyncio.sleep(0)
    except LcbatchError:
        return  # the reading that places the rows says what is wrong with them
    run.fanout.emit(InputSize(rows * (run.job.chain.samples or 1)))
