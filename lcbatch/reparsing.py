"""What `lcbatch reparse` does: stored answers are read again by a schema, without a call, and the output follows.

All of it is one transaction: cut off at any point, the output stands as it did. Afterwards the output is that of the chain with
this schema, so that the original command with it finds every row answered; under the former schema all answers stay as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import NoReturn

from lcbatch.app import Report, displays, finished
from lcbatch.chains import schema_of
from lcbatch.chains.schemas import AnswerSchema, Misfit
from lcbatch.chains.structured import SCHEMA_PARTS, parse_failure, parsed
from lcbatch.ending import continue_with, failed_rows, noted, retry_command
from lcbatch.errors import (
    TRANSIENT,
    CallFailed,
    Kind,
    LcbatchError,
    RefusedError,
    RowsFailed,
    UsageError,
    exit_code_of,
)
from lcbatch.events import InputSize, RowsFinished, RunStarted
from lcbatch.job import Job
from lcbatch.opening import Run, open_stored
from lcbatch.plan import refuse_column_clash
from lcbatch.projecting import bring_up_to_date, projecting
from lcbatch.records import Done, Failed, Fields, Json, Outcome
from lcbatch.rules import check_fail_on
from lcbatch.store.facts import Answered
from lcbatch.world import World, typed

_OF_ONE_CALL = frozenset({"prompt", "request"})
"""Chains whose answer is one reply's own, and not made of several."""


async def reparse(job: Job, world: World, origin: Mapping[str, Json]) -> Report:
    """Read the stored answers of the job's output again by its schema.

    `origin` is the job that the output is made by from now on. Raises LcbatchError for what is wrong before anything is touched.
    """
    check_fail_on(job.run.fail_on)
    schema = schema_of(job.chain)
    if schema is None:
        raise UsageError("by which schema?", hint="give --schema, as in --schema 'category billing|bug|other'")
    async with AsyncExitStack() as stack:
        run = await open_stored(job, world, stack, _Unasked())
        await stack.enter_async_context(displays(run.fanout))
        async with run.shutdown.listening():
            error = await _to_its_end(run, schema, origin)
        error = await noted(run, error, exit_code_of(error) if error else 0)
        exit_code = exit_code_of(error) if error else 0
        return finished(run, error, await _what_is_next(run, exit_code))


async def _what_is_next(run: Run, exit_code: int) -> str:
    """The command that goes on: once all is read, reading it again helps no row that failed."""
    if exit_code not in {0, RowsFailed.exit_code}:
        return continue_with(run, exit_code, nothing=False)
    return retry_command(run) if await run.store.failed_count() else ""


async def _to_its_end(run: Run, schema: AnswerSchema, origin: Mapping[str, Json]) -> LcbatchError | None:
    try:
        await run.store.hold()
        try:
            await _parse_all(run, schema, origin)
        except BaseException:
            await run.store.release(commit=False)
            raise
        await run.store.release(commit=True)
        run.begun = run.complete = True
        async with AsyncExitStack() as stack:
            projectors = [await stack.enter_async_context(projecting(run, sink)) for sink in run.sinks]
            await bring_up_to_date(run, projectors)
    except LcbatchError as error:
        return run.shutdown.reason or error
    return run.shutdown.reason or await failed_rows(run)


async def _parse_all(run: Run, schema: AnswerSchema, origin: Mapping[str, Json]) -> None:
    """In the transaction that is held: the chain, and what each row comes to under it. Raises RefusedError, or the stop."""
    store, world = run.store, run.world
    before = await store.output_identity()
    if before is None or before.get("chain") not in _OF_ONE_CALL:
        raise RefusedError(
            "these answers were not made by `lcbatch run` with a prompt, and cannot be read by a schema",
            hint="summaries, vectors and answers of --chain stay as they are; `lcbatch run` with --schema makes others",
        )
    identity = {name: value for name, value in before.items() if name not in SCHEMA_PARTS} | dict(schema.identity)
    lineage = await store.lineage(identity)
    pages = store.answered()
    async with aclosing(pages):
        first: list[Answered] = await anext(pages, [])
        for one in first[:1]:
            refuse_column_clash(one.row.fields, run.job, schema.names)
        await store.adopt(lineage, keep_answers=False)
        await store.begin_run(typed(world.command), {**origin, "origin": dict(origin)}, in_flight=1)
        run.fanout.emit(RunStarted(world.clock(), run.job.task, "stored answers", run.job.output.output or "-", 1))
        run.fanout.emit(InputSize(lineage.answered))
        await _replace(run, schema, first)
        async for page in pages:
            await _replace(run, schema, page)


async def _replace(run: Run, schema: AnswerSchema, page: list[Answered]) -> None:
    if (reason := run.shutdown.reason) is not None:
        raise reason
    outcomes = [outcome for one in page if (outcome := _outcome(one, schema)) is not None]
    if outcomes:
        await run.store.replace(outcomes)
        run.fanout.emit(RowsFinished(run.world.clock(), tuple(outcomes)))


def _outcome(one: Answered, schema: AnswerSchema) -> Outcome | None:
    """What a row comes to; None for one that failed for a passing reason, and is to be asked again as it was."""
    failure = one.failure
    if one.reply is not None:
        try:
            return Done(one.row, parsed(one.reply, schema), one.account, made_of=one.reply_key)
        except CallFailed as refusal:
            failure = failure or refusal.failure
        except Misfit as misfit:
            if failure is None or failure.kind is Kind.PARSE:
                failure = parse_failure(one.reply, misfit)
    if failure is None:
        raise RefusedError(
            f"{one.row.place}: the store does not say which reply its answer was made of",
            hint="it was made by an older lcbatch; the original command with --schema asks again",
        )
    return None if failure.kind in TRANSIENT else Failed(one.row, failure, one.account, one.reply_key)


@dataclass(frozen=True)
class _Unasked:
    """ports.Chain of a run that runs none."""

    uses: frozenset[str] | None = None

    @property
    def identity(self) -> Mapping[str, Json]:
        return {}

    def missing(self, fields: Fields) -> str | None:  # noqa: ARG002 - ports.Chain
        return None

    async def __call__(self, fields: Fields) -> NoReturn:
        raise AssertionError(f"nothing is asked: {fields}")
