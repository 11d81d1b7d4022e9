"""Reading the store: what stands, in either order, and how things are. Only SELECTs, on a read-only connection.

Every query takes one page and ends, so that no reader holds the write-ahead log back while it works.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from lcbatch import jsontext
from lcbatch.ports import Entry, Order, View
from lcbatch.records import Json
from lcbatch.store.answers import paid
from lcbatch.store.schema import verdict

_PAGE = 500

_ENTRY = """
s.seq, {ordinal}, r.row_id, r.id, r.place, r.fields, r.document IS NOT NULL,
CASE WHEN a.done THEN coalesce(a.output, q.text) END, a.done, a.kind, a.message, a.account
"""

_JOINS = """
JOIN rows r ON r.row_id = s.row_id
JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
LEFT JOIN replies q ON q.row_id = a.row_id AND q.request_key = a.reply_key
"""

_BY_SEQ = f"SELECT {_ENTRY.format(ordinal='-1')} FROM standing s {_JOINS} WHERE s.seq > ? ORDER BY s.seq LIMIT ?"  # noqa: S608 - constants

_BY_ORDINAL = (
    f"SELECT {_ENTRY.format(ordinal='p.ordinal')} FROM places p LEFT JOIN standing s ON s.row_id = p.row_id "  # noqa: S608 - constants
    f"{_JOINS.replace('JOIN', 'LEFT JOIN').replace('LEFT LEFT', 'LEFT')} "
    "WHERE p.generation = ? AND p.ordinal >= ? ORDER BY p.ordinal LIMIT ?"
)

_WITHOUT_PLACE = (
    f"SELECT {_ENTRY.format(ordinal='-1')} FROM standing s {_JOINS} WHERE s.seq > ? "  # noqa: S608 - constants
    "AND s.row_id NOT IN (SELECT row_id FROM places WHERE generation = ?) ORDER BY s.seq LIMIT ?"
)


class Views:
    """Entries of the rows that stand, over one connection. Each projector comes with its own thread.

    One query runs at a time: Python keeps one prepared statement a text, and two threads would share it.
    """

    def __init__(self, connection: sqlite3.Connection, generation: Callable[[], int]) -> None:
        self._connection = connection
        self._generation = generation
        self._reached: dict[str, tuple[int, int]] = {}
        self._turn = Lock()
        self._path = Path(connection.execute("PRAGMA database_list").fetchone()[2])

    def after(self, view: View, after: int) -> Iterator[list[Entry]]:
        """Groups after a position, as ports.Projectable says."""
        if view.order is Order.FINISHED:
            yield from self._by_seq(view, after)
        else:
            yield from self._by_ordinal(view, after)

    def all(self, view: View) -> Iterator[Entry]:
        """Everything that stands and is shown; what has no place in the input comes last."""
        if view.order is Order.FINISHED:
            for group in self._by_seq(view, 0):
                yield from group
            return
        after = 0
        while page := self._fetch(_BY_ORDINAL, (self._generation(), after, _PAGE)):
            yield from (_entry(columns) for columns in page if _shown(columns, view))
            after += len(page)
        for page in self._pages(lambda seq: (_WITHOUT_PLACE, (seq, self._generation(), _PAGE))):
            yield from (_entry(columns) for columns in page if _shown(columns, view))

    def _fetch(self, query: str, arguments: tuple[int, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._turn:
                return self._connection.execute(query, arguments).fetchall()
        except sqlite3.DatabaseError as error:
            raise verdict(self._path, error) from error

    def _by_seq(self, view: View, after: int) -> Iterator[list[Entry]]:
        for page in self._pages(lambda seq: (_BY_SEQ, (seq, _PAGE)), after):
            if entries := [_entry(columns) for columns in page if _shown(columns, view)]:
                yield entries

    def _pages(
        self, query: Callable[[int], tuple[str, tuple[int, ...]]], after: int = 0
    ) -> Iterator[list[tuple[Any, ...]]]:
        while page := self._fetch(*query(after)):
            yield page
            after = page[-1][0]

    def _by_ordinal(self, view: View, after: int) -> Iterator[list[Entry]]:
        """Up to the first row that does not stand. Rows that are not shown are remembered, so that none is read again."""
        position, reached = self._reached.get(view.name, (-1, after))
        at = max(reached, after) if position == after else after
        while page := self._fetch(_BY_ORDINAL, (self._generation(), at, _PAGE)):
            standing = [columns for columns in page if columns[0] is not None]
            gap = next((index for index, columns in enumerate(page) if columns[0] is None), None)
            entries = [_entry(columns) for columns in standing[:gap] if _shown(columns, view)]
            at += len(page) if gap is None else gap
            self._reached[view.name] = (entries[-1].ordinal + 1 if entries else after, at)
            if entries:
                after = entries[-1].ordinal + 1
                yield entries
            if gap is not None:
                return


def _shown(columns: tuple[Any, ...], view: View) -> bool:
    if columns[0] is None:
        return False
    return view.done if columns[8] else view.failed


def _entry(columns: tuple[Any, ...]) -> Entry:
    seq, ordinal, row_id, label, place, fields, is_document, output, done, kind, message, account = columns
    return Entry(
        seq=seq,
        ordinal=ordinal,
        id=label if label is not None else str(row_id),
        place=place,
        fields=fields,
        is_document=bool(is_document),
        output=output,
        kind=kind,
        message=jsontext.loads(message) if not done and message is not None else None,
        meta=jsontext.loads(account),
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """How an output stands. `left` counts placed rows without an answer; `kinds` failed rows by kind."""

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


def standing(connection: sqlite3.Connection) -> Standing:
    """Count what stands. One pass over the rows."""
    kinds: dict[str, int] = {}
    done = 0
    totals = [0, 0, 0.0]
    query = (
        "SELECT a.done, a.kind, count(*), sum(json_extract(a.account, '$.prompt_tokens')), "
        "sum(json_extract(a.account, '$.completion_tokens')), sum(json_extract(a.account, '$.cost_usd')) "
        "FROM standing s JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample "
        "GROUP BY a.done, a.kind"
    )
    for is_done, kind, count, *sums in connection.execute(query):
        totals = [total + (part or 0) for total, part in zip(totals, sums, strict=True)]
        if is_done:
            done += count
        else:
            kinds[kind] = count
    placed, without = connection.execute(
        "SELECT count(*), count(*) - count(s.row_id) FROM places p LEFT JOIN standing s USING (row_id) "
        "WHERE p.generation = (SELECT max(generation) FROM places)"
    ).fetchone()
    failed = sum(kinds.values())
    spent, _ = paid(connection)
    return Standing(
        rows=max(placed, done + failed + without),
        done=done,
        failed=failed,
        left=without,
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


def generation(connection: sqlite3.Connection) -> int:
    """The reading of the input that counts."""
    return int(connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()[0])
