"""What an error means that came out of the store. The one place that says so."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from lcbatch.errors import LcbatchError, OutputFailed, RefusedError
from lcbatch.store.sums import OtherSum

P = ParamSpec("P")
T = TypeVar("T")

_NO_TEXT = "Could not decode to UTF-8"
"""What Python says, as an OperationalError, of text that SQLite gives back in other bytes than it was given."""

_NOT_OURS = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_SCHEMA})
"""Codes for tables and rows that are not as we made them: no fault of the disk's."""

_PRIMARY = 0xFF
"""The bits of SQLite's extended codes that name the error."""

_OTHER_SHAPE = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
"""What comes of a column that holds no JSON, or another than we wrote."""


def code_of(error: Exception) -> int:
    """SQLite's own code for an error, without what says where it was met; 0 for an error of anybody else."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


def verdict(path: Path, error: Exception) -> LcbatchError:
    """What an error means that came out of the store: it is damaged, or it cannot be written."""
    if isinstance(error, LcbatchError):
        return error
    broken = type(error) is sqlite3.DatabaseError or isinstance(error, (json.JSONDecodeError, OtherSum))
    if broken or _NO_TEXT in str(error) or code_of(error) in _NOT_OURS or _claims_to_be_read_only(path, error):
        return damaged(path, error)
    if isinstance(error, (sqlite3.Error, OSError)):
        hint = "make room or mend the disk, then run the same command again: it continues"
        return OutputFailed(f"the run store {path} cannot be written: {error}", hint=hint)
    return OutputFailed(f"the run store's writer broke: {error!r}")


def _claims_to_be_read_only(path: Path, error: Exception) -> bool:
    """Whether SQLite refuses to write a file that this user may write: its header asks for a version of SQLite that is to come,
    which none of ours ever did.
    """
    return code_of(error) == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def damaged(path: Path, error: Exception) -> RefusedError:
    """The refusal for a store that cannot be read, or whose contents are not what was written."""
    plain = isinstance(error, sqlite3.Error) or type(error) in {ValueError, OtherSum}
    return RefusedError(
        f"the run store {path} is damaged ({error if plain else f'{type(error).__name__}: {error}'})",
        hint="put back a copy of it, save what is left with `sqlite3 STORE .recover`, or set it aside with --fresh",
    )


def _refusal(path: Path, error: Exception) -> LcbatchError:
    return verdict(path, error) if isinstance(error, sqlite3.Error) else damaged(path, error)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Around what makes values of a store's columns, and nothing else: what cannot be understood is damage."""
    try:
        yield
    except (sqlite3.Error, *_OTHER_SHAPE) as error:
        raise _refusal(path, error) from error


def understood(
    function: Callable[Concatenate[sqlite3.Connection, P], T],
) -> Callable[Concatenate[sqlite3.Connection, P], T]:
    """The same around a function that reads from a connection: whatever goes wrong in it is of the store."""

    @wraps(function)
    def read(connection: sqlite3.Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(connection, *args, **kwargs)
        except (sqlite3.Error, *_OTHER_SHAPE) as error:
            raise _refusal(path_of(connection), error) from error

    return read


def path_of(connection: sqlite3.Connection) -> Path:
    """The file that a connection has open."""
    # As bytes: a name need not be UTF-8, and none of that is damage.
    name: bytes = connection.execute("SELECT CAST(file AS BLOB) FROM pragma_database_list").fetchone()[0]
    return Path(os.fsdecode(name))
