"""Opens everything a run needs on one exit stack, runs it, and says how it ended."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from lcbatch import pipeline
from lcbatch.calls.budget import Spend
from lcbatch.errors import CONTINUABLE, Kind, LcbatchError, RowsFailed, TimeIsUp, exit_code_of
from lcbatch.events import InputSize, Notice, RunFinished, RunStarted
from lcbatch.execute.shutdown import Shutdown, on_time
from lcbatch.job import Job
from lcbatch.observers.fanout import Fanout
from lcbatch.observers.figures import Snapshot
from lcbatch.observers.summary import summary_json
from lcbatch.opening import Run, open_run, source_of
from lcbatch.outputs import remove_store
from lcbatch.plan import Plan
from lcbatch.ports import Sink
from lcbatch.records import Json, Row
from lcbatch.rules import StopRules, check_fail_on, check_max_failures, fails
from lcbatch.sinks import Projector
from lcbatch.sources.readers import DocumentText
from lcbatch.watching import noting, sampling
from lcbatch.wiring import bounds_of, make_work, model_name
from lcbatch.world import World


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


@dataclass(frozen=True, slots=True)
class Retry:
    """Run failed rows again, from the store alone: of these kinds (None: all)."""

    kinds: frozenset[Kind] | None = None


async def run_job(job: Job, world: World, retry: Retry | None = None) -> Report:
    """Run a job to its end, whatever that is. Raises LcbatchError for what was wrong before anything was touched."""
    check_fail_on(job.run.fail_on)
    check_max_failures(job.run.max_failures)
    async with AsyncExitStack() as stack:
        run = await open_run(job, world, stack, from_store=retry is not None)
        await stack.enter_async_context(_displays(run.fanout))
        async with run.shutdown.listening() if world.handles_signals else nullcontext():
            error = await _to_its_end(run, retry)
        exit_code = exit_code_of(error) if error else 0
        if run.begun and not run.store.failed:
            await run.store.end_run(exit_code)
        message = error.message if error else ""
        run.fanout.emit(RunFinished(world.clock(), exit_code, message, _continue_with(run, exit_code)))
        report = Report(
            snapshot=run.stats.snapshot(world.clock()),
            exit_code=exit_code,
            error=error,
            errors_path=run.place.errors,
            store_path=run.place.store,
            store_failed=run.store.failed,
        )
    if run.place.is_temporary and exit_code == 0:
        remove_store(run.place)
    elif run.made and error is not None and _came_to_nothing(report.snapshot):
        remove_store(run.place)
        run.made.remove_output()
    return report


@asynccontextmanager
async def _displays(fanout: Fanout) -> AsyncIterator[None]:
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
        await _begin(run)
        async with AsyncExitStack() as stack:
            projectors = [await stack.enter_async_context(_projector(run, sink)) for sink in run.sinks]
            await _run_rows(run, rows, projectors)
            await _bring_up_to_date(run, projectors)
    except LcbatchError as error:
        return run.shutdown.reason or error
    return run.shutdown.reason or await _failed_rows(run)


async def _plan(run: Run, retry: Retry | None) -> AsyncGenerator[Row]:
    """The rows to run. On a store that holds rows the whole input is placed first, or refused untouched."""
    if run.source is None:
        return await _requeued(run, retry or Retry())
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
    """The plan's rows; notes whether they were all of them. What is wrong with the input stops the run in order."""
    try:
        async with aclosing(plan.rows()) as rows:
            async for row in rows:
                yield row
        run.complete = plan.exhausted
    except LcbatchError as error:
        run.shutdown.request(error)


async def _requeued(run: Run, retry: Retry) -> AsyncGenerator[Row]:
    lineage = await run.store.lineage(Plan.identity_of(run.chain))
    await run.store.answer_with(lineage)
    count = await run.store.requeue(retry.kinds)
    if not count:
        kinds = f" as {', '.join(sorted(retry.kinds))}" if retry.kinds else ""
        run.fanout.emit(Notice(f"no row stands failed{kinds}; rows that were never run are the original command's"))
    run.fanout.emit(InputSize(count))
    run.complete = True
    return _flat(run.store.pending(only_requeued=True))


async def _flat(pages: AsyncGenerator[list[Row]]) -> AsyncGenerator[Row]:
    async with aclosing(pages):
        async for page in pages:
            for row in page:
                yield row


async def _begin(run: Run) -> None:
    """Note the run, and tell who is watching."""
    job = run.job
    described = {"task": job.task, "inputs": list(job.inputs), "options": job.options()}
    await run.store.begin_run(run.world.command, described, in_flight=bounds_of(job).rows)
    run.begun = True
    run.fanout.emit(RunStarted(run.world.clock(), job.task, run.label, job.output.output or "-", bounds_of(job).start))


@asynccontextmanager
async def _projector(run: Run, sink: Sink) -> AsyncIterator[Projector]:
    """A projector that has taken up its output, and its task; a sink that fails stops the run."""
    options = {name: value for name, value in run.job.options().items() if name in _SHAPE}
    kept = await run.store.projection(sink.view, {**options, "order": sink.view.order.value})
    projector = Projector(sink, store=run.store, commit=run.store.commit_position)
    async with projector:
        await projector.start(kept.position, kept.state, clean=run.store.clean, stale=kept.stale)
        if (notice := getattr(sink, "notice", None)) is not None:
            run.fanout.emit(Notice(notice))
        task = asyncio.create_task(_watched(projector, run.shutdown))
        try:
            yield projector
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


_SHAPE = frozenset({"output_field", "keep", "meta", "failed_rows", "flatten", "csv_safe"})
"""Options that decide what an output looks like: with others than last time it is written anew."""


async def _watched(projector: Projector, shutdown: Shutdown) -> None:
    try:
        await projector.run()
    except LcbatchError as error:
        shutdown.request(error)


async def _run_rows(run: Run, rows: AsyncGenerator[Row], projectors: list[Projector]) -> None:
    job, world = run.job, run.world
    rules = StopRules(
        model=run.models[0].label if run.models else "the model",
        max_failures=job.run.max_failures,
        hopeful=await run.store.ever_succeeded(),
        row_models=model_name(job) is None,
    )
    async with AsyncExitStack() as stack:
        if run.source is not None and run.source.rereadable and not run.store.holds_rows:
            stack.callback(asyncio.create_task(_count(run)).cancel)
        await stack.enter_async_context(run.govern())
        stack.enter_context(run.deadlines.beating())
        await stack.enter_async_context(sampling(run.waiting, run.fanout.emit, world.clock))
        await stack.enter_async_context(noting(lambda: _figures(run), run.store.note_figures))
        read = await stack.enter_async_context(DocumentText(max_row_bytes=job.input.max_row_bytes))
        if job.run.max_time is not None:
            error = TimeIsUp("--max-time has passed", hint="run the same command again to continue")
            stack.callback(on_time(run.shutdown, job.run.max_time, lambda: error, asyncio.sleep).cancel)
        parts = pipeline.Parts(
            executor=run.executor,
            work=make_work(run.chain, read, world.clock, run.patience.settled, run.row_timeout.row),
            store=run.store,
            projectors=projectors,
            rules=rules,
            shutdown=run.shutdown,
            clock=world.clock,
            emit=run.fanout.emit,
        )
        async with aclosing(rows):
            await pipeline.run(parts, rows)


def _figures(run: Run) -> Mapping[str, Json]:
    """What the store keeps of a run: its figures, the limits that it learned, and what was perhaps billed in vain."""
    uncertain = run.budget.uncertain if run.budget else Spend()
    return {
        **summary_json(run.stats.snapshot(run.world.clock())),
        "limits": {label: limits.known() for label, limits in run.limits.items()},
        "uncertain": {"usd": uncertain.usd, "tokens": uncertain.tokens},
    }


async def _count(run: Run) -> None:
    """How many rows there will be, for whoever watches: the input read once more, for its number alone."""
    rows = 0
    try:
        async with aclosing(source_of(run.job, run.world, run.place).batches()) as batches:
            async for batch in batches:
                rows += len(batch)
                await asyncio.sleep(0)
    except LcbatchError:
        return  # the reading that places the rows says what is wrong with them
    run.fanout.emit(InputSize(rows))


async def _bring_up_to_date(run: Run, projectors: list[Projector]) -> None:
    """The outputs' last step. With a broken store nothing more is written: the next run does it."""
    if run.store.failed:
        return
    complete = run.complete and run.shutdown.reason is None and await run.store.all_stand()
    departed = await run.store.departed()
    for projector in projectors:
        if await run.store.is_stale(projector.sink.view):
            projector.mark_stale()
        if departed:
            await projector.discard(departed)
        await projector.finish(complete=complete)
    if departed:
        await run.store.forget_departed()


async def _failed_rows(run: Run) -> LcbatchError | None:
    new = run.stats.snapshot(run.world.clock()).rows.failed
    failed = await run.store.failed_count()
    if not fails(run.job.run.fail_on, failed_new=new, failed=failed, rows=await run.store.standing_count()):
        return None
    where = f"; they stand in {run.place.errors}" if run.place.errors else ""
    what = "1 row failed" if failed == 1 else f"{failed} rows failed"
    if run.place.is_temporary:
        hint = f"what was answered is kept in {run.place.store}, and the same command again takes it from there"
    else:
        hint = f"run them again with lcbatch retry {run.job.output.output}"
    return RowsFailed(what + where, hint=hint)


def _came_to_nothing(snapshot: Snapshot) -> bool:
    """Whether nothing was answered and nothing failed: what was made for it can go again."""
    return snapshot.rows.settled == 0 and snapshot.calls.answered == 0


def _continue_with(run: Run, exit_code: int) -> str:
    """The command that goes on from here, "" when there is nothing left to do."""
    rows = run.stats.snapshot(run.world.clock()).rows
    if exit_code in CONTINUABLE | _MENDABLE or (exit_code in {0, 3} and rows.left):
        return _without_fresh(run.world.command)
    if (rows.failed or rows.failed_before) and run.job.output.output is not None:
        return f"lcbatch retry {run.job.output.output}"
    return ""


_MENDABLE = frozenset({4, 8})
"""Stops after which the same command goes on once the user has looked, or paid."""


def _without_fresh(command: str) -> str:
    """The command for going on: --fresh would begin anew."""
    return shlex.join(word for word in shlex.split(command) if word != "--fresh")
