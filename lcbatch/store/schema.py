"""Tables of the run store, and how a connection to it is opened.

chains      every chain ever used on this output, by the hash of its identity
accepts     whose answers count as whose: a chain's own, those of `retry -m OTHER`, those kept by --on-change keep
rows        every row ever seen, by content; a row keeps its number for good. `twin` counts the rows of the same id that came
            and sample before it in the input: only a folder's file names need it. One that stays although it is gone from
            the input has its own negative number for it. Each `sample` of an item is a row by itself, of other content
places      ordinal -> row, for the input as it was read; one generation a reading that differs from the last
answers     how a row ended under a chain: one per (row, chain); never deleted, and `sample` is 0 in all. `asked_anew`: a
            retry has superseded the replies that led to this failure, and none that came later. `shared_from`: it was given
            to that row, an equal one, whose reply `reply_key` names
replies     single calls' answers, by request; never deleted, `superseded` once asked anew on purpose. Under row 0 those that
            belong to their request, whatever row asks; `row` in their body is the one that did
standing    which answer stands in the output for a row, numbered in the order in which they came to stand. `again`: the run
            under way asks for something better, and its outputs leave the row out until it comes, or until the run ends
edited      rows that stand although the input has another row in their place: they leave once that one stands
departed    names of rows that left the output, or have no answer any more, until the sinks have taken them out
projections how far each sink has come, what it needs to find that place again, and in which boot that was; `changes` counts
            what happened to rows that were shown already, `rebuilt` is that count at the last rebuild, `rebuilding` at the
            one under way
runs        who ran, when, from which boot, how it ended, and its figures as it last noted them; `mark` also stands in the
            lock file once the run has begun (marks.py)
meta        `generation` of the places that count, `chain` of the output, `superseded_usd` and `superseded_tokens`: what
            was paid for replies that were asked anew; `store`, by which it is known for good (marks.py); `layout ...`
            how a long document was cut, by chain and id

A column `sum` is the record's checksum (sums.py); a record that is cut before it has -1, which is none's. The identity of a
chain has its fingerprint, and a place the row that it names.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lcbatch.errors import RefusedError
from lcbatch.jsontext import digest
from lcbatch.store import sums
from lcbatch.store.damage import damaged, told

FORMAT = 5
"""Raised when an older lcbatch could not read what this one writes."""

APPLICATION_ID = 0x6C636261
"""'lcba': tells a run store from any other SQLite file."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT, sum INTEGER DEFAULT -1) WITHOUT ROWID;
CREATE TABLE chains (
    chain_id INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE, identity TEXT NOT NULL, first_used_at REAL NOT NULL
);
CREATE TABLE accepts (
    chain_id INTEGER NOT NULL, other_id INTEGER NOT NULL, sum INTEGER DEFAULT -1, PRIMARY KEY (chain_id, other_id)
) WITHOUT ROWID;
CREATE TABLE rows (
    row_id INTEGER PRIMARY KEY, content BLOB NOT NULL, equal_before INTEGER NOT NULL, whole BLOB NOT NULL,
    id TEXT, place TEXT NOT NULL, document TEXT, failure TEXT, fields TEXT NOT NULL, twin INTEGER NOT NULL DEFAULT 0,
    sample INTEGER NOT NULL DEFAULT 0, sum INTEGER DEFAULT -1
);
CREATE UNIQUE INDEX rows_by_content ON rows (content, equal_before);
CREATE TABLE places (
    generation INTEGER NOT NULL, ordinal INTEGER NOT NULL, row_id INTEGER NOT NULL, PRIMARY KEY (generation, ordinal)
) WITHOUT ROWID;
CREATE TABLE answers (
    row_id INTEGER NOT NULL, chain_id INTEGER NOT NULL, sample INTEGER NOT NULL, done INTEGER NOT NULL,
    reply_key BLOB, kind TEXT, message TEXT, account TEXT NOT NULL, finished_at REAL NOT NULL, output TEXT,
    asked_anew INTEGER NOT NULL DEFAULT 0, shared_from INTEGER, sum INTEGER DEFAULT -1
);
CREATE UNIQUE INDEX answers_by_row ON answers (row_id, chain_id, sample);
CREATE TABLE replies (
    row_id INTEGER NOT NULL, request_key BLOB NOT NULL, superseded INTEGER NOT NULL DEFAULT 0,
    received_at REAL NOT NULL, cost_usd REAL, body TEXT NOT NULL, text TEXT NOT NULL, sum INTEGER DEFAULT -1
);
CREATE UNIQUE INDEX replies_by_row ON replies (row_id, request_key);
CREATE TABLE standing (
    row_id INTEGER PRIMARY KEY, chain_id INTEGER NOT NULL, sample INTEGER NOT NULL, seq INTEGER NOT NULL,
    again INTEGER NOT NULL DEFAULT 0, sum INTEGER DEFAULT -1
);
CREATE UNIQUE INDEX standing_by_seq ON standing (seq);
CREATE INDEX standing_again ON standing (row_id) WHERE again;
CREATE TABLE edited (row_id INTEGER PRIMARY KEY, successor INTEGER NOT NULL);
CREATE TABLE departed (name TEXT NOT NULL, twin INTEGER NOT NULL, PRIMARY KEY (name, twin)) WITHOUT ROWID;
CREATE TABLE projections (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, state TEXT, options TEXT NOT NULL,
    shows_done INTEGER NOT NULL, shows_failed INTEGER NOT NULL, by_input INTEGER NOT NULL,
    changes INTEGER NOT NULL, rebuilding INTEGER NOT NULL, rebuilt INTEGER NOT NULL, boot TEXT, sum INTEGER DEFAULT -1
) WITHOUT ROWID;
CREATE TABLE runs (
    run_id INTEGER PRIMARY KEY, started_at REAL NOT NULL, ended_at REAL, boot TEXT NOT NULL, command TEXT NOT NULL,
    job TEXT NOT NULL, exit_code INTEGER, figures TEXT, mark TEXT, sum INTEGER DEFAULT -1
);
INSERT INTO meta VALUES ('generation', '1', sum_of('generation', '1'));
"""

_UPGRADE_2 = """
ALTER TABLE rows ADD COLUMN twin INTEGER NOT NULL DEFAULT 0;
UPDATE rows SET twin = ranked.before FROM (
    SELECT row_id, row_number() OVER (PARTITION BY id ORDER BY ordinal) - 1 AS before
    FROM places JOIN rows USING (row_id)
    WHERE generation = (SELECT value FROM meta WHERE name = 'generation') AND id IS NOT NULL
) AS ranked WHERE ranked.row_id = rows.row_id AND ranked.before;

ALTER TABLE answers ADD COLUMN asked_anew INTEGER NOT NULL DEFAULT 0;
ALTER TABLE standing ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
CREATE INDEX standing_again ON standing (row_id) WHERE again;
CREATE TABLE edited (row_id INTEGER PRIMARY KEY, successor INTEGER NOT NULL);

-- A retry took failed rows out of `standing` before it asked again, and its end left them there.
CREATE TEMP TABLE unsettled AS
SELECT row_id, answers.chain_id, sample, max(finished_at) AS at
FROM answers JOIN accepts ON accepts.other_id = answers.chain_id
WHERE accepts.chain_id = (SELECT value FROM meta WHERE name = 'chain')
AND row_id IN (SELECT row_id FROM places) AND row_id NOT IN (SELECT row_id FROM standing)
GROUP BY row_id HAVING sum(done) = 0;
UPDATE answers SET asked_anew = 1 WHERE row_id IN (SELECT row_id FROM temp.unsettled);
INSERT INTO standing (row_id, chain_id, sample, seq)
SELECT row_id, chain_id, sample, row_number() OVER (ORDER BY at, row_id) + max(
    coalesce((SELECT max(seq) FROM standing), 0), coalesce((SELECT max(position) FROM projections), 0)
) FROM temp.unsettled;
UPDATE projections SET changes = changes + 1
WHERE (shows_failed OR by_input) AND EXISTS (SELECT 1 FROM temp.unsettled);
DROP TABLE temp.unsettled;

ALTER TABLE departed RENAME TO departed_ids;
CREATE TABLE departed (name TEXT NOT NULL, twin INTEGER NOT NULL, PRIMARY KEY (name, twin)) WITHOUT ROWID;
INSERT INTO departed SELECT id, 0 FROM departed_ids;
DROP TABLE departed_ids;
-- Files of rows without an id were called by the number alone, which may be another row's id.
INSERT OR IGNORE INTO departed SELECT row_id, 0 FROM rows WHERE id IS NULL AND row_id IN (SELECT row_id FROM standing)
AND CAST(row_id AS TEXT) NOT IN (SELECT id FROM rows WHERE id IS NOT NULL);

ALTER TABLE projections ADD COLUMN boot TEXT;
UPDATE projections SET boot = (SELECT boot FROM runs ORDER BY run_id DESC LIMIT 1);
UPDATE projections SET state = json_set(state, '$.settled', json('true'))
WHERE state IS NOT NULL AND (SELECT ended_at FROM runs ORDER BY run_id DESC LIMIT 1) IS NOT NULL;
"""

_UPGRADE_3 = """
ALTER TABLE rows ADD COLUMN sample INTEGER NOT NULL DEFAULT 0;
ALTER TABLE answers ADD COLUMN shared_from INTEGER;
"""

_SUMMED_TABLES = ("meta", "accepts", "rows", "answers", "replies", "standing", "projections")

_UPGRADE_4 = "\n".join(
    [
        "ALTER TABLE runs ADD COLUMN mark TEXT;",
        "ALTER TABLE runs ADD COLUMN sum INTEGER;",
        *(f"ALTER TABLE {table} ADD COLUMN sum INTEGER;" for table in _SUMMED_TABLES),
    ]
)
"""What is there keeps no sum: to make them all would write the whole file anew."""

_UPGRADES = {1: "ALTER TABLE runs ADD COLUMN figures TEXT;", 2: _UPGRADE_2, 3: _UPGRADE_3, 4: _UPGRADE_4}
"""From each older format to the next."""

_PAGE_CACHE_KIB = 2048
"""Per connection. Bounded, so that a store of a million rows takes no more memory than one of a thousand."""

_BUSY_TIMEOUT_MS = 10_000


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection in autocommit mode. Raises RefusedError when the file is damaged or no run store."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.create_function("sum_of", -1, sums.sum_of, deterministic=True)
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
        with told(path):
            _verify_small_tables(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise damaged(path, error) from error
    except UnicodeDecodeError as error:  # of what SQLite says about its own tables
        connection.close()
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
    # The writer does it, who must know when it fails; the log's size is how it knows when, so it shrinks when begun anew.
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA journal_size_limit=0")
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


_FILES_BEGIN = b"SQLite format 3\0"

_SMALL_TABLES = (
    ("meta", sums.META, "WHERE m.name NOT LIKE 'layout %'"),
    ("accepts", sums.ACCEPTS, ""),
    ("projections", sums.PROJECTION, ""),
    ("runs", sums.RUN, ""),
)


def _verify_small_tables(connection: sqlite3.Connection) -> None:
    """What every later step goes by. Raises OtherSum."""
    version = _version(connection)
    if version < sums.FORMAT_WITH_SUMS:
        return
    for table, columns, which in _SMALL_TABLES:
        query = f"SELECT {sums.selected(columns, 'm', version)} FROM {table} m {which}"  # noqa: S608 - constants
        for record in connection.execute(query):
            sums.verify(columns, record, f"in {table}, the record of")
    for chain_id, fingerprint, identity in connection.execute("SELECT chain_id, fingerprint, identity FROM chains"):
        if digest(identity.encode()) != fingerprint:
            raise sums.OtherSum(f"chain {chain_id} is not as it was written: its fingerprint differs")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as SQLite's do, and no output does. Whose it is says its log, which SQLite alone can read.

    Not while this process has a connection to it: closing the file would drop that one's locks.
    """
    try:
        if not path.is_file():  # a FIFO would hold us up
            return False
        with path.open("rb") as file:
            return file.read(len(_FILES_BEGIN)) == _FILES_BEGIN
    except OSError:
        return False
