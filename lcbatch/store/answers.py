"""The store's statements: what is written and looked up by row. Plain functions over a connection, run by the writer thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lcbatch import jsontext
from lcbatch.errors import TRANSIENT
from lcbatch.records import Account, Done, Json, Outcome, Reply, Row, Usage
from lcbatch.store import standing, sums
from lcbatch.store.damage import understood
from lcbatch.store.standing import Columns

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
    return chain_id, previous and previous[0], previous and previous[1], standing.standing_count(connection)


def accept(connection: sqlite3.Connection, chain_id: int, other_id: int) -> None:
    """Answers of the other chain count as this one's."""
    connection.execute("INSERT OR IGNORE INTO accepts VALUES (?1, ?2, sum_of(?1, ?2))", (chain_id, other_id))


def adopt_chain(connection: sqlite3.Connection, chain_id: int, *, keep_answers: bool, forget: bool) -> None:
    """Make this the output's chain.

    Without `keep_answers` what other chains answered is asked anew, and stands until then; with `forget` it stands no longer.
    """
    last = connection.execute("SELECT value FROM meta WHERE name = 'chain'").fetchone()
    put_meta(connection, "chain", str(chain_id))
    if last is None or int(last[0]) == chain_id:
        return
    if keep_answers:
        connection.execute(
            "INSERT OR IGNORE INTO accepts SELECT ?1, other_id, sum_of(?1, other_id) FROM accepts WHERE chain_id = ?2",
            (chain_id, int(last[0])),
        )
    elif forget:
        standing.forget_all(connection)
    else:
        standing.reopen_all(connection)


@understood
def identity_of(connection: sqlite3.Connection, chain_id: int) -> str:
    """What a chain is, as it was registered."""
    return str(connection.execute("SELECT identity FROM chains WHERE chain_id = ?", (chain_id,)).fetchone()[0])


@understood
def output_chain(connection: sqlite3.Connection) -> int | None:
    """The chain that the output is made with."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'chain'").fetchone()
    return int(found[0]) if found is not None else None


def put_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a value under its name, in the place of what was there."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2, sum_of(?1, ?2))", (name, value))


# --- runs

_SUM_RUN = f"UPDATE runs SET sum = {sums.summed(sums.RUN)} WHERE run_id = ?"  # noqa: S608 - constants


def begin_run(connection: sqlite3.Connection, command: str, job: str, boot: str, mark: str) -> int:
    """Note that a run begins; its number."""
    cursor = connection.execute(
        "INSERT INTO runs (started_at, boot, command, job, mark) VALUES (?, ?, ?, ?, ?)",
        (time.time(), boot, command, job, mark),
    )
    run_id = cursor.lastrowid or 0
    connection.execute(_SUM_RUN, (run_id,))
    return run_id


def end_run(connection: sqlite3.Connection, run_id: int, exit_code: int) -> None:
    """Note how a run ended."""
    connection.execute("UPDATE runs SET ended_at = ?, exit_code = ? WHERE run_id = ?", (time.time(), exit_code, run_id))


def note_figures(connection: sqlite3.Connection, run_id: int, figures: str) -> None:
    """Keep a run's figures as they are now."""
    connection.execute("UPDATE runs SET figures = ? WHERE run_id = ?", (figures, run_id))
    connection.execute(_SUM_RUN, (run_id,))


def last_row(connection: sqlite3.Connection) -> int:
    """The highest row number in use."""
    return int(connection.execute("SELECT coalesce(max(row_id), 0) FROM rows").fetchone()[0])


# --- what was paid


def supersede(connection: sqlite3.Connection, row_id: int, kind: str) -> None:
    """A reply that led to a final failure is not used again; those before a passing fault are.

    Neither are those lost that a retry has got since, which then ended before the row did.
    """
    if kind in TRANSIENT:
        return
    first = connection.execute(
        "UPDATE answers SET asked_anew = 1 WHERE NOT asked_anew AND (row_id, chain_id, sample) = "
        "(SELECT row_id, chain_id, sample FROM standing WHERE row_id = ?)",
        (row_id,),
    )
    if not first.rowcount:
        return
    usd, tokens = connection.execute(_PAID + " AND row_id = ?", (row_id,)).fetchone()
    for name, amount in (("superseded_usd", usd), ("superseded_tokens", tokens)):
        before = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        put_meta(connection, name, str(amount + (float(before[0]) if before else 0)))
    connection.execute(_SUPERSEDE, (row_id,))


_SUPERSEDE = f"""
UPDATE replies SET superseded = 1, sum = {sums.changed(sums.REPLY, superseded="1")} WHERE row_id = ?
"""  # noqa: S608 - constants

_PAID = """
SELECT coalesce(sum(cost_usd), 0), coalesce(sum(json_extract(body, '$.usage[0]') + json_extract(body, '$.usage[1]')), 0)
FROM replies WHERE NOT superseded
"""


@understood
def paid(connection: sqlite3.Connection) -> tuple[float, int]:
    """US dollars and tokens of all replies ever received, those that were asked anew since among them."""
    usd, tokens = connection.execute(_PAID).fetchone()
    kept = dict(connection.execute("SELECT name, value FROM meta WHERE name LIKE 'superseded_%'"))
    return usd + float(kept.get("superseded_usd", 0)), tokens + int(float(kept.get("superseded_tokens", 0)))


@understood
def perhaps_paid(connection: sqlite3.Connection) -> tuple[float, int]:
    """The same of calls that broke off, and were perhaps billed, as the runs noted it."""
    usd, tokens = connection.execute(
        "SELECT coalesce(sum(json_extract(figures, '$.uncertain.usd')), 0), "
        "coalesce(sum(json_extract(figures, '$.uncertain.tokens')), 0) FROM runs"
    ).fetchone()
    return float(usd), int(tokens)


# --- outcomes and replies

_PUT_ANSWER = """
INSERT INTO answers (row_id, chain_id, sample, done, reply_key, kind, message, account, finished_at, output, sum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (row_id, chain_id, sample) DO UPDATE SET done = excluded.done, reply_key = excluded.reply_key,
    kind = excluded.kind, message = excluded.message, account = excluded.account,
    finished_at = excluded.finished_at, output = excluded.output, asked_anew = 0, shared_from = NULL,
    sum = excluded.sum
WHERE excluded.done OR NOT answers.done
"""


def outcome_columns(outcome: Outcome, chain_id: int) -> Columns:
    """A row of `answers`. The output is left out where it is one reply's own text."""
    account = jsontext.dumps(account_json(outcome.account))
    if isinstance(outcome, Done):
        output = jsontext.dumps(outcome.output) if outcome.reply_key is None else None
        key = outcome.reply_key or outcome.made_of
        return (outcome.row.ref, chain_id, 0, 1, key, None, None, account, time.time(), output)
    failure = outcome.failure
    message = jsontext.dumps(failure.message)
    return (outcome.row.ref, chain_id, 0, 0, outcome.made_of, str(failure.kind), message, account, time.time(), None)


def insert_outcomes(connection: sqlite3.Connection, columns: Sequence[Columns], next_seq: int) -> int:
    """Store outcomes and let them stand; the next free number."""
    connection.executemany(_PUT_ANSWER, [(*row, sums.ANSWER.sum(*row[:8], row[9], None)) for row in columns])
    return _let_stand(connection, columns, next_seq)


def _let_stand(connection: sqlite3.Connection, columns: Sequence[Columns], next_seq: int) -> int:
    standing.lose_answers(connection, [row[0] for row in columns if not row[3]])
    standing.let_stand(connection, [(*row[:3], next_seq + index) for index, row in enumerate(columns)])
    return next_seq + len(columns)


_PUT_ANEW = """
INSERT INTO answers (
    row_id, chain_id, sample, done, reply_key, kind, message, account, finished_at, output, shared_from, sum
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (row_id, chain_id, sample) DO UPDATE SET done = excluded.done, reply_key = excluded.reply_key,
    kind = excluded.kind, message = excluded.message, account = excluded.account, finished_at = excluded.finished_at,
    output = excluded.output, shared_from = excluded.shared_from, sum = excluded.sum
"""

_SHARED_FROM = """
SELECT a.shared_from FROM standing s JOIN answers a
ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample WHERE s.row_id = ?
"""


def replace_outcomes(connection: sqlite3.Connection, columns: Sequence[Columns], next_seq: int) -> int:
    """Let outcomes stand for rows that were answered already, better or worse than what they had; the next free number.

    The reply is the one that what stands was made of, be it an equal row's.
    """
    anew = []
    for row in columns:
        standing.reopen(connection, row[0])
        shared_from = (connection.execute(_SHARED_FROM, (row[0],)).fetchone() or (None,))[0]
        anew.append((*row, shared_from, sums.ANSWER.sum(*row[:8], row[9], shared_from)))
    connection.executemany(_PUT_ANEW, anew)
    return _let_stand(connection, columns, next_seq)


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


_PUT_REPLY = """
INSERT OR {otherwise} INTO replies (row_id, request_key, received_at, cost_usd, body, text, sum)
SELECT ?1, ?, ?, ?, ?, ?, ? WHERE ?1 IS NOT NULL
"""

_NO_REPLY = (None,) * 7
"""Puts nothing in, and takes the place of the parameters, which SQLite keeps until the statement is given others."""

_LONG_CHARS = 1024 * 1024


def insert_reply(connection: sqlite3.Connection, columns: Columns) -> None:
    """Store one reply; one that was superseded is replaced.

    Of a shared one that two rows have paid for the first stays, and the second is kept with its row: what it cost counts.
    """
    if (
        columns[0] == SHARED
        and not connection.execute(_PUT_REPLY.format(otherwise="IGNORE"), _summed(columns)).rowcount
    ):
        columns = (jsontext.loads(columns[4])["row"], *columns[1:])
    if columns[0] != SHARED:
        connection.execute(_PUT_REPLY.format(otherwise="REPLACE"), _summed(columns))
    if len(columns[5]) > _LONG_CHARS:
        for otherwise in ("IGNORE", "REPLACE"):
            connection.execute(_PUT_REPLY.format(otherwise=otherwise), _NO_REPLY)


def _summed(columns: Columns) -> Columns:
    row_id, key, received_at, cost_usd, body, text = columns
    cost_usd = None if cost_usd is None else float(cost_usd)  # as SQLite gives it back
    return (row_id, key, received_at, cost_usd, body, text, sums.REPLY.sum(row_id, key, 0, cost_usd, body, text))


_REPLY = f"SELECT {sums.selected(sums.REPLY, 'q', sums.FORMAT_WITH_SUMS)} FROM replies q WHERE row_id = ? AND request_key = ?"  # noqa: S608


@understood
def load_reply(connection: sqlite3.Connection, row_id: int, key: bytes) -> Reply | None:
    """The reply to this request of this row, unless it is to be asked anew."""
    found = connection.execute(_REPLY, (row_id, key)).fetchone()
    if found is None:
        return None
    reply = reply_of(found)
    return None if found[2] else reply


def reply_of(columns: Sequence[Any]) -> Reply:
    """A stored reply, of the columns `sums.REPLY` and its sum. Raises OtherSum."""
    sums.verify(sums.REPLY, columns, "the reply to row")
    _, _, _, cost_usd, body, text, _ = columns
    said, found = jsontext.loads(text), jsontext.loads(body)
    return Reply(
        text=said,
        message={"content": said, **found["message"]},
        model=found["model"],
        finish_reason=found["finish_reason"],
        usage=Usage(*found["usage"]),
        cost_usd=cost_usd,
        latency_s=found["latency_s"],
        attempts=found["attempts"],
    )


def account_of(text: str) -> Account:
    """A stored account."""
    found = jsontext.loads(text)
    return Account(
        model=found["model"],
        calls=found["calls"],
        attempts=found["attempts"],
        usage=Usage(found["prompt_tokens"], found["completion_tokens"]),
        cost_usd=found["cost_usd"],
        latency_s=found["latency_s"],
        finish_reason=found["finish_reason"],
    )


SHARED = 0
"""The row of replies that belong to their requests: no row has this number, so that no retry supersedes them."""


def shared_columns(row: Row, key: bytes, reply: Reply) -> Columns:
    """The same for one that belongs to its request; who paid for it stands in its body."""
    _, _, received_at, cost_usd, body, text = reply_columns(row, key, reply)
    return (SHARED, key, received_at, cost_usd, jsontext.dumps({**jsontext.loads(body), "row": row.ref}), text)


@understood
def load_shared(connection: sqlite3.Connection, key: bytes) -> tuple[Reply, int] | None:
    """The reply that belongs to a request, and the row that asked it."""
    reply = load_reply(connection, SHARED, key)
    if reply is None:
        return None
    query = "SELECT json_extract(body, '$.row') FROM replies WHERE row_id = ? AND request_key = ?"
    return reply, connection.execute(query, (SHARED, key)).fetchone()[0]


def keep_layout(connection: sqlite3.Connection, name: str, layout: str) -> None:
    """Note how a document was cut, in the place of its last version."""
    put_meta(connection, name, layout)


@understood
def load_layout(connection: sqlite3.Connection, name: str) -> Json | None:
    """How a document was cut last."""
    found = connection.execute("SELECT name, value, sum FROM meta WHERE name = ?", (name,)).fetchone()
    if found is None:
        return None
    sums.verify(sums.META, found, "how a document was cut,")
    return jsontext.loads(found[1])


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
            insert_outcomes(connection, [columns], 1 + standing.last_seq(connection))
        count += 1
    connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous=NORMAL")
    return count
