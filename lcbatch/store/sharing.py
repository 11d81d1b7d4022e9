"""Equal rows that are called once (--dedupe). Statements over a connection, as in answers.py.

Of rows that are equal for the chain the first leads: a row without an answer takes over what it came to, or waits for that in
`followers`, which lives in a temporary table and is made anew by each reading. What is taken over is an answer of the row's own,
with nothing of the cost and with the leader's reply for its text: later runs find it as any other, with --dedupe or without.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.errors import Kind
from lcbatch.events import RowsShared
from lcbatch.store import standing, sums

AS_IT_STANDS = """
LEFT JOIN standing s ON s.row_id = r.row_id AND NOT s.again
LEFT JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
"""
"""What rows `r` came to, but for those that are being asked again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a row ended, under which chain; None each while that is open."""

    row_id: int
    chain_id: int | None
    done: int | None
    kind: str | None


def begin(connection: sqlite3.Connection) -> None:
    """Nobody waits for another row."""
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS followers (row_id INTEGER PRIMARY KEY, leader INTEGER NOT NULL)"
    )
    connection.execute("CREATE INDEX IF NOT EXISTS temp.followers_by_leader ON followers (leader)")
    connection.execute("DELETE FROM temp.followers")


_LEADER = f"""
SELECT r.row_id, a.chain_id, a.done, a.kind FROM rows r {AS_IT_STANDS}
WHERE r.content = ? AND r.equal_before = 0 AND r.failure IS NULL
"""  # noqa: S608 - a constant


def leader_of(connection: sqlite3.Connection, content: bytes) -> Ended | None:
    """The first of the rows that say this; None where it could not be read, which is its own misfortune."""
    found = connection.execute(_LEADER, (content,)).fetchone()
    return None if found is None else Ended(*found)


_ANY_ANSWER = """
SELECT r.row_id, a.chain_id, a.done, a.kind
FROM rows r JOIN answers a ON a.row_id = r.row_id JOIN accepts ON accepts.other_id = a.chain_id
WHERE r.content = ? AND a.done AND accepts.chain_id = ?
ORDER BY a.chain_id = accepts.chain_id DESC, r.equal_before LIMIT 1
"""


def any_answer(connection: sqlite3.Connection, content: bytes, chain_id: int) -> Ended | None:
    """An answer that this chain accepts of any row that says this. Looks through all of them: for the leader alone."""
    found = connection.execute(_ANY_ANSWER, (content, chain_id)).fetchone()
    return None if found is None else Ended(*found)


def follow(connection: sqlite3.Connection, row_id: int, leader: int) -> None:
    """The row waits for what its leader comes to."""
    connection.execute("INSERT OR REPLACE INTO temp.followers VALUES (?, ?)", (row_id, leader))


_NOTHING_PAID = """
json_set(account, '$.prompt_tokens', 0, '$.completion_tokens', 0, '$.cost_usd', 0.0, '$.latency_s', 0.0, '$.calls', 0,
'$.attempts', 0)
"""

_GIVE = f"""
INSERT INTO answers (
    row_id, chain_id, sample, done, reply_key, kind, message, account, finished_at, output, shared_from, sum
)
SELECT row_id, chain_id, sample, done, reply_key, kind, message, account, finished_at, output, shared_from,
CASE WHEN is_whole THEN {sums.summed(sums.ANSWER)} ELSE -1 END FROM (
    SELECT t.row_id, a.chain_id, a.sample, a.done, a.reply_key, a.kind, a.message, {_NOTHING_PAID} AS account,
    a.finished_at, a.output, coalesce(a.shared_from, a.row_id) AS shared_from,
    a.sum IS NULL OR a.sum = {sums.summed(sums.ANSWER, "a.")} AS is_whole
    FROM answers a JOIN ({{takers}}) AS t
    WHERE a.row_id = :source AND a.chain_id = :chain AND a.sample = 0
) WHERE true
ON CONFLICT (row_id, chain_id, sample) DO UPDATE SET done = excluded.done, reply_key = excluded.reply_key,
    kind = excluded.kind, message = excluded.message, account = excluded.account, finished_at = excluded.finished_at,
    output = excluded.output, asked_anew = 0, shared_from = excluded.shared_from, sum = excluded.sum
"""  # noqa: S608 - constants
"""What is given of an answer that is not whole is not whole either: no sum is -1."""

_STAND = """
INSERT OR REPLACE INTO standing (row_id, chain_id, sample, seq, sum)
SELECT row_id, :chain, 0, seq, sum_of(row_id, :chain, 0, seq)
FROM (SELECT row_id, :seq - 1 + row_number() OVER (ORDER BY row_id) AS seq FROM ({takers}))
"""

_ONE = "SELECT :taker AS row_id"
_FOLLOWERS = "SELECT row_id FROM temp.followers WHERE leader = :leader"


def give(connection: sqlite3.Connection, source: Ended, taker: int, next_seq: int) -> int:
    """Let what one row came to stand for another; the next free number."""
    given = {"source": source.row_id, "chain": source.chain_id, "taker": taker, "seq": next_seq}
    if not source.done:
        standing.lose_answers(connection, [taker])
    connection.execute(_GIVE.format(takers=_ONE), given)
    connection.execute(_STAND.format(takers=_ONE), given)
    return next_seq + 1


def give_followers(connection: sqlite3.Connection, source: Ended, leader: int, next_seq: int) -> tuple[int, int]:
    """Let what a row came to stand for all who wait for `leader`; (how many these are, the next free number)."""
    given = {"source": source.row_id, "chain": source.chain_id, "leader": leader, "seq": next_seq}
    if not source.done:
        standing.lose_answers_of(connection, _FOLLOWERS, given)
    connection.execute(_GIVE.format(takers=_FOLLOWERS), given)
    connection.execute(_STAND.format(takers=_FOLLOWERS), given)
    count = connection.execute("DELETE FROM temp.followers WHERE leader = :leader", given).rowcount
    return count, next_seq + count


_ENDED_LEADERS = f"""
SELECT r.row_id, a.chain_id, a.done, a.kind FROM rows r {AS_IT_STANDS} WHERE r.row_id IN (
    SELECT leader FROM temp.followers WHERE leader IN (SELECT value FROM json_each(?))
)
"""  # noqa: S608 - a constant


def share(connection: sqlite3.Connection, ended: Iterable[int], next_seq: int) -> tuple[RowsShared, int]:
    """Those who wait for rows that have just ended stand as these do; how many, and the next free number."""
    reused, failed = 0, Counter[Kind]()
    leaders = connection.execute(_ENDED_LEADERS, (jsontext.dumps(list(ended)),)).fetchall()
    for leader in (Ended(*columns) for columns in leaders):
        count, next_seq = give_followers(connection, leader, leader.row_id, next_seq)
        if leader.done:
            reused += count
        else:
            failed[Kind(leader.kind or Kind.CHAIN)] += count
    return RowsShared(reused, failed), next_seq


# --- rows that failed


_LEADERS_OF_CHOSEN = """
INSERT INTO temp.followers
SELECT row_id, leader FROM (
    SELECT row_id, first_value(row_id) OVER (PARTITION BY content ORDER BY equal_before) AS leader
    FROM temp.chosen JOIN rows USING (row_id) WHERE failure IS NULL
) WHERE row_id <> leader
"""


def share_chosen(connection: sqlite3.Connection, chain_id: int, next_seq: int) -> tuple[int, int]:
    """Of equal rows in `chosen` one stays, and the others wait for it; none of them where an equal row is answered.

    How many were answered so, and the next free number.
    """
    connection.execute(_LEADERS_OF_CHOSEN)
    connection.execute("DELETE FROM temp.chosen WHERE row_id IN (SELECT row_id FROM temp.followers)")
    query = "SELECT row_id, content FROM temp.chosen JOIN rows USING (row_id) WHERE failure IS NULL"
    answered = 0
    for row_id, content in connection.execute(query).fetchall():
        source = any_answer(connection, content, chain_id)
        if source is None:
            continue
        followers, next_seq = give_followers(connection, source, row_id, next_seq)
        next_seq = give(connection, source, row_id, next_seq)
        connection.execute("DELETE FROM temp.chosen WHERE row_id = ?", (row_id,))
        answered += 1 + followers
    return answered, next_seq
