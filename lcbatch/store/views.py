"""What an output shows of the store: the rows that stand, in either order, as entries.

Every query takes one page and ends, so that no reader holds the write-ahead log back while it works.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from threading import Lock
from typing import Any

from lcbatch import jsontext
from lcbatch.messages import raw_answer
from lcbatch.ports import Entry, Order, View
from lcbatch.store import sums
from lcbatch.store.damage import path_of, told
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
_SHARED_FROM = sums.ANSWER.columns.index("shared_from")
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
    is_new = columns[_STANDING.start] >= new_from and (answer[_SHARED_FROM] or math.inf) >= new_from
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
