"""Reading the store: what stands, in either order, and how things are. Only SELECTs, on a read-only connection.

Every query takes one page and ends, so that no reader holds the write-ahead log back while it works.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from threading import Lock
from typing import Any

from lcbatch import jsontext
from lcbatch.messages import raw_answer
from lcbatch.ports import Entry, Order, View
from lcbatch.records import Fields, Json, Usage
from lcbatch.store import sums
from lcbatch.store.answers import paid
from lcbatch.store.damage import path_of, told, understood
from lcbatch.store.sums import OtherSum

_PAGE = 500

_PAGE_CHARS = 4 * 1024 * 1024
"""A page of rows ends with the one that brings it beyond so many characters."""

_SHOWN = "iif(a.done, ?1, ?2)"
"""`?1` and `?2`: whether rows that are done, and those that failed, are shown. Of the others no text is read."""

_WANTED = f"(a.done IS NULL OR (a.done <> 0) = (a.kind IS NOT NULL) OR {_SHOWN})"
"""Rows that a view shows, and those of which it cannot be told. An errors file would read every row that is done otherwise."""

_JOINS = """
LEFT JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
LEFT JOIN rows r ON r.row_id = s.row_id
LEFT JOIN replies q ON q.row_id = {owner} AND q.request_key = a.reply_key
"""

_SHARED_SINCE = 4
"""The first format that has shared answers."""

_STANDING = slice(2, 2 + len(sums.STANDING) + 1)
_ROW = slice(_STANDING.stop, _STANDING.stop + len(sums.ROW) + 1)
_ANSWER = slice(_ROW.stop, _ROW.stop + len(sums.ANSWER) + 1)
_REPLY = slice(_ANSWER.stop, _ANSWER.stop + len(sums.REPLY) + 1)
"""Where the records stand in what a query gives. The number under which one stands, and the ordinal, come before them."""

_DONE = _ANSWER.start + sums.ANSWER.columns.index("done")
_KIND = _ANSWER.start + sums.ANSWER.columns.index("kind")
_TEXTS_OF = itemgetter(
    _ROW.start + sums.ROW.columns.index("fields"),
    _ANSWER.start + sums.ANSWER.columns.index("output"),
    _REPLY.start + sums.REPLY.columns.index("body"),
    _REPLY.start + sums.REPLY.columns.index("text"),
)
"""What may be long of what a query gives."""


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
        records = ((sums.STANDING, "s"), (sums.ROW, "r"), (sums.ANSWER, "a"), (sums.REPLY, "q"))
        records_told = ", ".join(
            sums.selected(columns, alias, version, texts_where=_SHOWN) for columns, alias in records
        )
        joins = _JOINS.format(owner="coalesce(a.shared_from, a.row_id)" if version >= _SHARED_SINCE else "a.row_id")
        entry = f"s.seq, -1, {records_told}"
        unplaced = f"{visible} AND s.row_id NOT IN (SELECT row_id FROM places WHERE generation = ?)"  # noqa: S608 - constants
        return cls(
            by_seq=f"SELECT {entry} FROM standing s {joins} WHERE s.seq > ? AND {visible} AND {_WANTED} "  # noqa: S608
            "ORDER BY s.seq LIMIT ?",
            by_ordinal=f"SELECT s.seq, p.ordinal, {records_told} FROM places p "  # noqa: S608
            f"LEFT JOIN standing s ON s.row_id = p.row_id AND {visible} {joins}"
            "WHERE p.generation = ? AND p.ordinal >= ? ORDER BY p.ordinal LIMIT ?",
            without_place=f"SELECT {entry} FROM standing s {joins} "  # noqa: S608
            f"WHERE s.seq > ? AND {unplaced} AND {_WANTED} ORDER BY s.seq LIMIT ?",
            any_without_place=f"SELECT 1 FROM standing s WHERE {unplaced} LIMIT ?",  # noqa: S608
        )


class Views:
    """Entries of the rows that stand, over one connection. Each projector comes with its own thread.

    Of rows from `first_new_row` on nothing is held against its sum. `without_reopened` leaves out what the run under way asks
    again. One query runs at a time: Python keeps one prepared statement a text, and two threads would share it.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        generation: Callable[[], int],
        *,
        without_reopened: bool = False,
        first_new_row: int | None = None,
    ) -> None:
        self._connection = connection
        self._generation = generation
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        self._queries = _Queries.over(version, visible="s.again IS NOT 1" if without_reopened else "1")
        self._first_new_row = math.inf if first_new_row is None else first_new_row
        self._looked: dict[View, tuple[int, int]] = {}
        self._turn = Lock()
        self._path = path_of(connection)
        with told(self._path):
            _check_order(connection)

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
            while page := self._places(view, after):
                yield from self._entries(page, view)
                after += len(page)
            by_seq, between = self._queries.without_place, (self._generation(),)
        after = 0
        while page := self._fetch(by_seq, (*_shows(view), after, *between, _PAGE)):
            yield from self._entries(page, view)
            after = page[-1][0]

    def has_unplaced(self) -> bool:
        """Whether rows stand that are not in the input any more."""
        return self._first(self._queries.any_without_place, (self._generation(), 1)) is not None

    def _first(self, query: str, arguments: tuple[int, ...] = ()) -> Any:
        with told(self._path), self._turn, closing(self._connection.execute(query, arguments)) as found:
            return found.fetchone()

    def _fetch(self, query: str, arguments: tuple[int, ...]) -> list[tuple[Any, ...]]:
        with told(self._path), self._turn, closing(self._connection.execute(query, arguments)) as found:
            return _page_of(found)

    def _places(self, view: View, at: int) -> list[tuple[Any, ...]]:
        page = self._fetch(self._queries.by_ordinal, (*_shows(view), self._generation(), at, _PAGE))
        with told(self._path):
            if any(columns[1] != ordinal for ordinal, columns in enumerate(page, at)):
                raise OtherSum(f"of the input as it was read, a place after {at} is gone")
        return page

    def _entries(self, page: Sequence[tuple[Any, ...]], view: View) -> list[Entry]:
        with told(self._path):
            return [_entry(columns, new_from=self._first_new_row) for columns in page if _shown(columns, view)]

    def _by_seq(self, view: View, after: int, at: int) -> Iterator[list[Entry]]:
        (top,) = self._first("SELECT coalesce(max(seq), 0) FROM standing")
        while page := self._fetch(self._queries.by_seq, (*_shows(view), at, _PAGE)):
            entries = self._entries(page, view)
            at = page[-1][0]
            after = entries[-1].seq if entries else after
            self._looked[view] = (after, at)
            yield from _apart(entries)
        self._looked[view] = (after, max(at, top))

    def _by_ordinal(self, view: View, after: int, at: int) -> Iterator[list[Entry]]:
        """Up to the first row that does not stand."""
        while page := self._places(view, at):
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
        fields, output, body, text = _TEXTS_OF(columns)
        chars += len(fields or "") + len(output or "") + len(body or "") + len(text or "")
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


def _check_order(connection: sqlite3.Connection) -> None:
    """Raise OtherSum where the order of the output does not lead to all that stands: what it leaves out would be missing."""
    found, ordered = connection.execute(
        "SELECT (SELECT count(*) FROM standing NOT INDEXED), "
        "(SELECT count(*) FROM standing INDEXED BY standing_by_seq WHERE seq > 0)"
    ).fetchone()
    if found != ordered:
        raise OtherSum(f"{found} rows stand, and their order has {ordered}")


def _shown(columns: tuple[Any, ...], view: View) -> bool:
    """Whether a view shows it. Raises OtherSum where that cannot be relied on."""
    seq, ordinal = columns[:2]
    if seq is None and ordinal >= 0:
        return False  # nothing stands at this place of the input
    sums.verify(sums.STANDING, columns[_STANDING], "what stands for row")
    done = columns[_DONE]
    if done is None or bool(done) != (columns[_KIND] is None):
        raise OtherSum(f"the answer to row {columns[_STANDING.start]} is gone, or not as it was written")
    return view.done if done else view.failed


def _entry(columns: tuple[Any, ...], *, new_from: float) -> Entry:
    """What a row of a query says. Raises OtherSum, and ValueError where that cannot have been written so.

    From row `new_from` on it was written by this very process, and is not held against its sums.
    """
    row, answer, reply = columns[_ROW], columns[_ANSWER], columns[_REPLY]
    is_new = columns[_STANDING.start] >= new_from
    if not is_new:
        sums.verify(sums.ROW, row, "row")
        sums.verify(sums.ANSWER, answer, "the answer to row")
    row_id, _, _, _, label, place, document, _, fields, twin, sample, _ = row
    _, _, _, done, _, kind, message, account, output, _, _ = answer
    if output is None and reply[0] is not None and not is_new:
        sums.verify(sums.REPLY, reply, "the reply to row")
    _, _, _, _, body, text, _ = reply
    if done and output is None:
        output = text
    if row_id is None or (done and output is None):
        raise OtherSum(f"the answer to row {columns[_STANDING.start]} is gone")
    return Entry(
        seq=columns[0],
        ordinal=columns[1],
        id=label if label is not None else f"row-{row_id}",
        place=place,
        fields=fields,
        is_document=document is not None,
        output=output if done else None,
        kind=kind,
        message=jsontext.loads(message) if not done and message is not None else None,
        meta=jsontext.loads(account),
        twin=twin,
        answer=None if done else _raw_answer(text, body),
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
