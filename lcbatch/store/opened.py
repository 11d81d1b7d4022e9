"""Opens the run store, and takes in what an earlier run left beside it."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lcbatch.errors import CannotCreateOutput
from lcbatch.store import answers, marks, sharing, standing
from lcbatch.store.damage import code_of, verdict
from lcbatch.store.private import open_private
from lcbatch.store.reserve import Reserve, rescued
from lcbatch.store.run_store import RunStore
from lcbatch.store.schema import connect

_DISK_FAILED = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
"""The place is right and the disk is not: another run on it goes on once that is mended."""


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[RunStore]:
    """Open (or make) the run store at `path`, mode 0600; the output's lock must be held.

    Answers that an earlier run left in its reserve are taken in first. Raises CannotCreateOutput, RefusedError, and
    OutputFailed when there is no room for these.
    """
    store = _opened(path)
    try:
        yield store
    finally:
        await store.close()


def _opened(path: Path) -> RunStore:
    reserve_path = path.with_name(path.name + ".reserve")
    try:
        if not path.exists():
            os.close(open_private(path, os.O_RDWR))
        connection = connect(path)
    except (OSError, sqlite3.OperationalError) as error:
        if code_of(error) in _DISK_FAILED:
            raise verdict(path, error) from error
        raise CannotCreateOutput(
            f"cannot create the run store {path}: {error}", hint="choose another place with -o or --store"
        ) from error
    try:
        answers.take_in(connection, rescued(reserve_path))
        reserve_path.unlink(missing_ok=True)
        connection.execute("BEGIN IMMEDIATE")
        standing.settle(connection, 1 + standing.last_seq(connection))
        known_as = marks.store_name(connection)
        name = known_as or secrets.token_hex(8)
        if known_as is None:
            answers.put_meta(connection, "store", name)
        connection.execute("COMMIT")
        sharing.begin(connection)
        return RunStore(path, connection, Reserve(reserve_path), name, is_new_name=known_as is None)
    except (sqlite3.Error, OSError) as error:
        connection.close()
        raise verdict(path, error) from error
    except BaseException:
        connection.close()
        raise
