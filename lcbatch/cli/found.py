"""Finding the store of an output that a command names, and what its runs were."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lcbatch.errors import InputMissing, RefusedError
from lcbatch.records import Json
from lcbatch.sinks import OUTPUT_VIEW
from lcbatch.sinks.paths import SQLITE_ENDINGS, STORE_ENDING, OutputPaths, beside, is_stdout, lock_of
from lcbatch.store import marks
from lcbatch.store.damage import told, verdict
from lcbatch.store.lock import holder_of, mark_of
from lcbatch.store.reading import last_run
from lcbatch.store.schema import connect, is_sqlite

__all__ = ["Origin", "Out", "Store", "lock_of", "names_store", "origin_of", "other_store", "reading", "store_of"]

Out = Annotated[str, typer.Argument(metavar="OUT", help="The output of a run, or its store.", show_default=False)]
Store = Annotated[
    str | None, typer.Option("--store", metavar="PATH", help="Where the run store lies, if not beside OUT.")
]


def store_of(out: str, store: str | None) -> Path:
    """The store that belongs to an output's name, as it is named: the output lies beside a link to it, not beside its target.

    Raises InputMissing when there is none.
    """
    path = Path(store or (out if names_store(out) else _beside(out)))
    if not path.is_file():
        raise InputMissing(
            f"there is no run store {os.fspath(path)}", hint="name the output of a run (or its store with --store)"
        )
    return path


def names_store(out: str) -> bool:
    """Whether OUT is the store itself: by its name, or a store that --store has called otherwise."""
    return out.endswith(STORE_ENDING) or (not Path(_beside(out)).is_file() and is_sqlite(Path(out)))


def _beside(out: str) -> str:
    return out.rstrip("/") + STORE_ENDING


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a store, also beside a running one."""
    try:
        connection = connect(path, read_only=True)
    except sqlite3.OperationalError as error:
        raise RefusedError(f"cannot read {path}: {error}", hint="may this user read it?") from error
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        raise verdict(path, error) from error
    finally:
        connection.close()
        _tidy(Path(os.path.realpath(path)))


def other_store(connection: sqlite3.Connection, out: str, store: Path) -> str | None:
    """What to say of a store that knows nothing of what the last run on OUT had come to; None where it does."""
    if out.endswith(STORE_ENDING) or Path(out) == store:  # it is this store that was asked for
        return None
    mark = mark_of(lock_of(beside(Path(os.path.realpath(out)), STORE_ENDING)))
    if mark is None or marks.knows(connection, mark, OUTPUT_VIEW):
        return None
    return f"{store} knows nothing of what the last run on {out} had come to: it is an older copy, or another output's store"


def _tidy(store: Path) -> None:
    """Take away what a connection that may only read leaves beside a store that no run has open: it cannot do so itself.

    SQLite does it when the last connection that may write closes, and only then; a run that begins meanwhile is one more.
    `store` is the file itself, for these do not lie beside a link to it.
    """
    if not any(beside(store, end).exists() for end in SQLITE_ENDINGS) or holder_of(lock_of(store)) is not None:
        return
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=rw", uri=True)) as connection,
    ):
        connection.execute("SELECT count(*) FROM sqlite_schema")


@dataclass(frozen=True, slots=True)
class Origin:
    """The job that an output is made by, as the store keeps it: `options` by name, `cwd` in which its paths are meant."""

    task: str
    inputs: tuple[str, ...]
    options: Mapping[str, Json]
    cwd: Path

    def path(self, name: str) -> Path:
        """A path of the job, wherever it is asked for."""
        return Path(os.path.abspath(self.cwd / name))  # noqa: PTH100 - resolve() would follow links; this only cleans

    def output(self, store: Path) -> str | None:
        """The output as this command has to name it: beside its store, to where both may have moved; None for stdout."""
        named = self.options.get("output")
        if named is None or is_stdout(named):
            return None
        path = self.path(named)
        if path.name + STORE_ENDING == store.name:
            path = store.absolute().with_name(path.name)
        return f"{path}/" if named.endswith("/") else str(path)

    def paths(self, store: Path) -> OutputPaths:
        """The files of the run itself."""
        named, errors = self.output(store), self.options.get("errors")
        output = None if named is None else Path(named)
        beside_it = None if output is None else beside(output, ".errors.jsonl")
        return OutputPaths(output, store.absolute(), self.path(errors) if errors is not None else beside_it)

    def inherited(self, names: frozenset[str]) -> tuple[tuple[str, ...], dict[str, Json]]:
        """The inputs, and the options of these names, for another job on the same output, wherever that is started."""
        inputs = tuple(name if name == "-" else str(self.path(name)) for name in self.inputs)
        options = {name: value for name, value in self.options.items() if name in names}
        if "errors" in options:
            options["errors"] = str(self.path(options["errors"]))
        return inputs, options

    def to_json(self) -> Mapping[str, Json]:
        return {"task": self.task, "inputs": list(self.inputs), "options": self.options, "cwd": str(self.cwd)}


def origin_of(connection: sqlite3.Connection, store: Path) -> Origin:
    """The job of the last run that was no retry. Raises RefusedError where there was none."""
    run = last_run(connection)
    if run is None:
        raise RefusedError(f"no run ever began in {store}", hint="run the original command")
    with told(store):
        job = run.job.get("origin", run.job)
        return Origin(job["task"], tuple(job["inputs"]), job["options"], Path(job.get("cwd", ".")).absolute())
