"""How a store's output stands and what its last run was. Only SELECTs, on a read-only connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from lcbatch import jsontext
from lcbatch.records import Fields, Json, Usage
from lcbatch.store.answers import paid
from lcbatch.store.damage import understood
from lcbatch.store.sums import OtherSum


@dataclass(frozen=True, slots=True)
class Standing:
    """How an output stands. `left` counts placed rows that the output's chain has not ended; `kinds` failed rows by kind."""

    rows: int
    done: int
    failed: int
    left: int
    kinds: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    spent_usd: float


@dataclass(frozen=True, slots=True)
class LastRun:
    """The latest run: when (Unix seconds), what, how it ended (None while it runs, or was killed), its last figures."""

    started_at: float
    ended_at: float | None
    exit_code: int | None
    command: str
    job: Json
    figures: Json = None


_LAST_READING = "SELECT row_id FROM places WHERE generation = (SELECT max(generation) FROM places)"

_ENDED = f"""
SELECT a.done, a.kind, s.chain_id NOT IN (
    SELECT other_id FROM accepts WHERE chain_id = (SELECT value FROM meta WHERE name = 'chain')
) AND s.row_id IN ({_LAST_READING}), count(*), sum(json_extract(a.account, '$.prompt_tokens')),
sum(json_extract(a.account, '$.completion_tokens')), sum(json_extract(a.account, '$.cost_usd'))
FROM standing s JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
GROUP BY 1, 2, 3
"""  # noqa: S608 - constants


@understood
def standing(connection: sqlite3.Connection) -> Standing:
    """Count what stands. One pass over the rows."""
    kinds: dict[str, int] = {}
    done = left = 0
    totals = [0, 0, 0.0]
    for is_done, kind, stale, count, *parts in connection.execute(_ENDED):
        totals = [total + (part or 0) for total, part in zip(totals, parts, strict=True)]
        if stale:
            left += count  # what another chain said of a row stands only until this one has been asked
        elif is_done:
            done += count
        elif kind is None:
            raise OtherSum("a row stands failed, and of no kind")
        else:
            kinds[kind] = count
    placed, without = connection.execute(
        f"SELECT count(*), count(*) - count(s.row_id) FROM ({_LAST_READING}) LEFT JOIN standing s USING (row_id)"  # noqa: S608
    ).fetchone()
    failed = sum(kinds.values())
    left += without
    spent, _ = paid(connection)
    return Standing(
        rows=max(placed, done + failed + left),
        done=done,
        failed=failed,
        left=left,
        kinds=kinds,
        prompt_tokens=int(totals[0]),
        completion_tokens=int(totals[1]),
        cost_usd=float(totals[2]),
        spent_usd=float(spent),
    )


@understood
def last_run(connection: sqlite3.Connection) -> LastRun | None:
    """The latest run, None where there was none."""
    found: tuple[Any, ...] | None = connection.execute("SELECT * FROM runs ORDER BY run_id DESC LIMIT 1").fetchone()
    if found is None:
        return None
    _, started_at, ended_at, _, command, job, exit_code, *noted = found  # a store of format 1 has no figures yet
    figures = jsontext.loads(noted[0]) if noted and noted[0] else None
    return LastRun(started_at, ended_at, exit_code, command, jsontext.loads(job), figures)


@understood
def row_model(connection: sqlite3.Connection) -> str | None:
    """The model that the first row of OpenAI's Batch form names; None where no row does."""
    query = "SELECT json_extract(fields, '$.body.model') FROM rows WHERE json_type(fields, '$.body.model') = 'text'"
    found = connection.execute(f"{query} LIMIT 1").fetchone()
    return None if found is None else str(found[0])


@understood
def generation(connection: sqlite3.Connection) -> int:
    """The reading of the input that counts."""
    return int(connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()[0])


@understood
def standing_documents(connection: sqlite3.Connection) -> frozenset[str]:
    """Ids of the documents that stand in the output."""
    query = "SELECT id FROM standing JOIN rows USING (row_id) WHERE document IS NOT NULL AND id IS NOT NULL"
    return frozenset(label for (label,) in connection.execute(query))


@understood
def placed_documents(connection: sqlite3.Connection, generation: int, rows: int) -> frozenset[str]:
    """Ids of the documents among the first so many rows of a reading of the input."""
    query = (
        "SELECT id FROM places JOIN rows USING (row_id) "
        "WHERE generation = ? AND ordinal < ? AND document IS NOT NULL AND id IS NOT NULL"
    )
    return frozenset(label for (label,) in connection.execute(query, (generation, rows)))


@dataclass(frozen=True, slots=True)
class PastRow:
    """What an answered row took. `replies` are (answer tokens, seconds) of its calls.

    `fields` and `document_bytes` are of rows that the very same chain answered, from which its requests can be made again; of
    a document's later versions there are none.
    """

    usage: Usage
    cost_usd: float | None
    calls: int
    replies: tuple[tuple[int, float], ...]
    fields: Fields | None = None
    document_bytes: int | None = None


_PAST = """
SELECT a.row_id, a.chain_id, a.account, r.fields, json_extract(r.document, '$[2]'), r.id
FROM answers a JOIN rows r USING (row_id) WHERE a.done AND a.shared_from IS NULL
AND a.chain_id IN (SELECT value FROM json_each(?))
ORDER BY a.rowid DESC LIMIT ?
"""


@understood
def past_rows(connection: sqlite3.Connection, identity: Mapping[str, Json], most: int) -> list[PastRow]:
    """The latest answered rows of this model (of a user's own chain: of that chain), newest first.

    `identity` is the chain's, as the store keeps it.
    """
    ours = jsontext.loads(jsontext.canonical(identity))
    chains = {
        chain_id: jsontext.loads(text) for chain_id, text in connection.execute("SELECT chain_id, identity FROM chains")
    }
    alike = [chain_id for chain_id, theirs in chains.items() if _same_model(theirs, ours)]
    found = []
    past = connection.execute(_PAST, (jsontext.dumps(alike), most)).fetchall()
    first = _first_versions(connection, {label for *_, size, label in past if size is not None and label is not None})
    for row_id, chain_id, text, fields, size, label in past:
        account = jsontext.loads(text)
        bodies = connection.execute("SELECT body FROM replies WHERE row_id = ? AND NOT superseded", (row_id,))
        replies = [jsontext.loads(body) for (body,) in bodies]
        same = chains[chain_id] == ours
        found.append(
            PastRow(
                usage=Usage(account["prompt_tokens"], account["completion_tokens"]),
                cost_usd=account["cost_usd"],
                calls=account["calls"],
                replies=tuple((reply["usage"][1], reply["latency_s"]) for reply in replies),
                fields=jsontext.loads(fields) if same and size is None else None,
                document_bytes=size if same and first.get(label, row_id) == row_id else None,
            )
        )
    return found


def _first_versions(connection: sqlite3.Connection, labels: Set[str]) -> dict[str, int]:
    """The rows that documents of these ids had first. One pass over the rows.

    A later version has paid only for the parts that an edit changed: beside its size, that says nothing of its tokens.
    """
    if not labels:
        return {}
    query = "SELECT id, min(row_id) FROM rows WHERE id IN (SELECT value FROM json_each(?)) GROUP BY id"
    return dict(connection.execute(query, (jsontext.dumps(sorted(labels)),)).fetchall())


def _same_model(theirs: Mapping[str, Json], ours: Mapping[str, Json]) -> bool:
    if ours.get("model") is None:
        return bool(theirs.get("chain") == ours.get("chain"))
    return bool(theirs.get("model") == ours.get("model"))


ANSWERED, FAILED = 1, 2


@understood
def how_rows_ended(connection: sqlite3.Connection) -> bytearray:
    """By row number: ANSWERED and FAILED, or both, under whatever chain; 0 for one that never ended. A byte a row."""
    highest = connection.execute("SELECT coalesce(max(row_id), 0) FROM answers").fetchone()[0]
    ended = bytearray(highest + 1)
    for row_id, done in connection.execute("SELECT row_id, done FROM answers"):
        ended[row_id] |= ANSWERED if done else FAILED
    return ended
