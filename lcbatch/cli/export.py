"""`lcbatch export OUT -o FILE`: the store written in another form, also beside a running run."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Mapping
from typing import Any

from lcbatch.cli.found import Out, reading, store_of
from lcbatch.cli.options import job_options
from lcbatch.errors import RefusedError
from lcbatch.job import RUN, Job, declared_options
from lcbatch.records import Json
from lcbatch.sinks import Projector, open_sink
from lcbatch.sinks.paths import REPLACED_WHOLE, form_of
from lcbatch.sinks.projector import StandingRows
from lcbatch.store.reading import Views, generation, last_run
from lcbatch.world import process_world

_OPTIONS = frozenset(spec.name for group, spec in declared_options() if group == "output") - {"errors"}


@job_options(RUN, only=_OPTIONS)
def export(out: Out, given: dict[str, Any]) -> int:
    """Write what stands in the store as jsonl, csv, parquet or a folder; to stdout without -o.

    A file of that name is replaced in one step.
    """
    path = store_of(out, given.pop("store", None))
    with reading(path) as connection:
        asyncio.run(_export(connection, given))
    return 0


async def _export(connection: sqlite3.Connection, given: dict[str, Any]) -> None:
    run = last_run(connection)
    if run is None:
        raise RefusedError("no run ever began there", hint="name the output of a run")
    kept = {name: value for name, value in run.job["options"].items() if name in _OPTIONS and name != "output"}
    job = Job.of(task=run.job["task"], **{**kept, **given})
    world = process_world(sys.argv[1:])
    sink = open_sink(job.output, task=RUN, stdout_fd=world.stdout_fd, stdout_is_terminal=world.stdout_is_terminal)
    standing = _Standing(connection, generation(connection))
    if given.get("output") is not None and form_of(given["output"], RUN) in REPLACED_WHOLE:
        sink.rebuild(StandingRows(standing, sink.view))
        sink.close()
        return
    async with Projector(sink, store=standing, commit=_forget) as projector:
        await projector.start()
        await projector.finish(complete=True)


class _Standing(Views):
    """ports.Projectable over a store that is only read: gaps are passed over."""

    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        super().__init__(connection, lambda: number)

    def entries(self, view: Any, after: int) -> Any:
        return self.after(view, after)

    def all_entries(self, view: Any) -> Any:
        return self.all(view)


async def _forget(_name: str, _position: int, _state: Mapping[str, Json]) -> None:
    """An export has no position to come back to."""
