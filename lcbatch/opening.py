"""Opens everything that a run needs on one exit stack, cheapest refusals first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lcbatch.bounds import MOST_CALLS, Window, bounds_of, model_name
from lcbatch.calls.batching import Batching
from lcbatch.calls.budget import Budget, BudgetPolicy, Spend
from lcbatch.calls.rate import RateLimits
from lcbatch.calls.stored import StoredLayouts
from lcbatch.calls.waiting import Waiting
from lcbatch.choosing import Over, pieces_of, prepare_chain, unused_of, wire_models
from lcbatch.errors import InputDamaged
from lcbatch.events import Notice
from lcbatch.execute.deadlines import Deadlines, RowTimeout
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.shutdown import Patience, Shutdown
from lcbatch.job import EMBED, SUMMARIZE, Job
from lcbatch.models.served import Served
from lcbatch.observers import Hushed, make_observer
from lcbatch.observers.fanout import Display, Fanout
from lcbatch.observers.stats import Stats
from lcbatch.openfiles import calls_allowed
from lcbatch.outputs import NewOutput, Place, locked, place_of, set_aside
from lcbatch.ports import Chain, Emit, Sink, Source, Wait
from lcbatch.sinks import errors_sink, open_sink
from lcbatch.sources import open_source
from lcbatch.sources.peek import Peeked
from lcbatch.sources.pieces import InPieces
from lcbatch.sources.readers import DocumentText
from lcbatch.store.opened import open_store
from lcbatch.store.run_store import RunStore
from lcbatch.wiring import Surroundings, batching_of, call_stack, govern, lines_of
from lcbatch.witness import forget_writer, refuse_emptied_store, refuse_other_store
from lcbatch.world import World


@dataclass(frozen=True, slots=True)
class Engine:
    """What moves rows and calls: who runs them, who waits and what for, and for how long."""

    executor: LocalExecutor
    deadlines: Deadlines
    row_timeout: RowTimeout
    patience: Patience = field(default_factory=Patience)
    waiting: Waiting = field(default_factory=Waiting)

    @property
    def wait(self) -> Wait:
        """How calls wait for their turn: given up when the run stops, and not counted against their row."""
        return self.row_timeout.waiting(self.patience.wait)

    def shutdown(self, job: Job, emit: Emit) -> Shutdown:
        """What stops it."""
        return Shutdown(self.executor, self.patience, emit, drain_timeout_s=job.run.drain_timeout, sleep=asyncio.sleep)

    @classmethod
    def of(cls, job: Job, emit: Emit) -> Engine:
        """The engine that a job asks for."""
        deadlines = Deadlines()
        return cls(LocalExecutor(bounds_of(job).rows, emit), deadlines, RowTimeout(job.run.row_timeout, deadlines))


@dataclass(slots=True, kw_only=True)
class Run:
    """What one run has open."""

    job: Job
    world: World
    place: Place
    store: RunStore
    chain: Chain
    sinks: list[Sink]
    fanout: Fanout
    stats: Stats
    engine: Engine
    shutdown: Shutdown
    models: tuple[Served, ...] = ()
    source: Source | None = None
    made: NewOutput | None = None
    budget: BudgetPolicy | None = None
    batching: Batching | None = None
    limits: Mapping[str, RateLimits] = field(default_factory=dict)
    govern: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    complete: bool = False
    damaged: InputDamaged | None = None
    begun: bool = False

    @property
    def label(self) -> str:
        """What answers: the model, or the user's own chain."""
        return self.models[0].label if self.models else self.job.chain.chain or ""


async def open_run(
    job: Job, world: World, stack: AsyncExitStack, *, from_store: bool, row_model: str | None = None
) -> Run:
    """Open what the run needs: nothing is created before names, input and model are right. Raises LcbatchError.

    `row_model` is what the rows name themselves, where they come from the store.
    """
    place = place_of(job, world)
    stats, fanout, engine = _watched(job, world)
    sinks = _sinks(job, world, place)
    source = None if from_store else Peeked(source_of(job, world, place))
    if source is not None:
        stack.push_async_callback(source.aclose)
    models, over = await _chain_of(job, world, stack, fanout.emit, source, row_model)
    place = await stack.enter_async_context(locked(place, job, world.command))
    if job.run.fresh:
        for path in set_aside(place):
            fanout.emit(Notice(f"set aside: {path}"))
    made = None if place.store.exists() else NewOutput(place)
    store = await _store_of(place, stack, fanout.emit)
    around = await _surroundings(job, world, store, engine, fanout.emit)
    shutdown = engine.shutdown(job, fanout.emit)
    store.when_failed(shutdown.request)
    return Run(
        job=job,
        world=world,
        place=place,
        made=made,
        store=store,
        models=models,
        chain=over(call_stack(job, lines_of(models), store.replies, around), StoredLayouts(store.replies)),
        govern=partial(govern, job, store.replies, around),
        source=source,
        sinks=sinks,
        fanout=fanout,
        stats=stats,
        engine=engine,
        shutdown=shutdown,
        budget=around.purse.policy if around.purse else None,
        limits=around.limits,
        batching=around.batching,
    )


async def _chain_of(
    job: Job, world: World, stack: AsyncExitStack, emit: Emit, source: Peeked | None, row_model: str | None
) -> tuple[tuple[Served, ...], Over]:
    """The models, which close with `stack`, and the chain over calls to them. Nothing is touched yet.

    Raises LcbatchError for what is wrong with them.
    """
    told = (lambda text: emit(Notice(text))) if job.display.debug else None
    models = wire_models(job, world.env, row_model or await row_model_of(job, source), told)
    for served in models:
        stack.push_async_callback(served.aclose)
    over = prepare_chain(job, models)
    if unused := unused_of(job):
        emit(Notice(unused))
    return models, over


async def open_stored(job: Job, world: World, stack: AsyncExitStack, chain: Chain) -> Run:
    """Open a run that works on what is stored, and asks nobody: no model, no input. Raises LcbatchError."""
    place = place_of(job, world)
    stats, fanout, engine = _watched(job, world)
    sinks = _sinks(job, world, place)
    place = await stack.enter_async_context(locked(place, job, world.command))
    store = await _store_of(place, stack, fanout.emit)
    return Run(
        job=job,
        world=world,
        place=place,
        store=store,
        chain=chain,
        sinks=sinks,
        fanout=fanout,
        stats=stats,
        engine=engine,
        shutdown=engine.shutdown(job, fanout.emit),
    )


def _watched(job: Job, world: World) -> tuple[Stats, Fanout, Engine]:
    """The engine, and who is told of what it does."""
    stats = Stats(max_rows=job.run.limit)
    fanout = Fanout([stats, Hushed(world.stderr) if job.display.quiet else _display(job, world, stats)])
    return stats, fanout, Engine.of(job, fanout.emit)


async def _surroundings(job: Job, world: World, store: RunStore, engine: Engine, emit: Emit) -> Surroundings:
    window = Window(engine.executor.resize, bounds_of(job))
    return Surroundings(
        clock=world.clock,
        emit=emit,
        window=window,
        wait=engine.wait,
        within=engine.deadlines.within,
        waiting=engine.waiting,
        purse=await _purse(job, store, engine),
        batching=batching_of(job, engine.wait, window),
        hopeful=await store.ever_succeeded(),
        most_calls=_most_calls(job, emit),
    )


def _most_calls(job: Job, emit: Emit) -> int:
    """Calls in flight that the open files allow; says so where -j asks for more."""
    most = calls_allowed(MOST_CALLS)
    if bounds_of(job).least > most:
        emit(Notice(f"the limit on open files allows {most} in flight; ulimit -n raises it"))
    return most


async def _purse(job: Job, store: RunStore, engine: Engine) -> Budget | None:
    """The budget that the options ask for, with what was spent on this output before."""
    if job.run.max_cost is None and job.run.max_total_tokens is None:
        return None
    so_far = await store.spent()
    policy = BudgetPolicy(job.run.max_cost, job.run.max_total_tokens, Spend(so_far.usd, so_far.tokens))
    return Budget(policy, wait=engine.wait, waiting=engine.waiting)


def _sinks(job: Job, world: World, place: Place) -> list[Sink]:
    """The output's sink and that of the failed rows. The output comes first: it may refuse, and then nothing is touched."""
    output = open_sink(
        job.output,
        task=job.task,
        stdout_fd=world.stdout_fd,
        stdout_is_terminal=world.stdout_is_terminal,
        samples=job.chain.samples is not None,
    )
    return [output] if place.errors is None else [output, errors_sink(place.errors)]


async def _store_of(place: Place, stack: AsyncExitStack, emit: Emit) -> RunStore:
    """The run store of this output, and no other's."""
    if not place.store.exists():
        forget_writer(place)
    refuse_emptied_store(place)
    store = await stack.enter_async_context(open_store(place.store))
    if said := await refuse_other_store(place, store):
        emit(Notice(said))
    return store


async def row_model_of(job: Job, source: Peeked | None) -> str | None:
    """The model that the rows name themselves, looked for only where the job names none."""
    if source is None or model_name(job) is not None or job.chain.chain is not None or job.task == EMBED:
        return None
    return await source.row_model()


def source_of(job: Job, world: World, place: Place) -> Source:
    """The job's input; documents in pieces, where the task wants them so."""
    source, pieces = whole_source_of(job, world, place), pieces_of(job)
    return source if pieces is None else InPieces(source, pieces, partial(text_reader, job))


def text_reader(job: Job) -> DocumentText:
    """What reads the documents' texts, within the job's bounds. To be entered."""
    return DocumentText(max_row_bytes=job.input.max_row_bytes, memory_bytes=job.input.reader_memory)


def whole_source_of(job: Job, world: World, place: Place) -> Source:
    """The job's input with its documents whole."""
    documents, own = job.task == SUMMARIZE, place.own_files()
    if job.display.summary_json is not None:
        own |= {Path(job.display.summary_json)}
    return open_source(job.inputs, job.input, documents=documents, own_outputs=own, stdin=world.stdin)


def _display(job: Job, world: World, stats: Stats) -> Display:
    answers_there_too = job.output.output is None and world.stdout_is_terminal
    is_terminal = world.stderr_is_terminal and not answers_there_too
    return make_observer(job.display.progress, stats, stream=world.stderr, is_terminal=is_terminal, clock=world.clock)
