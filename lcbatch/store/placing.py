"""Placing the input: which row stands at which ordinal, and which of them are answered already.

Two ways give the same result. As long as the input agrees with what was read last time, items are compared with the old
places in order, which reads the store front to back and writes nothing. From the first difference on each item is looked
up by its content, and a new generation of places is written.

Runs on the writer thread, inside its transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from lcbatch import jsontext
from lcbatch.errors import TRANSIENT, Failure, Kind
from lcbatch.ports import Keyed, Placed, State
from lcbatch.records import Document, Row

_PREFIX = """
SELECT r.row_id, r.content, r.equal_before, r.whole, s.chain_id, a.done, a.kind
FROM places p JOIN rows r USING (row_id) LEFT JOIN standing s USING (row_id)
LEFT JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
WHERE p.generation = ? AND p.ordinal >= ? ORDER BY p.ordinal LIMIT ?
"""

_BY_CONTENT = """
SELECT r.row_id, r.content, r.equal_before, r.whole, s.chain_id, a.done, a.kind
FROM rows r LEFT JOIN standing s USING (row_id)
LEFT JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
WHERE r.content = ? AND r.equal_before = ?
"""

_GONE = """
SELECT row_id, id, coalesce(id IN (
    SELECT r.id FROM places JOIN rows r USING (row_id) WHERE generation = :new AND ordinal < :size
    AND row_id NOT IN (SELECT row_id FROM places WHERE generation = :old)
), 0)
FROM standing JOIN rows USING (row_id)
WHERE row_id NOT IN (SELECT row_id FROM places WHERE generation = :new AND ordinal < :size)
"""


@dataclass(frozen=True, slots=True)
class Gone:
    """A row that stands in the output and is no longer in the input; `edited` when a new row has its id."""

    row_id: int
    id: str | None
    edited: bool


@dataclass(slots=True)
class _Found:
    row_id: int
    content: bytes
    equal_before: int
    whole: bytes
    chain_id: int | None
    done: int | None
    kind: str | None


class Placing:
    """One reading of the input under one chain. Owned by the writer thread; `begin` makes it new."""

    def __init__(self, chain_id: int, next_seq: int, generation: int) -> None:
        self._chain_id = chain_id
        self.next_seq = next_seq
        self.generation = generation
        self._old_generation = generation
        self._old_size = 0
        self._diverged = False
        self._known_rows = 0
        self.ordinal = 0

    def begin(self, connection: sqlite3.Connection) -> None:
        """Start at the input's beginning. Leftovers of a reading that was cut short are swept away."""
        connection.execute(
            "CREATE TEMP TABLE IF NOT EXISTS seen (content BLOB PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute("DELETE FROM temp.seen")
        self._old_generation = int(connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()[0])
        self.generation = self._old_generation
        connection.execute("DELETE FROM places WHERE generation <> ?", (self._old_generation,))
        self._old_size = connection.execute(
            "SELECT coalesce(max(ordinal) + 1, 0) FROM places WHERE generation = ?", (self._old_generation,)
        ).fetchone()[0]
        self._known_rows = connection.execute("SELECT coalesce(max(row_id), 0) FROM rows").fetchone()[0]
        self._diverged = False
        self.ordinal = 0

    def place(self, connection: sqlite3.Connection, batch: Sequence[Keyed]) -> list[Placed]:
        """Give each item its row and say how it stands."""
        placed: list[Placed] = []
        if not self._diverged:
            for keyed, found in zip(batch, self._old_places(connection, len(batch)), strict=False):
                if keyed.content != found.content:
                    break
                placed.append(self._settle(connection, keyed, found))
            if len(placed) < len(batch):
                self._diverge(connection)
        for keyed in batch[len(placed) :]:
            found = self._look_up(connection, keyed)
            connection.execute(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (self.generation, self.ordinal, found.row_id)
            )
            placed.append(self._settle(connection, keyed, found))
        return placed

    def gone(self, connection: sqlite3.Connection) -> list[Gone]:
        """What stands in the output and is no longer in the input. Only true at the input's end."""
        bounds = {"new": self.generation, "old": self._old_generation, "size": self.ordinal}
        return [Gone(row_id, label, bool(edited)) for row_id, label, edited in connection.execute(_GONE, bounds)]

    def finish(self, connection: sqlite3.Connection) -> None:
        """The input was read to its end: this reading is the one that counts from now on."""
        connection.execute("UPDATE meta SET value = ? WHERE name = 'generation'", (str(self.generation),))
        if not self._diverged and self.ordinal < self._old_size:
            # An ordered output counts the places that it has shown, and now there are fewer.
            _mark_reordered(connection)
        connection.execute("DELETE FROM places WHERE generation <> ? OR ordinal >= ?", (self.generation, self.ordinal))

    def _old_places(self, connection: sqlite3.Connection, count: int) -> list[_Found]:
        arguments = (self._old_generation, self.ordinal, count)
        return [_Found(*columns) for columns in connection.execute(_PREFIX, arguments)]

    def _diverge(self, connection: sqlite3.Connection) -> None:
        """From here on the input is another than last time; rows appended to it stay in the old generation."""
        self._diverged = True
        connection.execute(
            "INSERT INTO temp.seen SELECT content, count(*) FROM places JOIN rows USING (row_id) \
             WHERE generation = ? AND ordinal < ? GROUP BY content",
            (self._old_generation, self.ordinal),
        )
        if self.ordinal == self._old_size:
            _mark_behind_kept(connection, self._old_generation)
            return
        _mark_reordered(connection)
        self.generation = self._old_generation + 1
        connection.execute(
            "INSERT INTO places SELECT ?, ordinal, row_id FROM places WHERE generation = ? AND ordinal < ?",
            (self.generation, self._old_generation, self.ordinal),
        )

    def _look_up(self, connection: sqlite3.Connection, keyed: Keyed) -> _Found:
        times = connection.execute(
            "INSERT INTO temp.seen VALUES (?, 1) ON CONFLICT (content) DO UPDATE SET times = times + 1 RETURNING times",
            (keyed.content,),
        ).fetchone()[0]
        columns = connection.execute(_BY_CONTENT, (keyed.content, times - 1)).fetchone()
        return _Found(*columns) if columns is not None else self._insert(connection, keyed, times - 1)

    @staticmethod
    def _insert(connection: sqlite3.Connection, keyed: Keyed, equal_before: int) -> _Found:
        row_id = connection.execute(
            "INSERT INTO rows (content, equal_before, whole, id, place, document, failure, fields) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (keyed.content, equal_before, keyed.whole, *_columns(keyed)),
        ).lastrowid
        return _Found(row_id or 0, keyed.content, equal_before, keyed.whole, None, None, None)

    def _settle(self, connection: sqlite3.Connection, keyed: Keyed, found: _Found) -> Placed:
        """Bring the row up to date, let an answer stand for it where there is one, and say how it stands."""
        ordinal = self.ordinal
        self.ordinal += 1
        if found.whole != keyed.whole:
            connection.execute(
                "INSERT OR IGNORE INTO departed SELECT id FROM rows WHERE row_id = ? AND id IS NOT NULL AND id IS NOT ?",
                (found.row_id, keyed.item.id),
            )
            connection.execute(
                "UPDATE rows SET whole = ?, id = ?, place = ?, document = ?, failure = ?, fields = ? WHERE row_id = ?",
                (keyed.whole, *_columns(keyed), found.row_id),
            )
            if found.done is not None:
                _mark_edited(connection, done=bool(found.done))
        if not found.done and found.row_id <= self._known_rows:
            self._recall(connection, found)
        if found.done:
            return Placed(State.ANSWERED, None)
        if found.done == 0 and found.kind not in TRANSIENT:
            return Placed(State.FAILED_BEFORE, None)
        if found.done == 0:
            unsettle(connection, found.row_id)
        return Placed(State.PENDING, _row(keyed, found, ordinal))

    def _recall(self, connection: sqlite3.Connection, found: _Found) -> None:
        """Let the best answer stand that this chain accepts, if there is a better one than what stands.

        After --on-change keep a failure of the other chain may stand where this one has an answer.
        """
        answer = connection.execute(
            "SELECT answers.chain_id, sample, done, kind FROM answers JOIN accepts ON accepts.other_id = answers.chain_id "
            "WHERE row_id = ? AND accepts.chain_id = ? "
            "ORDER BY done DESC, answers.chain_id = accepts.chain_id DESC, finished_at DESC LIMIT 1",
            (found.row_id, self._chain_id),
        ).fetchone()
        if answer is None or (found.done is not None and not answer[2]):
            return
        unsettle(connection, found.row_id)
        found.chain_id, sample, found.done, found.kind = answer
        connection.execute(
            "INSERT INTO standing VALUES (?, ?, ?, ?)", (found.row_id, found.chain_id, sample, self.next_seq)
        )
        self.next_seq += 1


def _mark_edited(connection: sqlite3.Connection, *, done: bool) -> None:
    """A row that was shown changed: the projections that show it have to be rebuilt."""
    shown = "CASE WHEN ? THEN shows_done ELSE shows_failed END"
    connection.execute(f"UPDATE projections SET changes = changes + 1 WHERE {shown}", (done,))  # noqa: S608 - a constant


def _mark_reordered(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE projections SET changes = changes + 1 WHERE by_input")


def _mark_behind_kept(connection: sqlite3.Connection, generation: int) -> None:
    """Rows are appended: where removed ones were kept, which ordered outputs show last, these go before them."""
    query = (
        "UPDATE projections SET changes = changes + 1 WHERE by_input "
        "AND EXISTS (SELECT 1 FROM standing WHERE row_id NOT IN (SELECT row_id FROM places WHERE generation = ?))"
    )
    connection.execute(query, (generation,))


def unsettle(connection: sqlite3.Connection, row_id: int) -> None:
    """A failed row is to be run again: it stands no longer. Its answer may come behind what an ordered output has shown."""
    if connection.execute("DELETE FROM standing WHERE row_id = ?", (row_id,)).rowcount:
        connection.execute("UPDATE projections SET changes = changes + 1 WHERE shows_failed OR by_input")


def _columns(keyed: Keyed) -> tuple[str | None, str, str | None, str | None, str]:
    item = keyed.item
    document = None if item.document is None else jsontext.dumps(astuple(item.document))
    failure = None if item.failure is None else jsontext.dumps([item.failure.kind, item.failure.message])
    return item.id, item.place, document, failure, jsontext.dumps(item.fields)


def _row(keyed: Keyed, found: _Found, ordinal: int) -> Row:
    item = keyed.item
    return Row(
        ordinal=ordinal,
        key=row_key(found.content, found.equal_before),
        id=item.id if item.id is not None else str(ordinal + 1),
        fields=item.fields,
        place=item.place,
        ref=found.row_id,
        document=item.document,
        failure=item.failure,
    )


def row_key(content: bytes, equal_before: int) -> bytes:
    """The identity of a row: what it says, and how many equal ones came before it."""
    return jsontext.digest(content, equal_before.to_bytes(8, "little"))


def restored_row(columns: Sequence[Any]) -> Row:
    """A row as it was placed, from (row_id, content, equal_before, id, place, document, failure, fields, ordinal)."""
    row_id, content, equal_before, label, place, document, failure, fields, ordinal = columns
    kind, message = jsontext.loads(failure) if failure is not None else (None, "")
    return Row(
        ordinal=ordinal,
        key=row_key(content, equal_before),
        id=label if label is not None else str(ordinal + 1),
        fields=jsontext.loads(fields),
        place=place,
        ref=row_id,
        document=Document(*jsontext.loads(document)) if document is not None else None,
        failure=Failure(Kind(kind), message) if kind is not None else None,
    )
