"""What `lcbatch retry` runs: failed rows again, from the store alone, by the chain that the output is made with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.errors import Kind, LcbatchError, RefusedError, UsageError
from lcbatch.events import InputSize, Notice, RowsPlanned
from lcbatch.opening import Run
from lcbatch.plan import Plan, in_a_line
from lcbatch.records import Json, Row
from lcbatch.store.facts import Lineage


@dataclass(frozen=True, slots=True)
class Retry:
    """Run failed rows again, from the store alone: of these kinds (None: all).

    `origin` is the job that made the output, as the store keeps it: `retry -m OTHER` is another job, and does not become it.
    `row_model` is what rows name themselves, for a job that names none.
    """

    kinds: frozenset[Kind] | None = None
    origin: Mapping[str, Json] | None = None
    row_model: str | None = None


async def requeued(run: Run, retry: Retry) -> AsyncGenerator[Row]:
    """Take failed rows up again; gives them, no more than --limit. Raises RefusedError for a chain that was edited since."""
    identity = Plan.identity_of(run.chain)
    lineage = await run.store.lineage(identity)
    _check_chain(run, lineage, identity)
    await run.store.answer_with(lineage)
    found = await run.store.requeue(retry.kinds, dedupe=run.job.chain.dedupe)
    if not found.rows:
        kinds = f" as {', '.join(sorted(retry.kinds))}" if retry.kinds else ""
        run.fanout.emit(Notice(f"no row stands failed{kinds}; rows that were never run are the original command's"))
    run.fanout.emit(RowsPlanned(reused=found.answered))
    run.fanout.emit(InputSize(found.rows))
    return _limited(run, run.store.pending(only_requeued=True))


async def _limited(run: Run, pages: AsyncGenerator[list[Row]]) -> AsyncGenerator[Row]:
    """The rows, up to --limit; notes whether they were all of them. A store that fails stops the run in order."""
    limit, called = run.job.run.limit, 0
    try:
        async with aclosing(pages):
            async for page in pages:
                for row in page:
                    if limit is not None and called >= limit:
                        return
                    called += 1
                    yield row
        run.complete = True
    except LcbatchError as error:
        run.shutdown.request(error)


def _check_chain(run: Run, lineage: Lineage, identity: Mapping[str, Json]) -> None:
    """Another model is what a retry may come with; a template or a chain that was edited has to be meant."""
    mode = run.job.run.on_change
    if mode == "redo":
        raise UsageError(
            "retry asks failed rows only", hint="the original command asks all rows anew with --on-change redo"
        )
    changed = _changed(run, lineage.previous or {}, jsontext.loads(jsontext.canonical(identity)))
    if "uses" in changed and mode == "keep":
        raise RefusedError(
            "the prompt names other fields than before, so its answers could not be matched to rows",
            hint="the original command asks everything anew with --on-change redo; nothing was touched",
        )
    if changed and mode == "refuse":
        raise RefusedError(
            "the chain changed since this output was made:\n" + "\n".join(changed.values()),
            hint="--on-change keep asks the failed rows by the new one, and leaves all answers as they are; nothing was touched",
        )


def _changed(run: Run, before: Mapping[str, Json], now: Mapping[str, Json]) -> dict[str, str]:
    """What differs but for the model, by name. A model that reads no prompt has None in its place."""
    of_model = {"row_models", *(name for served in run.models for name in served.model.identity)}
    return {
        name: f"  {name}: {in_a_line(before[name])} -> {in_a_line(now[name])}"
        for name in sorted((before.keys() & now.keys()) - of_model)
        if before[name] != now[name] and (name == "uses" or None not in (before[name], now[name]))
    }
