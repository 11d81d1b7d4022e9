"""`lcbatch export OUT -o FILE`: the store written in another form, also beside a running run."""

from __future__ import annotations

import asyncio
import glob
import os
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcbatch.cli.found import Origin, Out, origin_of, other_store, reading, store_of
from lcbatch.cli.options import job_options
from lcbatch.errors import CannotCreateOutput, RefusedError, UsageError
from lcbatch.job import EMBED, RUN, Job, declared_options
from lcbatch.records import Json
from lcbatch.sinks import Projector, open_sink
from lcbatch.sinks.paths import REPLACED_WHOLE, form_of, is_special, is_stdout
from lcbatch.sinks.projector import StandingRows
from lcbatch.store.reading import generation
from lcbatch.store.views import Views
from lcbatch.world import process_world, working_folder

_OPTIONS = frozenset(spec.name for group, spec in declared_options() if group == "output") - {"errors"}


@job_options(RUN, only=_OPTIONS)
def export(out: Out, given: dict[str, Any]) -> int:
    """Write what stands in the store as jsonl, csv, parquet or a folder; to stdout without -o.

    A file of that name is replaced in one step.
    """
    path = store_of(out, given.pop("store", None))
    with reading(path) as connection:
        if said := other_store(connection, out, path):
            raise RefusedError(
                said, hint="put back the store as it was; or name the store itself, to have what it holds"
            )
        asyncio.run(_export(connection, given, path))
    return 0


async def _export(connection: sqlite3.Connection, given: dict[str, Any], store: Path) -> None:
    origin = origin_of(connection, store)
    if "output" in given:
        given["output"] = _target(given["output"], origin, store)
    kept = {
        name: value for name, value in origin.options.items() if name in _OPTIONS - {"output", "store"} | {"samples"}
    }
    job = Job.of(task=origin.task, **{**kept, **given})
    world = process_world(sys.argv[1:])
    # No folder is made of a name without a suffix, as `summarize` would.
    task = EMBED if job.task == EMBED else RUN
    sink = open_sink(
        job.output,
        task=task,
        stdout_fd=world.stdout_fd,
        stdout_is_terminal=world.stdout_is_terminal,
        samples=job.chain.samples is not None,
    )
    standing = _Standing(connection, generation(connection))
    if "output" in given and _is_replaced(given["output"]):
        sink.rebuild(StandingRows(standing, sink.view))
        sink.close()
        return
    async with Projector(sink, store=standing, commit=_forget) as projector:
        await projector.start()
        await projector.finish(complete=True)


def _target(output: str, origin: Origin, store: Path) -> str:
    """Where an export goes: a link's target. Raises UsageError for what is the run's own, CannotCreateOutput, InputMissing."""
    if is_stdout(output) or is_special(Path(output)):
        return output
    if not os.path.isabs(output):  # noqa: PTH117 - text
        working_folder()
    path = Path(os.path.realpath(output))
    if origin.paths(store).owns(path):
        raise UsageError(f"{output} is written by the run itself", hint="name another file with -o")
    if path.exists() and _is_input(path, origin):
        raise UsageError(f"{output} is the run's input", hint="name another file with -o")
    if _is_replaced(output):
        _check_room(path)
    return f"{path}/" if output.endswith("/") else str(path)


def _is_replaced(output: str) -> bool:
    """Whether this is one file that is replaced in one step. Raises UsageError for a name of no known form."""
    return form_of(output, RUN) in REPLACED_WHOLE and not is_special(Path(output))


def _check_room(path: Path) -> None:
    """See that a file can be made there, and make its folder. Raises CannotCreateOutput."""
    hint = "choose another place with -o"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateOutput(f"cannot create {path.parent}: {error.strerror}", hint=hint) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CannotCreateOutput(f"cannot create {path}: Permission denied", hint=hint)


def _is_input(path: Path, origin: Origin) -> bool:
    """Whether a file is one of the run's inputs, or lies in a folder that is."""
    named = [str(origin.path(name)) for name in origin.inputs if name != "-"]
    found = {os.path.realpath(each) for name in named for each in (name, *glob.iglob(name, recursive=True))}  # noqa: PTH207 - text
    return any(str(each) in found for each in (path, *path.parents))


class _Standing(Views):
    """ports.Projectable over a store that is only read: gaps are passed over."""

    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        super().__init__(connection, lambda: number)

    def entries(self, view: Any, after: int) -> Any:
        """From the beginning, all that stands: there is nobody to come who could fill a gap."""
        return ([entry] for entry in self.all(view)) if after == 0 else self.after(view, after)

    def all_entries(self, view: Any) -> Any:
        return self.all(view)


async def _forget(_name: str, _position: int, _state: Mapping[str, Json]) -> None:
    """An export has no position to come back to."""
