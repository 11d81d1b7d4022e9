"""Placing the input: which row stands at which ordinal, and which of them are answered already.

Two ways give the same result. As long as the input agrees with what was read last time, items are compared with the old
places in order, which reads the store front to back and writes nothing. From the first difference on (another content, another
id) each item is looked up by its content, and a new generation of places is written.

Runs on the writer thread, inside its transactions.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.errors import TRANSIENT, Kind
from lcbatch.ports import Keyed, Placed, State, sample_name
from lcbatch.store import answers, projections, sharing, standing
from lcbatch.store.reading import generation
from lcbatch.store.rows import placed_row, row_columns
from lcbatch.store.standing import Columns
from lcbatch.store.sums import OtherSum

_FOUND = """
r.row_id, r.content, r.equal_before, r.whole, r.id, r.place, r.twin, s.chain_id, a.done, a.kind
"""
"""Not held against its sum: it is held against the input itself, and what is shown of it is read again."""

_AS_IT_STANDS = sharing.AS_IT_STANDS

_PREFIX = f"""
SELECT p.ordinal, {_FOUND} FROM places p JOIN rows r USING (row_id) {_AS_IT_STANDS}
WHERE p.generation = ? AND p.ordinal >= ? ORDER BY p.ordinal LIMIT ?
"""  # noqa: S608 - constants

_BY_CONTENT = f"SELECT {_FOUND} FROM rows r {_AS_IT_STANDS} WHERE r.content = ? AND r.equal_before = ?"  # noqa: S608

_GONE = f"""
SELECT row_id, {standing.LABEL}, rows.sample,
again OR chain_id NOT IN (SELECT other_id FROM accepts WHERE accepts.chain_id = :chain), successor
FROM standing JOIN rows USING (row_id)
LEFT JOIN (
    SELECT row_id, successor FROM edited
    WHERE successor IN (SELECT row_id FROM places WHERE generation = :new AND ordinal < :size)
) USING (row_id)
WHERE row_id NOT IN (SELECT row_id FROM places WHERE generation = :new AND ordinal < :size)
ORDER BY row_id
"""  # noqa: S608 - a constant

_OF_THESE_IDS = f"""
SELECT {standing.LABEL} AS label, row_id,
row_id NOT IN (SELECT row_id FROM places WHERE generation = :old AND ordinal < :old_size)
FROM places JOIN rows USING (row_id)
WHERE generation = :new AND ordinal < :size AND label IN (SELECT value FROM json_each(:ids)) ORDER BY ordinal
"""  # noqa: S608 - a constant

_UNREAD = frozenset({Kind.BAD_ROW, Kind.NO_TEXT})

_LIKE_OURS = re.compile(r"row-[0-9]+(\.sample-[0-9]+)?")
"""A name that could be that of a row without an id (standing.py)."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A row that stands in the output and is no longer in the input.

    `id` has the mark of its sample. `successor` is the new row that has its id: it was edited. `namesake` says that another
    row of its id is still there. `stale` says that what stands is of a chain that no longer counts. `stays` is for the plan
    to say.
    """

    row_id: int
    id: str | None
    successor: int | None = None
    namesake: bool = False
    stale: bool = False
    stays: bool = False
    sample: int = 0

    @property
    def edited(self) -> bool:
        return self.successor is not None


@dataclass(slots=True)
class _Found:
    row_id: int
    content: bytes
    equal_before: int
    whole: bytes
    id: str | None
    place: str
    twin: int
    chain_id: int | None = None
    done: int | None = None
    kind: str | None = None

    def is_that_of(self, keyed: Keyed) -> bool:
        """Whether it needs no look-up: the number among equal ones, and among those of its id, stay as they are too."""
        return self.content == keyed.content and self.id == keyed.item.id


class Placing:
    """One reading of the input under one chain. Owned by the writer thread; `begin` makes it new."""

    def __init__(self, chain_id: int, next_seq: int, generation: int) -> None:
        self._chain_id = chain_id
        self.next_seq = next_seq
        self.generation = generation
        self._old_generation = generation
        self._old_size = 0
        self._diverged = False
        self._known_rows = self._last_row = 0
        self._accepted: frozenset[int] = frozenset()
        self._edited = False
        self._dedupe = False
        self.ordinal = 0
        self.stood = 0

    def begin(self, connection: sqlite3.Connection, *, dedupe: bool = False) -> None:
        """Start at the input's beginning. Leftovers of a reading that was cut short are swept away.

        With `dedupe` a row without an answer stands and falls with the first one that is equal to it. `stood` is then the
        number of rows in the output as this reading found it: placing brings back others, whose answers are known.
        """
        self.stood = standing.standing_count(connection)
        sharing.begin(connection)
        self._dedupe = dedupe
        for table, key in (("seen", "content BLOB"), ("labels", "id TEXT")):
            connection.execute(
                f"CREATE TEMP TABLE IF NOT EXISTS {table} ({key} PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID"
            )
            connection.execute(f"DELETE FROM temp.{table}")  # noqa: S608 - a constant
        self._old_generation = generation(connection)
        self.generation = self._old_generation
        cut_short = connection.execute("DELETE FROM places WHERE generation <> ?", (self._old_generation,)).rowcount > 0
        self._old_size = connection.execute(
            "SELECT coalesce(max(ordinal) + 1, 0) FROM places WHERE generation = ?", (self._old_generation,)
        ).fetchone()[0]
        self._known_rows = self._last_row = answers.last_row(connection)
        accepted = connection.execute("SELECT other_id FROM accepts WHERE chain_id = ?", (self._chain_id,))
        self._accepted = frozenset(other_id for (other_id,) in accepted)
        self._edited = connection.execute("SELECT 1 FROM edited LIMIT 1").fetchone() is not None
        self._diverged = False
        self.ordinal = 0
        if cut_short:
            # It gave rows other ids, and who is the first of an id is not what the old places say any more.
            self._diverge(connection)

    def place(self, connection: sqlite3.Connection, batch: Sequence[Keyed]) -> list[Placed]:
        """Give each item its row and say how it stands."""
        placed: list[Placed] = []
        if not self._diverged:
            for keyed, found in zip(batch, self._old_places(connection, len(batch)), strict=False):
                if not found.is_that_of(keyed):
                    break
                placed.append(self._settle(connection, keyed, found, found.twin))
            if len(placed) < len(batch):
                self._diverge(connection)
        rest = batch[len(placed) :]
        if rest:
            placed += self._looked_up(connection, rest)
        return placed

    def gone(self, connection: sqlite3.Connection) -> list[Gone]:
        """What stands in the output and is no longer in the input. Only true at the input's end."""
        bounds = {
            "new": self.generation,
            "size": self.ordinal,
            "old": self._old_generation,
            "old_size": self._old_size,
            "chain": self._chain_id,
        }
        found = connection.execute(_GONE, bounds).fetchall()
        ids = {label for _, label, *_, successor in found if label is not None and successor is None}
        taken = {successor for *_, successor in found}
        here: dict[str, deque[int]] = defaultdict(deque)
        if ids:
            wanted = {**bounds, "ids": jsontext.dumps(sorted(ids))}
            for label, row_id, is_new in connection.execute(_OF_THESE_IDS, wanted):
                here[label] += [row_id] if is_new and row_id not in taken else []
        gone = []
        for row_id, label, sample, stale, known in found:
            # One for one: of four rows with an id two of which are gone, and one is new, one was edited.
            successor = here[label].popleft() if known is None and here.get(label) else known
            gone.append(Gone(row_id, label, successor, namesake=label in here, stale=bool(stale), sample=sample))
        return gone

    def finish(self, connection: sqlite3.Connection) -> None:
        """The input was read to its end: this reading is the one that counts from now on."""
        answers.put_meta(connection, "generation", str(self.generation))
        if not self._diverged and self.ordinal < self._old_size:
            # An ordered output counts the places that it has shown, and now there are fewer.
            projections.mark_reordered(connection)
        connection.execute("DELETE FROM places WHERE generation <> ? OR ordinal >= ?", (self.generation, self.ordinal))

    def _old_places(self, connection: sqlite3.Connection, count: int) -> list[_Found]:
        arguments = (self._old_generation, self.ordinal, count)
        places = connection.execute(_PREFIX, arguments).fetchall()
        for ordinal, place in enumerate(places, self.ordinal):
            if place[0] != ordinal:
                raise OtherSum(f"in the input as it was read, place {ordinal} is gone")
        return [_Found(*columns) for _, *columns in places]

    def _diverge(self, connection: sqlite3.Connection) -> None:
        """From here on the input is another than last time; rows appended to it stay in the old generation."""
        self._diverged = True
        for table, key in (("seen", "content"), ("labels", standing.LABEL)):
            connection.execute(
                f"INSERT INTO temp.{table} SELECT {key}, count(*) FROM places JOIN rows USING (row_id) "  # noqa: S608
                f"WHERE generation = ? AND ordinal < ? AND {key} IS NOT NULL GROUP BY 1",
                (self._old_generation, self.ordinal),
            )
        if self.ordinal == self._old_size:
            projections.mark_behind_kept(connection, self._old_generation)
            return
        projections.mark_reordered(connection)
        self.generation = self._old_generation + 1
        connection.execute(
            "INSERT INTO places SELECT ?, ordinal, row_id FROM places WHERE generation = ? AND ordinal < ?",
            (self.generation, self._old_generation, self.ordinal),
        )

    def _looked_up(self, connection: sqlite3.Connection, batch: Sequence[Keyed]) -> list[Placed]:
        """Rows that are found by their content, or made. Statement by statement over the batch, not item by item."""
        found: list[tuple[Keyed, _Found, int]] = []
        new: list[Columns] = []
        equals, twins = _equals_before(connection, batch), _twins(connection, batch)
        for keyed, before, twin in zip(batch, equals, twins, strict=True):
            row = self._known(connection, keyed.content, before)
            if row is None:
                self._last_row += 1
                new.append(row_columns(keyed, self._last_row, before, twin))
                item = keyed.item
                row = _Found(self._last_row, keyed.content, before, keyed.whole, item.id, item.place, twin)
            found.append((keyed, row, twin))
        connection.executemany(_NEW_ROW, new)
        if any(len(row[8]) > _LONG_BYTES for row in new):
            connection.execute(_NEW_ROW, _NO_ROW)
        connection.executemany(
            "INSERT OR REPLACE INTO places VALUES (?, ?, ?)",
            [(self.generation, ordinal, row.row_id) for ordinal, (_, row, _) in enumerate(found, self.ordinal)],
        )
        return [self._settle(connection, *one) for one in found]

    def _known(self, connection: sqlite3.Connection, content: bytes, equal_before: int) -> _Found | None:
        """A row of an earlier reading: no other row of this one has the same number among its equals."""
        if not self._known_rows:
            return None
        columns = connection.execute(_BY_CONTENT, (content, equal_before)).fetchone()
        return None if columns is None else _Found(*columns)

    def _settle(self, connection: sqlite3.Connection, keyed: Keyed, found: _Found, twin: int) -> Placed:
        """Bring the row up to date, let an answer stand for it where there is one, and say how it stands."""
        ordinal = self.ordinal
        self.ordinal += 1
        # Of an answered row nobody is told where it stood, and in an input that grew at its top all have moved.
        moved = not found.done and found.place != keyed.item.place
        if found.whole != keyed.whole or found.twin != twin or moved:
            _update(connection, keyed, found, twin)
        if self._edited:
            connection.execute("DELETE FROM edited WHERE row_id = ?", (found.row_id,))
        if (found.chain_id is None) != (found.done is None):
            raise OtherSum(f"the answer to row {found.row_id} is gone")
        if found.chain_id is not None and found.chain_id not in self._accepted:
            standing.reopen(connection, found.row_id)
            found.chain_id = found.done = found.kind = None
        if not found.done and found.row_id <= self._known_rows:
            self._recall(connection, found)
        if found.done:
            return Placed(State.ANSWERED, None)
        shared = self._shared(connection, found) if self._dedupe and keyed.item.failure is None else None
        if shared is not None:
            return Placed(shared, None)
        if found.done == 0 and found.kind not in TRANSIENT and not _is_read_otherwise(keyed, found):
            return Placed(State.FAILED_BEFORE, None)
        if found.done == 0:
            standing.reopen(connection, found.row_id)
        return Placed(State.PENDING, placed_row(keyed, found.row_id, found.equal_before, ordinal))

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
        standing.reopen(connection, found.row_id)
        found.chain_id, sample, found.done, found.kind = answer
        if not found.done:
            standing.lose_answers(connection, [found.row_id])
        standing.let_stand(connection, [(found.row_id, found.chain_id or 0, sample, self.next_seq)])
        self.next_seq += 1

    def _shared(self, connection: sqlite3.Connection, found: _Found) -> State | None:
        """How a row without an answer stands by what an equal one came to; None where there is none to go by."""
        if found.equal_before:
            source = sharing.leader_of(connection, found.content)
        else:
            is_new = found.row_id > self._known_rows
            source = None if is_new else sharing.any_answer(connection, found.content, self._chain_id)
        if source is None or (found.done == 0 and source.done == 0 and found.kind not in TRANSIENT):
            return None
        standing.reopen(connection, found.row_id)
        if source.done is None:
            sharing.follow(connection, found.row_id, source.row_id)
            return State.PENDING
        self.next_seq = sharing.give(connection, source, found.row_id, self.next_seq)
        return State.ANSWERED if source.done else State.FAILED_BEFORE


def _is_read_otherwise(keyed: Keyed, found: _Found) -> bool:
    """Whether a document that could not be read, which cost nothing, comes by another name or in another encoding now."""
    return keyed.item.document is not None and found.kind in _UNREAD and found.whole != keyed.whole


_NEW_ROW = """
INSERT INTO rows (row_id, content, equal_before, whole, id, place, document, failure, fields, twin, sample, sum)
SELECT ?1, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ? WHERE ?1 IS NOT NULL
"""

_NO_ROW = (None,) * 12
"""Puts nothing in, and takes the place of the parameters, which SQLite keeps until the statement is given others."""

_LONG_BYTES = 1024 * 1024

_AT_ONCE = 500
"""Parameters of one query."""


def _equals_before(connection: sqlite3.Connection, batch: Sequence[Keyed]) -> list[int]:
    """Of each item, how many of its content came before it."""
    contents = list({keyed.content for keyed in batch})
    times: dict[bytes, int] = {}
    for start in range(0, len(contents), _AT_ONCE):
        some = contents[start : start + _AT_ONCE]
        wanted = ", ".join("?" * len(some))
        times |= connection.execute(f"SELECT content, times FROM temp.seen WHERE content IN ({wanted})", some)  # noqa: S608
    equals = []
    for keyed in batch:
        before = times.get(keyed.content, 0)
        times[keyed.content] = before + 1
        equals.append(before)
    connection.executemany("INSERT OR REPLACE INTO temp.seen VALUES (?, ?)", times.items())
    return equals


def _twins(connection: sqlite3.Connection, batch: Sequence[Keyed]) -> list[int]:
    """Of each item, how many of its name came before it. All of a batch at once: one by one it took a third of placing."""
    labels = [None if keyed.item.id is None else sample_name(keyed.item.id, keyed.sample) for keyed in batch]
    known = jsontext.dumps(sorted({label for label in labels if label is not None}))
    query = "SELECT id, times FROM temp.labels WHERE id IN (SELECT value FROM json_each(?))"
    times: dict[str | None, int] = dict(connection.execute(query, (known,)))
    twins = []
    for label in labels:
        before = times.get(label, 0)
        if label is not None:
            times[label] = before + 1
            before += _LIKE_OURS.fullmatch(label) is not None
        twins.append(before)
    connection.executemany("INSERT OR REPLACE INTO temp.labels VALUES (?, ?)", times.items())
    return twins


def _update(connection: sqlite3.Connection, keyed: Keyed, found: _Found, twin: int) -> None:
    """Write down what changed of a row beside its content; outputs that show it have to be written anew."""
    if found.id != keyed.item.id or found.twin != twin:
        standing.was_called(connection, found.row_id)
    row_id, _, _, *columns, _, kept = row_columns(keyed, found.row_id, found.equal_before, twin)
    connection.execute(
        "UPDATE rows SET whole = ?, id = ?, place = ?, document = ?, failure = ?, fields = CAST(? AS TEXT), twin = ?, sum = ? "
        "WHERE row_id = ?",
        (*columns, kept, row_id),
    )
    if found.done is not None:
        projections.mark_edited(connection, done=bool(found.done))
