"""The store's statements: what is written and looked up by row. Plain functions over a connection, run by the writer thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lcbatch import jsontext
from lcbatch.errors import TRANSIENT, Kind
from lcbatch.ports import Order, View
from lcbatch.records import Account, Done, Json, Outcome, Reply, Row, Usage

Columns = tuple[Any, ...]

# --- chains


def register_chain(
    connection: sqlite3.Connection, fingerprint: bytes, identity: str
) -> tuple[int, int | None, str | None, int]:
    """(chain, chain of the last run, its identity, how many rows stand): the chain is noted, nothing else changes."""
    connection.execute(
        "INSERT OR IGNORE INTO chains (fingerprint, identity, first_used_at) VALUES (?, ?, ?)",
        (fingerprint, identity, time.time()),
    )
    chain_id = connection.execute("SELECT chain_id FROM chains WHERE fingerprint = ?", (fingerprint,)).fetchone()[0]
    accept(connection, chain_id, chain_id)
    previous = connection.execute(
        "SELECT chain_id, identity FROM chains WHERE chain_id = (SELECT value FROM meta WHERE name = 'chain')"
    ).fetchone()
    return chain_id, previous and previous[0], previous and previous[1], standing_count(connection)


def accept(connection: sqlite3.Connection, chain_id: int, other_id: int) -> None:
    """Answers of the other chain count as this one's."""
    connection.execute("INSERT OR IGNORE INTO accepts VALUES (?, ?)", (chain_id, other_id))


def adopt_chain(connection: sqlite3.Connection, chain_id: int, *, keep_answers: bool) -> None:
    """Make this the output's chain. Without `keep_answers` what other chains answered no longer stands."""
    last = connection.execute("SELECT value FROM meta WHERE name = 'chain'").fetchone()
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('chain', ?)", (str(chain_id),))
    if last is None or int(last[0]) == chain_id:
        return
    if keep_answers:
        connection.execute(
            "INSERT OR IGNORE INTO accepts SELECT ?, other_id FROM accepts WHERE chain_id = ?", (chain_id, int(last[0]))
        )
        return
    connection.execute("DELETE FROM standing")
    connection.execute("UPDATE projections SET changes = changes + 1")


def output_chain(connection: sqlite3.Connection) -> int | None:
    """The chain that the output is made with."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'chain'").fetchone()
    return int(found[0]) if found is not None else None


# --- runs


def begin_run(connection: sqlite3.Connection, command: str, job: str, boot: str) -> int:
    """Note that a run begins; its number."""
    cursor = connection.execute(
        "INSERT INTO runs (started_at, boot, command, job) VALUES (?, ?, ?, ?)", (time.time(), boot, command, job)
    )
    return cursor.lastrowid or 0


def end_run(connection: sqlite3.Connection, run_id: int, exit_code: int) -> None:
    """Note how a run ended."""
    connection.execute("UPDATE runs SET ended_at = ?, exit_code = ? WHERE run_id = ?", (time.time(), exit_code, run_id))


def note_figures(connection: sqlite3.Connection, run_id: int, figures: str) -> None:
    """Keep a run's figures as they are now."""
    connection.execute("UPDATE runs SET figures = ? WHERE run_id = ?", (figures, run_id))


def ended_cleanly(connection: sqlite3.Connection) -> bool:
    """Whether the last run came to its own end (no run before counts as clean)."""
    last = connection.execute("SELECT ended_at FROM runs ORDER BY run_id DESC LIMIT 1").fetchone()
    return last is None or last[0] is not None


def last_boot(connection: sqlite3.Connection) -> str | None:
    """The boot in which the last run began."""
    last = connection.execute("SELECT boot FROM runs ORDER BY run_id DESC LIMIT 1").fetchone()
    return None if last is None else str(last[0])


# --- rows that stand


def last_seq(connection: sqlite3.Connection) -> int:
    """The highest number under which an answer ever came to stand in what is there, or was shown."""
    query = (
        "SELECT max(coalesce((SELECT max(seq) FROM standing), 0), coalesce((SELECT max(position) FROM projections), 0))"
    )
    return int(connection.execute(query).fetchone()[0])


def last_row(connection: sqlite3.Connection) -> int:
    """The highest row number in use."""
    return int(connection.execute("SELECT coalesce(max(row_id), 0) FROM rows").fetchone()[0])


def standing_count(connection: sqlite3.Connection) -> int:
    """Rows that stand, done or failed."""
    return int(connection.execute("SELECT count(*) FROM standing").fetchone()[0])


def failed_count(connection: sqlite3.Connection) -> int:
    """Rows that stand failed."""
    query = (
        "SELECT count(*) FROM standing s JOIN answers a "
        "ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample WHERE NOT a.done"
    )
    return int(connection.execute(query).fetchone()[0])


def all_stand(connection: sqlite3.Connection, generation: int) -> bool:
    """Whether every placed row stands."""
    query = "SELECT 1 FROM places WHERE generation = ? AND row_id NOT IN (SELECT row_id FROM standing) LIMIT 1"
    return connection.execute(query, (generation,)).fetchone() is None


def drop(connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
    """These rows leave the output; their answers stay."""
    if row_ids:
        numbers = [(row_id,) for row_id in row_ids]
        connection.executemany(
            "INSERT OR IGNORE INTO departed SELECT id FROM rows WHERE row_id = ? AND id IS NOT NULL", numbers
        )
        connection.executemany("DELETE FROM standing WHERE row_id = ?", numbers)
        connection.execute("UPDATE projections SET changes = changes + 1")


def departed(connection: sqlite3.Connection) -> list[str]:
    """Ids of rows that left the output, where no row that stands has the same one."""
    query = "SELECT id FROM departed WHERE id NOT IN (SELECT id FROM standing JOIN rows USING (row_id) WHERE id IS NOT NULL)"
    return [columns[0] for columns in connection.execute(query)]


def forget_departed(connection: sqlite3.Connection) -> None:
    """The sinks have taken them out."""
    connection.execute("DELETE FROM departed")


def failed_rows(
    connection: sqlite3.Connection, generation: int, kinds: frozenset[Kind] | None
) -> list[tuple[int, str]]:
    """(row, kind) of the input's rows that stand failed, of these kinds or of all."""
    query = (
        "SELECT row_id, kind FROM standing JOIN answers USING (row_id, chain_id, sample) "
        "WHERE NOT done AND row_id IN (SELECT row_id FROM places WHERE generation = ?)"
    )
    return [
        (row_id, kind) for row_id, kind in connection.execute(query, (generation,)) if kinds is None or kind in kinds
    ]


def unsettled_rows(connection: sqlite3.Connection, generation: int, kinds: frozenset[Kind] | None) -> list[int]:
    """Rows of the input that do not stand although they failed: taken up again, and then the run ended."""
    query = (
        "SELECT row_id, kind, max(finished_at) FROM answers JOIN accepts ON accepts.other_id = answers.chain_id "
        "WHERE accepts.chain_id = (SELECT value FROM meta WHERE name = 'chain') "
        "AND row_id IN (SELECT row_id FROM places WHERE generation = ?) "
        "AND row_id NOT IN (SELECT row_id FROM standing) GROUP BY row_id HAVING sum(done) = 0"
    )
    return [row_id for row_id, kind, _ in connection.execute(query, (generation,)) if kinds is None or kind in kinds]


def supersede(connection: sqlite3.Connection, row_id: int, kind: str) -> None:
    """A reply that led to a final failure is not used again; those before a passing fault are."""
    if kind in TRANSIENT:
        return
    usd, tokens = connection.execute(_PAID + " AND row_id = ?", (row_id,)).fetchone()
    for name, amount in (("superseded_usd", usd), ("superseded_tokens", tokens)):
        connection.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, amount),
        )
    connection.execute("UPDATE replies SET superseded = 1 WHERE row_id = ?", (row_id,))


_PAID = """
SELECT coalesce(sum(cost_usd), 0), coalesce(sum(json_extract(body, '$.usage[0]') + json_extract(body, '$.usage[1]')), 0)
FROM replies WHERE NOT superseded
"""


def paid(connection: sqlite3.Connection) -> tuple[float, int]:
    """US dollars and tokens of all replies ever received, those that were asked anew since among them."""
    usd, tokens = connection.execute(_PAID).fetchone()
    kept = dict(connection.execute("SELECT name, value FROM meta WHERE name LIKE 'superseded_%'"))
    return usd + float(kept.get("superseded_usd", 0)), tokens + int(float(kept.get("superseded_tokens", 0)))


def perhaps_paid(connection: sqlite3.Connection) -> tuple[float, int]:
    """The same of calls that broke off, and were perhaps billed, as the runs noted it."""
    usd, tokens = connection.execute(
        "SELECT coalesce(sum(json_extract(figures, '$.uncertain.usd')), 0), "
        "coalesce(sum(json_extract(figures, '$.uncertain.tokens')), 0) FROM runs"
    ).fetchone()
    return float(usd), int(tokens)


def remember_todo(connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
    """Keep the rows that were taken up again, for `pending_page`."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS todo (row_id INTEGER PRIMARY KEY)")
    connection.executemany("INSERT OR IGNORE INTO temp.todo VALUES (?)", [(row_id,) for row_id in row_ids])


def pending_page(
    connection: sqlite3.Connection, generation: int, after: int, size: int, *, only_requeued: bool
) -> list[Columns]:
    """Rows in input order that do not stand, as `restored_row` takes them."""
    todo = "JOIN temp.todo USING (row_id)" if only_requeued else ""
    query = (
        "SELECT r.row_id, r.content, r.equal_before, r.id, r.place, r.document, r.failure, r.fields, p.ordinal "  # noqa: S608 - constants
        f"FROM places p JOIN rows r USING (row_id) {todo} WHERE p.generation = ? AND p.ordinal > ? "
        "AND NOT EXISTS (SELECT 1 FROM standing s WHERE s.row_id = p.row_id) ORDER BY p.ordinal LIMIT ?"
    )
    return connection.execute(query, (generation, after, size)).fetchall()


# --- outcomes and replies

_PUT_ANSWER = """
INSERT INTO answers (row_id, chain_id, sample, done, reply_key, kind, message, account, finished_at, output)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (row_id, chain_id, sample) DO UPDATE SET done = excluded.done, reply_key = excluded.reply_key,
    kind = excluded.kind, message = excluded.message, account = excluded.account,
    finished_at = excluded.finished_at, output = excluded.output
WHERE excluded.done OR NOT answers.done
"""


def outcome_columns(outcome: Outcome, chain_id: int) -> Columns:
    """A row of `answers`. The output is left out where it is one reply's own text."""
    account = jsontext.dumps(account_json(outcome.account))
    if isinstance(outcome, Done):
        output = jsontext.dumps(outcome.output) if outcome.reply_key is None else None
        return (outcome.row.ref, chain_id, 0, 1, outcome.reply_key, None, None, account, time.time(), output)
    failure = outcome.failure
    message = jsontext.dumps(failure.message)
    return (outcome.row.ref, chain_id, 0, 0, None, str(failure.kind), message, account, time.time(), None)


def insert_outcomes(connection: sqlite3.Connection, columns: Sequence[Columns], next_seq: int) -> int:
    """Store outcomes and let them stand; the next free number."""
    connection.executemany(_PUT_ANSWER, columns)
    numbered = [(row[0], row[1], row[2], next_seq + index) for index, row in enumerate(columns)]
    connection.executemany("INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?)", numbered)
    return next_seq + len(columns)


def account_json(account: Account) -> Mapping[str, Json]:
    """An account as it is stored and shown with --meta."""
    return {
        "model": account.model,
        "prompt_tokens": account.usage.prompt_tokens,
        "completion_tokens": account.usage.completion_tokens,
        "cost_usd": account.cost_usd,
        "latency_s": round(account.latency_s, 6),
        "calls": account.calls,
        "attempts": account.attempts,
        "finish_reason": account.finish_reason,
    }


def reply_columns(row: Row, key: bytes, reply: Reply) -> Columns:
    """A row of `replies`; the text is not repeated inside the message."""
    message = dict(reply.message)
    if message.get("content") == reply.text:
        del message["content"]
    body = {
        "message": message,
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "usage": [reply.usage.prompt_tokens, reply.usage.completion_tokens],
        "latency_s": round(reply.latency_s, 6),
        "attempts": reply.attempts,
    }
    return (row.ref, key, time.time(), reply.cost_usd, jsontext.dumps(body), jsontext.dumps(reply.text))


def insert_reply(connection: sqlite3.Connection, columns: Columns) -> None:
    """Store one reply; one that was superseded is replaced."""
    connection.execute(
        "INSERT OR REPLACE INTO replies (row_id, request_key, received_at, cost_usd, body, text) VALUES (?, ?, ?, ?, ?, ?)",
        columns,
    )


def load_reply(connection: sqlite3.Connection, row_id: int, key: bytes) -> Reply | None:
    """The reply to this request of this row, unless it is to be asked anew."""
    found = connection.execute(
        "SELECT body, text, cost_usd FROM replies WHERE row_id = ? AND request_key = ? AND NOT superseded",
        (row_id, key),
    ).fetchone()
    if found is None:
        return None
    body, text = jsontext.loads(found[0]), jsontext.loads(found[1])
    return Reply(
        text=text,
        message={"content": text, **body["message"]},
        model=body["model"],
        finish_reason=body["finish_reason"],
        usage=Usage(*body["usage"]),
        cost_usd=found[2],
        latency_s=body["latency_s"],
        attempts=body["attempts"],
    )


def any_reply(connection: sqlite3.Connection) -> bool:
    """Whether a reply was ever stored."""
    return connection.execute("SELECT 1 FROM replies LIMIT 1").fetchone() is not None


def rescue_line(what: str, columns: Columns) -> bytes:
    """One answer as a line for the reserve."""
    plain = [{"bytes": value.hex()} if isinstance(value, bytes) else value for value in columns]
    return jsontext.dumps([what, plain]).encode()


def take_in(connection: sqlite3.Connection, lines: Iterable[Json]) -> int:
    """Store what an earlier run left in its reserve, safe from power loss; how many answers that were."""
    count = 0
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    for what, plain in lines:
        columns = tuple(bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value for value in plain)
        if what == "reply":
            insert_reply(connection, columns)
        else:
            insert_outcomes(connection, [columns], 1 + last_seq(connection))
        count += 1
    connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous=NORMAL")
    return count


# --- projections


def load_projection(connection: sqlite3.Connection, view: View, options: str) -> tuple[int, str | None, bool]:
    """(position, sink's state, stale) of a projection, which is noted with these options; other ones make it stale."""
    connection.execute(
        "INSERT INTO projections VALUES (?, 0, NULL, ?, ?, ?, ?, 0, 0, 0) ON CONFLICT (name) DO UPDATE SET "
        "changes = changes + (options <> excluded.options), options = excluded.options, "
        "shows_done = excluded.shows_done, shows_failed = excluded.shows_failed, by_input = excluded.by_input",
        (view.name, options, view.done, view.failed, view.order is Order.INPUT),
    )
    position, state, stale = connection.execute(
        "SELECT position, state, changes > rebuilt FROM projections WHERE name = ?", (view.name,)
    ).fetchone()
    return position, state, bool(stale)


def projection_is_stale(connection: sqlite3.Connection, name: str) -> bool:
    """Whether something that was shown has changed since the last rebuild."""
    found = connection.execute("SELECT changes > rebuilt FROM projections WHERE name = ?", (name,)).fetchone()
    return bool(found and found[0])


def save_projection(connection: sqlite3.Connection, name: str, position: int, state: str) -> None:
    """Note how far a projection has come.

    A negative position stands before a rebuild, or says that the next start has to make one; what changed up to then is
    shown by the time a real position follows.
    """
    if position < 0:
        connection.execute("UPDATE projections SET rebuilding = changes WHERE name = ?", (name,))
    else:
        connection.execute("UPDATE projections SET rebuilt = rebuilding WHERE name = ? AND position < 0", (name,))
    connection.execute("UPDATE projections SET position = ?, state = ? WHERE name = ?", (position, state, name))
