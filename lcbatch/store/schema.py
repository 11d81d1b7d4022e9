"""Tables of the run store, and how a connection to it is opened.

chains      every chain ever used on this output, by the hash of its identity
accepts     whose answers count as whose: a chain's own, those of `retry -m OTHER`, those kept by --on-change keep
rows        every row ever seen, by content; a row keeps its number for good
places      ordinal -> row, for the input as it was read; one generation a reading that differs from the last
answers     how a row ended under a chain: one per (row, chain, sample); never deleted
replies     single calls' answers, by request; never deleted, `superseded` once asked anew on purpose
standing    which answer stands in the output for a row, numbered in the order in which they came to stand
departed    ids of rows that left the output, until the sinks have taken them out
projections how far each sink has come, and what it needs to find that place again; `changes` counts what happened to rows
            that were shown already, `rebuilt` is that count at the last rebuild, `rebuilding` at the one under way
runs        who ran, when, from which boot, how it ended, and its figures as it last noted them
meta        `generation` of the places that count, `chain` of the output, `superseded_usd` and `superseded_tokens`: what
            was paid for replies that were asked anew
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lcbatch.errors import LcbatchError, OutputFailed, RefusedError

FORMAT = 2
"""Raised when an older lcbatch could not read what this one writes."""

APPLICATION_ID = 0x6C636261
"""'lcba': tells a run store from any other SQLite file."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE chains (
    chain_id INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE, identity TEXT NOT NULL, first_used_at REAL NOT NULL
);
CREATE TABLE accepts (chain_id INTEGER NOT NULL, other_id INTEGER NOT NULL, PRIMARY KEY (chain_id, other_id)) WITHOUT ROWID;
CREATE TABLE rows (
    row_id INTEGER PRIMARY KEY, content BLOB NOT NULL, equal_before INTEGER NOT NULL, whole BLOB NOT NULL,
    id TEXT, place TEXT NOT NULL, document TEXT, failure TEXT, fields TEXT NOT NULL
);
CREATE UNIQUE INDEX rows_by_content ON rows (content, equal_before);
CREATE TABLE places (
    generation INTEGER NOT NULL, ordinal INTEGER NOT NULL, row_id INTEGER NOT NULL, PRIMARY KEY (generation, ordinal)
) WITHOUT ROWID;
CREATE TABLE answers (
    row_id INTEGER NOT NULL, chain_id INTEGER NOT NULL, sample INTEGER NOT NULL, done INTEGER NOT NULL,
    reply_key BLOB, kind TEXT, message TEXT, account TEXT NOT NULL, finished_at REAL NOT NULL, output TEXT
);
CREATE UNIQUE INDEX answers_by_row ON answers (row_id, chain_id, sample);
CREATE TABLE replies (
    row_id INTEGER NOT NULL, request_key BLOB NOT NULL, superseded INTEGER NOT NULL DEFAULT 0,
    received_at REAL NOT NULL, cost_usd REAL, body TEXT NOT NULL, text TEXT NOT NULL
);
CREATE UNIQUE INDEX replies_by_row ON replies (row_id, request_key);
CREATE TABLE standing (row_id INTEGER PRIMARY KEY, chain_id INTEGER NOT NULL, sample INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE UNIQUE INDEX standing_by_seq ON standing (seq);
CREATE TABLE departed (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE projections (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, state TEXT, options TEXT NOT NULL,
    shows_done INTEGER NOT NULL, shows_failed INTEGER NOT NULL, by_input INTEGER NOT NULL,
    changes INTEGER NOT NULL, rebuilding INTEGER NOT NULL, rebuilt INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE runs (
    run_id INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, boot TEXT NOT NULL, command TEXT NOT NULL,
    job TEXT NOT NULL, exit_code INTEGER, figures TEXT
);
INSERT INTO meta VALUES ('generation', '1');
"""

_UPGRADES = {1: "ALTER TABLE runs ADD COLUMN figures TEXT;"}
"""From each older format to the next."""

_PAGE_CACHE_KIB = 2048
"""Per connection. Bounded, so that a store of a million rows takes no more memory than one of a thousand."""

_BUSY_TIMEOUT_MS = 10_000


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection in autocommit mode. Raises RefusedError when the file is damaged or no run store."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        connection.execute(f"PRAGMA cache_size=-{_PAGE_CACHE_KIB}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
            _check(connection, path)
        else:
            # Looked at before anything is set: the journal mode is written into the file, whoever's it is.
            if not _is_empty(connection):
                _check(connection, path)
            _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise damaged(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_schema").fetchone()[0])


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise RefusedError(f"{path}: this file system cannot hold a run store", hint="give --store /local/path")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=2000")
    if _is_empty(connection):
        connection.executescript(
            f"BEGIN IMMEDIATE; {TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}; COMMIT;"
        )
    for version in range(_version(connection), FORMAT):
        connection.executescript(f"BEGIN IMMEDIATE; {_UPGRADES[version]} PRAGMA user_version={version + 1}; COMMIT;")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise RefusedError(f"{path} is no run store of lcbatch", hint="move it away, or name another with --store")
    if version > FORMAT:
        raise RefusedError(f"{path} was written by a newer lcbatch (format {version})", hint="upgrade lcbatch")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def verdict(path: Path, error: Exception) -> LcbatchError:
    """What an error means that came out of the store: it is damaged, or it cannot be written."""
    if type(error) is sqlite3.DatabaseError:
        return damaged(path, error)
    if isinstance(error, (sqlite3.Error, OSError)):
        hint = "make room or mend the disk, then run the same command again: it continues"
        return OutputFailed(f"the run store {path} cannot be written: {error}", hint=hint)
    return OutputFailed(f"the run store's writer broke: {error!r}")


def damaged(path: Path, error: Exception) -> RefusedError:
    """The refusal for a store that SQLite cannot read."""
    return RefusedError(
        f"the run store {path} is damaged ({error})",
        hint="save what is left with `sqlite3 STORE .recover`, or set it aside with --fresh",
    )
