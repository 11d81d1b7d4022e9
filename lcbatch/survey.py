"""The survey of a dry run: opens and plans as a run does, calls nothing, and takes back what it planned.

Without a store, or with an empty file in its place, nothing is made on disk. With one the plan is the real one, inside a
transaction that is always rolled back: what it says is what the run will do, at the price of the lock, and of the room that the
plan of a changed input takes in the store's write-ahead log until then. As by any opening, a store of an older format is brought
up to date, and answers that a broken-off run left in its reserve are taken in.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

from lcbatch.bounds import bounds_of, model_name, rows_in_a_call
from lcbatch.choosing import Over, prepare_chain, rehearsed, unused_of, wire_models
from lcbatch.errors import InputDamaged, RefusedError
from lcbatch.estimate import (
    Basis,
    Measured,
    Pricing,
    RowCost,
    assumed,
    calibrated,
    characters,
    learned,
    measured,
    past_cost,
    row_cost,
)
from lcbatch.events import Event, Notice, RowsPlanned
from lcbatch.forecast import Scene, Typical
from lcbatch.job import EXTRACTIVE, Job
from lcbatch.models.prices import price_of
from lcbatch.models.served import Served
from lcbatch.observers.figures import RowFigures
from lcbatch.observers.stats import Stats
from lcbatch.opening import row_model_of, source_of, text_reader
from lcbatch.outputs import Place, locked, place_of
from lcbatch.plan import Plan
from lcbatch.ports import Ask, Chain, Clock, DocumentReader, Source
from lcbatch.records import Document, Json, Reply, Request
from lcbatch.rules import check_fail_on, check_max_failures
from lcbatch.sample import Seen
from lcbatch.sinks import open_sink
from lcbatch.sources.peek import Peeked
from lcbatch.store.facts import Spent
from lcbatch.store.nothing import NothingStored
from lcbatch.store.opened import open_store
from lcbatch.store.past import PastReplies, fingerprint_of
from lcbatch.store.reading import LastRun, PastRow, how_rows_ended, last_run, past_rows
from lcbatch.store.run_store import RunStore
from lcbatch.store.schema import connect
from lcbatch.wiring import Ended, Line, lines_of
from lcbatch.witness import is_emptied, refuse_emptied_store, refuse_other_store
from lcbatch.world import World

_PAST_ROWS = 1000
_READERS = 2
"""Worker processes that read documents."""

_SUMMARY_CHAR_S = 1e-6
"""The embedded model takes about a millisecond for a thousand characters, on one core."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an existing store says: how rows ended, by their number; what the latest took; learned limits; what was spent."""

    ended: bytearray = field(default_factory=bytearray)
    past: Sequence[PastRow] = ()
    limits: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    spent: Spent = field(default_factory=lambda: Spent(0.0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found. `cost` and `scene` are None where nothing would be called, or nothing can be known of it.

    `refusal` is why the run would do nothing, `damaged` what it would end with behind the last row that can be read. `changed`
    are ids of documents that stood otherwise before, `missing` those that stood and are in the input no longer.
    """

    job: Job
    label: str
    figures: RowFigures
    seen: Seen
    known: Known
    basis: Basis
    refusal: RefusedError | None
    damaged: InputDamaged | None
    notes: Sequence[str]
    cost: RowCost | None = None
    scene: Scene | None = None
    prompt: Sequence[tuple[str, str]] = ()
    sample: Sequence[Measured] = ()
    changed: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


async def survey_of(job: Job, world: World) -> Survey:
    """Find out what a run of the job would do. Raises LcbatchError for all that would stop it before it touches anything."""
    # A pipe's store goes by the options: it is that of the real run.
    job = replace(job, run=replace(job.run, dry_run=False))
    check_fail_on(job.run.fail_on)
    check_max_failures(job.run.max_failures)
    place = place_of(job, world)
    bounds_of(job)
    open_sink(job.output, task=job.task, stdout_fd=world.stdout_fd, stdout_is_terminal=world.stdout_is_terminal)
    async with AsyncExitStack() as stack:
        source = Peeked(source_of(job, world, place))
        stack.push_async_callback(source.aclose)
        models = wire_models(job, world.env, await row_model_of(job, source))
        for served in models:
            stack.push_async_callback(served.aclose)
        over = rehearsed(prepare_chain(job, models))
        found = await _looked_at(job, world, place, source, over(_uncalled))
        if models:
            longest = models[0].model.max_output_tokens
            found = replace(found, label=models[0].label, basis=assumed(job, longest))
        if not found.seen.to_call:
            return found
        if not models:
            return _as_before(found)
        read = await stack.enter_async_context(text_reader(job))
        before = None
        if _goes_on(job, place):
            connection = stack.enter_context(closing(connect(place.store, read_only=True)))
            before = PastReplies(connection, fingerprint_of(Plan.identity_of(over(_uncalled))))
        return await _weighed(found, models, over, _Timed(read, world.clock), before)


async def _looked_at(job: Job, world: World, place: Place, source: Source, chain: Chain) -> Survey:
    """The rows, as the run would find them."""
    stats, notes = Stats(), list[str]()
    async with _store(job, world, place, notes) as store:
        known = await _known(store, chain) if isinstance(store, RunStore) else Known()
        seen = Seen(job.run.limit, known.ended)
        plan = Plan(
            job=replace(job, run=replace(job.run, limit=None)),
            store=cast("RunStore", store),
            chain=chain,
            source=source,
            emit=partial(_told, stats, notes),
            stop_reason=lambda: None,
            lenient=place.is_temporary,
        )
        refusal = await _planned(plan, seen, stats)
        stood, here = await store.documents() if isinstance(store, RunStore) else (frozenset[str](), frozenset[str]())
    figures = replace(stats.snapshot(0.0).rows, total=plan.rows_placed)
    if plan.damaged is not None:
        stood = stood & here  # what the unreadable part holds is unknown, so that nothing is missing from it
    if stood or here:
        # A document that has the place of an equal one that was edited counts among the gone, too.
        figures = replace(figures, gone=min(figures.gone, len(stood - here)))
    if job.run.limit is not None:
        figures = replace(figures, gone=0)  # --limit takes nothing out of the output
    return Survey(
        job=job,
        label=job.chain.chain or "",
        figures=figures,
        seen=seen,
        known=known,
        basis=assumed(job, None),
        refusal=refusal,
        damaged=plan.damaged,
        notes=[*filter(None, [unused_of(job)]), *notes],
        changed=stood & seen.new_documents,
        missing=stood - here,
    )


async def _uncalled(request: Request) -> Reply:  # noqa: ARG001 - ports.Call
    raise AssertionError("a dry run calls nothing")


def _told(stats: Stats, notes: list[str], event: Event) -> None:
    stats.on_event(event)
    if isinstance(event, Notice):
        notes.append(event.text)


@asynccontextmanager
async def _store(job: Job, world: World, place: Place, notes: list[str]) -> AsyncIterator[RunStore | NothingStored]:
    """The store of an earlier run, inside a transaction that is not kept; where there is none, nothing is made.

    Raises RefusedError for a store that the run would not take up either.
    """
    if not place.store.exists():
        with closing(NothingStored()) as nothing:
            yield nothing
        return
    async with locked(place, job, world.command) as here:
        if not job.run.fresh:
            refuse_emptied_store(here)
        if not _goes_on(job, here):
            with closing(NothingStored()) as nothing:
                yield nothing
            return
        async with open_store(here.store) as store:
            if said := await refuse_other_store(here, store):
                notes.append(said)
            await store.hold()
            try:
                yield store
            finally:
                await store.release(commit=False)


def _goes_on(job: Job, place: Place) -> bool:
    """Whether there is a store that the run would go on from."""
    return not job.run.fresh and place.store.exists() and not is_emptied(place.store)


async def _known(store: RunStore, chain: Chain) -> Known:
    identity = Plan.identity_of(chain)
    known = await asyncio.to_thread(_read, store.path, identity)
    return replace(known, spent=await store.spent())


def _read(path: Path, identity: Mapping[str, Json]) -> Known:
    with closing(connect(path, read_only=True)) as connection:
        run = last_run(connection)
        return Known(how_rows_ended(connection), past_rows(connection, identity, _PAST_ROWS), _learned_limits(run))


def _learned_limits(run: LastRun | None) -> Mapping[str, Mapping[str, Json]]:
    """The provider's limits as the last run heard them: what its user had given are none."""
    if run is None or run.figures is None:
        return {}
    given = run.job["options"]
    return {
        label: {name: None if name in given or "endpoints" in given else limit for name, limit in known.items()}
        for label, known in run.figures.get("limits", {}).items()
    }


async def _planned(plan: Plan, seen: Seen, stats: Stats) -> RefusedError | None:
    """Place the whole input; the refusal that the run would make of it, past which it is planned all the same."""
    refusal = None
    if isinstance(plan.store, RunStore):
        try:
            await plan.adopt_chain()
        except RefusedError as error:
            refusal = error
            plan.job = replace(plan.job, run=replace(plan.job.run, on_change="redo"))
            await plan.adopt_chain()
    try:
        async with aclosing(plan.rows()) as rows:
            async for row in rows:
                seen.see(row)
    except RefusedError as error:
        stats.on_event(RowsPlanned(gone=len(await plan.store.gone())))
        return refusal or error
    return refusal


class _Timed:
    """ports.DocumentReader that notes how long each reading took."""

    def __init__(self, read: DocumentReader, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self.seconds: list[float] = []

    async def __call__(self, document: Document) -> str:
        began_s = self._clock()
        try:
            return await self._read(document)
        finally:
            self.seconds.append(self._clock() - began_s)


async def _weighed(
    found: Survey, models: Sequence[Served], over: Over, read: _Timed, before: PastReplies | None
) -> Survey:
    """The survey with what the sampled rows' requests would take."""
    job, seen, model = found.job, found.seen, models[0].model
    basis = learned(found.basis, found.known.past, model.max_output_tokens)
    sample = await measured(seen.to_measure(), over, basis.answer_tokens, read, before)
    machine_s = statistics.median(read.seconds) / _READERS if read.seconds else 0.0
    basis = await calibrated(
        basis, found.known.past, sample, lambda rows: measured(rows, over, basis.answer_tokens, read)
    )
    cost = row_cost(
        sample,
        basis,
        Pricing(found.label.partition(":")[2], model.price, model.max_output_tokens, job.model.max_output_tokens),
        scale=seen.scale(sample),
    )
    if cost is not None:
        cost = replace(cost, calls=cost.calls / rows_in_a_call(job, cost.prompt_tokens))
    chars = sum(characters(request) for one in sample for request in one.requests) / len(sample) * seen.scale(sample)
    if model_name(job) == EXTRACTIVE:
        method = replace(basis.method, latency="about 1 ms for 1,000 characters, on this machine")
        basis = replace(basis, first_s=0.0, token_s=0.0, replies=(), method=method)
        machine_s += chars * _SUMMARY_CHAR_S
    scene = Scene(
        job=job,
        rows=seen.to_call,
        sample=[replace(one.row, failure=one.failure) for one in sample],
        over=over,
        lines=lines_of(models),
        basis=basis,
        limits=found.known.limits,
        chars=chars,
        machine_s=machine_s,
    )
    found = replace(found, sample=sample)
    return replace(found, basis=basis, cost=cost, scene=scene, prompt=await _first_prompt(seen, over, basis, read))


async def _first_prompt(seen: Seen, over: Over, basis: Basis, read: DocumentReader) -> list[tuple[str, str]]:
    """The messages of the first row's first request, as (role, text)."""
    if seen.first is None:
        return []
    one = (await measured([seen.first], over, basis.answer_tokens, read))[0]
    messages = one.requests[0].messages if one.requests else []
    return [_said(message) for message in messages]


def _said(message: Json) -> tuple[str, str]:
    """(role, text) of a message; what is embedded is a bare text."""
    if isinstance(message, str):
        return "text", message
    return str(message.get("role", "")), _shown(message.get("content"))


def _shown(content: Json) -> str:
    """A message's text; of content in parts the texts, and what the others are."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "\n".join(
        str(part.get("text", f"({part.get('type')})")) if isinstance(part, dict) else str(part) for part in parts
    )


def _as_before(found: Survey) -> Survey:
    """The survey of a user's own chain, which is not run: it is taken to go on as in earlier runs, if there were any."""
    job, past = found.job, found.known.past
    cost = past_cost(past)
    if cost is None or not cost.calls:
        return replace(found, cost=cost)
    basis = learned(found.basis, past, None)
    basis = replace(basis, method=replace(basis.method, prompt=f"as in {len(past):,} earlier rows"))
    calls = max(1, round(cost.calls))
    chars = cost.prompt_tokens / cost.calls / basis.tokens_per_char
    price = price_of("", local=False, given=job.model.price)
    scene = Scene(
        job=job,
        rows=found.seen.to_call,
        sample=found.seen.sample[:1],
        over=lambda call: Typical(call, calls, round(chars)),
        lines=[Line(found.label, (Ended(cast("Ask", _uncalled), price),))],
        basis=basis,
        limits=found.known.limits,
        chars=chars * calls,
    )
    return replace(found, basis=basis, cost=cost, scene=scene)
