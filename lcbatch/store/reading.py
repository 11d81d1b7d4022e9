"""Reading the store: what stands, in either order, and how things are. Only SELECTs, on a read-only connection.

Every query takes one page and ends, so that no reader holds the write-ahead log back while it works.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from lcbatch import jsontext
from lcbatch.messages import raw_answer
from lcbatch.ports import Entry, Order, View
from lcbatch.records import Fields, Json, Usage
from lcbatch.store.answers import paid
from lcbatch.store.schema import damaged, verdict

_PAGE = 500

_PAGE_CHARS = 4 * 1024 * 1024
"""A page of rows ends with the one that brings it beyond so many characters."""

_ENTRY = """
s.seq, {ordinal}, r.row_id, r.id, r.place, CASE WHEN iif(a.done, ?1, ?2) THEN r.fields END, r.document IS NOT NULL,
CASE WHEN a.done AND ?1 THEN coalesce(a.output, q.text) END, a.done, a.kind, a.message, a.account, {twin}, {sample},
CASE WHEN NOT a.done AND ?2 THEN q.text END, CASE WHEN NOT a.done AND ?2 THEN q.body END
"""
"""`?1` and `?2`: whether rows that are done, and those that failed, are shown. Of the others no text is read."""

_JOINS = """
{join} rows r ON r.row_id = s.row_id
{join} answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
LEFT JOIN replies q ON q.row_id = {owner} AND q.request_key = a.reply_key
"""

_TWINS_SINCE = 3
_SAMPLES_SINCE = 4
"""The first formats that have them. Shared answers came with samples."""


@dataclass(frozen=True, slots=True)
class _Queries:
    """Pages of entries; the first two parameters of each but the last are what a view shows, the last one is the page's size."""

    by_seq: str
    by_ordinal: str
    without_place: str
    any_without_place: str

    @classmethod
    def over(cls, version: int, *, visible: str) -> _Queries:
        """Queries over a store of this format, which an export may be older than; `visible` is a condition on `standing s`."""
        twin = "r.twin" if version >= _TWINS_SINCE else "0"
        has_samples = version >= _SAMPLES_SINCE
        told = partial(_ENTRY.format, twin=twin, sample="r.sample" if has_samples else "0")
        joined = partial(_JOINS.format, owner="coalesce(a.shared_from, a.row_id)" if has_samples else "a.row_id")
        entry, joins = told(ordinal="-1"), joined(join="JOIN")
        unplaced = f"{visible} AND s.row_id NOT IN (SELECT row_id FROM places WHERE generation = ?)"  # noqa: S608 - constants
        return cls(
            by_seq=f"SELECT {entry} FROM standing s {joins} WHERE s.seq > ? AND {visible} ORDER BY s.seq LIMIT ?",  # noqa: S608
            by_ordinal=f"SELECT {told(ordinal='p.ordinal')} FROM places p "  # noqa: S608
            f"LEFT JOIN standing s ON s.row_id = p.row_id AND {visible} {joined(join='LEFT JOIN')}"
            "WHERE p.generation = ? AND p.ordinal >= ? ORDER BY p.ordinal LIMIT ?",
            without_place=f"SELECT {entry} FROM standing s {joins} "  # noqa: S608
            f"WHERE s.seq > ? AND {unplaced} ORDER BY s.seq LIMIT ?",
            any_without_place=f"SELECT 1 FROM standing s WHERE {unplaced} LIMIT ?",  # noqa: S608
        )


class Views:
    """Entries of the rows that stand, over one connection. Each projector comes with its own thread.

    `without_reopened` leaves out what the run under way asks again. One query runs at a time: Python keeps one prepared
    statement a text, and two threads would share it.
    """

    def __init__(
        self, connection: sqlite3.Connection, generation: Callable[[], int], *, without_reopened: bool = False
    ) -> None:
        self._connection = connection
        self._generation = generation
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        self._queries = _Queries.over(version, visible="NOT s.again" if without_reopened else "1")
        self._looked: dict[View, tuple[int, int]] = {}
        self._turn = Lock()
        self._path = Path(connection.execute("PRAGMA database_list").fetchone()[2])

    def after(self, view: View, after: int) -> Iterator[list[Entry]]:
        """Groups after a position, as ports.Projectable says.

        How far a view has looked is remembered: rows that it does not show do not move its position, and none is read again.
        """
        known, looked = self._looked.get(view, (after, after))
        at = max(looked, after) if known == after else after
        if view.order is Order.FINISHED:
            yield from self._by_seq(view, after, at)
        else:
            yield from self._by_ordinal(view, after, at)

    def all(self, view: View) -> Iterator[Entry]:
        """Everything that stands and is shown; what has no place in the input comes last."""
        by_seq, between = self._queries.by_seq, tuple[int, ...]()
        if view.order is Order.INPUT:
            after = 0
            while page := self._fetch(self._queries.by_ordinal, (*_shows(view), self._generation(), after, _PAGE)):
                yield from self._entries(page, view)
                after += len(page)
            by_seq, between = self._queries.without_place, (self._generation(),)
        after = 0
        while page := self._fetch(by_seq, (*_shows(view), after, *between, _PAGE)):
            yield from self._entries(page, view)
            after = page[-1][0]

    def has_unplaced(self) -> bool:
        """Whether rows stand that are not in the input any more."""
        return bool(self._fetch(self._queries.any_without_place, (self._generation(), 1)))

    def _fetch(self, query: str, arguments: tuple[int, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._turn, closing(self._connection.execute(query, arguments)) as found:
                return _page_of(found)
        except sqlite3.DatabaseError as error:
            raise verdict(self._path, error) from error

    def _entries(self, page: Sequence[tuple[Any, ...]], view: View) -> list[Entry]:
        try:
            return [_entry(columns) for columns in page if _shown(columns, view)]
        except ValueError as error:
            raise damaged(self._path, error) from error

    def _by_seq(self, view: View, after: int, at: int) -> Iterator[list[Entry]]:
        while page := self._fetch(self._queries.by_seq, (*_shows(view), at, _PAGE)):
            entries = self._entries(page, view)
            at = page[-1][0]
            after = entries[-1].seq if entries else after
            self._looked[view] = (after, at)
            yield from _apart(entries)

    def _by_ordinal(self, view: View, after: int, at: int) -> Iterator[list[Entry]]:
        """Up to the first row that does not stand."""
        while page := self._fetch(self._queries.by_ordinal, (*_shows(view), self._generation(), at, _PAGE)):
            standing = [columns for columns in page if columns[0] is not None]
            gap = next((index for index, columns in enumerate(page) if columns[0] is None), None)
            entries = self._entries(standing[:gap], view)
            at += len(page) if gap is None else gap
            after = entries[-1].ordinal + 1 if entries else after
            self._looked[view] = (after, at)
            yield from _apart(entries)
            if gap is not None:
                return


def _page_of(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The next rows, fewer where they are long: 256 rows may be of 50 MB each."""
    page, chars = [], 0
    for columns in found:
        page.append(columns)
        chars += sum(len(value) for value in columns if isinstance(value, str))
        if chars > _PAGE_CHARS:
            break
    return page


def _apart(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The same in groups that can be written at once; a long one, whose text stands several times in memory meanwhile, alone."""
    group: list[Entry] = []
    for entry in entries:
        is_long = len(entry.fields) + len(entry.output or "") > _PAGE_CHARS
        if group and is_long:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _shows(view: View) -> tuple[int, int]:
    return int(view.done), int(view.failed)


def _shown(columns: tuple[Any, ...], view: View) -> bool:
    if columns[0] is None:
        return False
    return view.done if columns[8] else view.failed


def _entry(columns: tuple[Any, ...]) -> Entry:
    """What a row of a query says. Raises ValueError where that cannot have been written so."""
    (
        seq,
        ordinal,
        row_id,
        label,
        place,
        fields,
        is_document,
        output,
        done,
        kind,
        message,
        account,
        twin,
        sample,
        *reply,
    ) = columns
    if done and output is None:
        raise ValueError(f"the answer to row {row_id} is gone")
    return Entry(
        seq=seq,
        ordinal=ordinal,
        id=label if label is not None else f"row-{row_id}",
        place=place,
        fields=fields,
        is_document=bool(is_document),
        output=output,
        kind=kind,
        message=jsontext.loads(message) if not done and message is not None else None,
        meta=jsontext.loads(account),
        twin=twin,
        answer=_raw_answer(*reply),
        sample=sample,
    )


def _raw_answer(text: str | None, body: str | None) -> str | None:
    """What the model said to a row that failed all the same; None where it said nothing."""
    if text is None or body is None:
        return None
    return raw_answer(jsontext.loads(text), jsontext.loads(body)["message"]) or None


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


def standing(connection: sqlite3.Connection) -> Standing:
    """Count what stands. One pass over the rows."""
    kinds: dict[str, int] = {}
    done = left = 0
    totals = [0, 0, 0.0]
    for is_done, kind, stale, count, *sums in connection.execute(_ENDED):
        totals = [total + (part or 0) for total, part in zip(totals, sums, strict=True)]
        if stale:
            left += count  # what another chain said of a row stands only until this one has been asked
        elif is_done:
            done += count
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


def last_run(connection: sqlite3.Connection) -> LastRun | None:
    """The latest run, None where there was none."""
    found: tuple[Any, ...] | None = connection.execute("SELECT * FROM runs ORDER BY run_id DESC LIMIT 1").fetchone()
    if found is None:
        return None
    _, started_at, ended_at, _, command, job, exit_code, *noted = found  # a store of format 1 has no figures yet
    figures = jsontext.loads(noted[0]) if noted and noted[0] else None
    return LastRun(started_at, ended_at, exit_code, command, jsontext.loads(job), figures)


def row_model(connection: sqlite3.Connection) -> str | None:
    """The model that the first row of OpenAI's Batch form names; None where no row does."""
    query = "SELECT json_extract(fields, '$.body.model') FROM rows WHERE json_type(fields, '$.body.model') = 'text'"
    found = connection.execute(f"{query} LIMIT 1").fetchone()
    return None if found is None else str(found[0])


def generation(connection: sqlite3.Connection) -> int:
    """The reading of the input that counts."""
    return int(connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()[0])


def standing_documents(connection: sqlite3.Connection) -> frozenset[str]:
    """Ids of the documents that stand in the output."""
    query = "SELECT id FROM standing JOIN rows USING (row_id) WHERE document IS NOT NULL AND id IS NOT NULL"
    return frozenset(label for (label,) in connection.execute(query))


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


def how_rows_ended(connection: sqlite3.Connection) -> bytearray:
    """By row number: ANSWERED and FAILED, or both, under whatever chain; 0 for one that never ended. A byte a row."""
    highest = connection.execute("SELECT coalesce(max(row_id), 0) FROM answers").fetchone()[0]
    ended = bytearray(highest + 1)
    for row_id, done in connection.execute("SELECT row_id, done FROM answers"):
        ended[row_id] |= ANSWERED if done else FAILED
    return ended
