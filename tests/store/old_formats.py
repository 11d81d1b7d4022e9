"""Run stores as older versions of lcbatch left them, made from the statements that these had."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from lcbatch import jsontext
from lcbatch.store.boot import boot_id
from lcbatch.store.schema import APPLICATION_ID

from .support import FIRST, keyed

_TABLES = """
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
    job TEXT NOT NULL, exit_code INTEGER
);
INSERT INTO meta VALUES ('generation', '1');
INSERT INTO meta VALUES ('chain', '1');
INSERT INTO accepts VALUES (1, 1);
"""

_ACCOUNT = '{"model":"sim","prompt_tokens":1,"completion_tokens":1,"cost_usd":0.5,"calls":1,"attempts":1}'


def make_store(path: Path, version: int, *, ended: bool = True) -> Path:
    """Six rows of a run, and a retry that was cut off before it came to anything.

    a, b and c have one id and are answered, as is d, which has none; e was taken up by the retry and so does not stand; f
    stands failed. `old` left the output when it was edited.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(f"{_TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={version};")
        if version > 1:
            connection.execute("ALTER TABLE runs ADD COLUMN figures TEXT")
        identity = jsontext.canonical(FIRST).decode()
        connection.execute("INSERT INTO chains VALUES (1, ?, ?, 0)", (jsontext.digest(identity.encode()), identity))
        for number, (text, label) in enumerate(zip("abcdef", ["x", "x", "x", None, "e", "f"], strict=True), 1):
            one = keyed(text, id=label)
            fields, done = jsontext.dumps(one.item.fields), text in "abcd"
            connection.execute(
                "INSERT INTO rows VALUES (?, ?, 0, ?, ?, ?, NULL, NULL, ?)",
                (number, one.content, one.whole, label, one.item.place, fields),
            )
            connection.execute("INSERT INTO places VALUES (1, ?, ?)", (number - 1, number))
            connection.execute(
                "INSERT INTO answers VALUES (?, 1, 0, ?, NULL, ?, ?, ?, ?, ?)",
                (number, done, None if done else "parse", None if done else '"no"', _ACCOUNT, number, f'"{text}!"'),
            )
            if text != "e":
                connection.execute("INSERT INTO standing VALUES (?, 1, 0, ?)", (number, number))
        connection.execute("INSERT INTO departed VALUES ('old')")
        connection.execute("INSERT INTO projections VALUES ('output', 6, ?, '{}', 1, 0, 0, 0, 0, 0)", ('{"offset":7}',))
        connection.execute(
            "INSERT INTO runs (started_at, ended_at, boot, command, job) VALUES (1, ?, ?, 'lcbatch retry', '{}')",
            (2 if ended else None, boot_id()),
        )
    return path
