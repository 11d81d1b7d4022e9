"""Finding the store of an output that a command names."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lcbatch.errors import InputMissing, RefusedError
from lcbatch.store.schema import connect, verdict

Out = Annotated[str, typer.Argument(metavar="OUT", help="The output of a run, or its store.", show_default=False)]
Store = Annotated[
    str | None, typer.Option("--store", metavar="PATH", help="Where the run store lies, if not beside OUT.")
]

_STORE_SUFFIX = ".lcbatch"


def store_of(out: str, store: str | None) -> Path:
    """The store that belongs to an output's name. Raises InputMissing when there is none."""
    named = out.rstrip("/") or out
    path = Path(store) if store else Path(named if named.endswith(_STORE_SUFFIX) else named + _STORE_SUFFIX)
    if not path.is_file():
        raise InputMissing(
            f"there is no run store {os.fspath(path)}", hint="name the output of a run (or its store with --store)"
        )
    return path


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


def lock_of(store: Path) -> Path:
    """The lock file beside a store."""
    return store.with_name(store.name + ".lock")
