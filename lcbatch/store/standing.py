"""Which answer stands in the output for a row, and which rows are to be asked. Statements over a connection, as in answers.py.

What stands is replaced, and not taken away beforehand: a row that is asked again, by a retry, after a failure that passes or
under another chain, is only marked (`again`). The outputs of the run that asks leave it out; when that run has ended, or was
killed, what did not come to anything better stands as it did (`settle`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lcbatch.errors import Kind
from lcbatch.ports import Name
from lcbatch.store import sums

Columns = tuple[Any, ...]

_MARK = "CASE rows.sample WHEN 0 THEN '' ELSE '.sample-' || rows.sample END"
LABEL = f"rows.id || {_MARK}"
"""What a row with an id is called by: ports.sample_name."""

_NAME = f"coalesce(rows.id, 'row-' || rows.row_id) || {_MARK}"
"""What a row is called by. A row without an id has a name that no other row has."""

_DEPARTS = f"INSERT OR IGNORE INTO departed SELECT {_NAME}, twin FROM rows "  # noqa: S608 - a constant


def last_seq(connection: sqlite3.Connection) -> int:
    """The highest number under which an answer ever came to stand in what is there, or was shown."""
    query = (
        "SELECT max(coalesce((SELECT max(seq) FROM standing), 0), coalesce((SELECT max(position) FROM projections), 0))"
    )
    return int(connection.execute(query).fetchone()[0])


def standing_count(connection: sqlite3.Connection) -> int:
    """Rows that stand, done or failed."""
    return int(connection.execute("SELECT count(*) FROM standing").fetchone()[0])


def failed_count(connection: sqlite3.Connection) -> int:
    """Rows that stand failed."""
    query = "SELECT count(*) FROM standing JOIN answers USING (row_id, chain_id, sample) WHERE NOT done"
    return int(connection.execute(query).fetchone()[0])


def all_stand(connection: sqlite3.Connection, generation: int) -> bool:
    """Whether every placed row stands, and none is still asked for something better."""
    query = (
        "SELECT 1 FROM places WHERE generation = ? "
        "AND row_id NOT IN (SELECT row_id FROM standing WHERE NOT again) LIMIT 1"
    )
    return connection.execute(query, (generation,)).fetchone() is None


# --- asked again


def let_stand(connection: sqlite3.Connection, numbered: Iterable[tuple[int, int, int, int]]) -> None:
    """From now on these answers stand: (row, chain, sample, number) each."""
    connection.executemany(
        "INSERT OR REPLACE INTO standing (row_id, chain_id, sample, seq, sum) VALUES (?, ?, ?, ?, ?)",
        [(*one, sums.STANDING.sum(*one)) for one in numbered],
    )


def reopen(connection: sqlite3.Connection, row_id: int) -> None:
    """Something better is asked for. What the row had was shown, and what it gets may come behind what is shown by then."""
    again = connection.execute("UPDATE standing SET again = 1 WHERE row_id = ? AND NOT again", (row_id,))
    if again.rowcount:
        connection.execute(
            "UPDATE projections SET changes = changes + 1 WHERE by_input OR CASE "
            "(SELECT done FROM standing JOIN answers USING (row_id, chain_id, sample) WHERE row_id = ?) "
            "WHEN 1 THEN shows_done ELSE shows_failed END",
            (row_id,),
        )


def reopen_all(connection: sqlite3.Connection) -> None:
    """Everything is asked anew."""
    connection.execute("UPDATE standing SET again = 1")
    connection.execute("UPDATE projections SET changes = changes + 1")


def forget_all(connection: sqlite3.Connection) -> None:
    """Nothing stands any more; the answers stay."""
    connection.execute("DELETE FROM standing")
    connection.execute("UPDATE projections SET changes = changes + 1")


_MOVED = sums.changed(sums.STANDING, "standing", seq="moved.seq")


def settle(connection: sqlite3.Connection, next_seq: int) -> int:
    """Nothing more is asked: edited rows leave whose successor stands, all others stand as before. The next free number."""
    replaced = "SELECT row_id FROM edited WHERE successor IN (SELECT row_id FROM standing WHERE NOT again)"
    drop(connection, [row_id for (row_id,) in connection.execute(replaced)])
    # Under new numbers: the outputs have left these out, and are past the old ones.
    back = connection.execute(
        f"UPDATE standing SET again = 0, seq = moved.seq, sum = {_MOVED} FROM ("  # noqa: S608 - constants
        "    SELECT row_id, ? + row_number() OVER (ORDER BY seq) AS seq FROM standing WHERE again"
        ") AS moved WHERE moved.row_id = standing.row_id",
        (next_seq - 1,),
    ).rowcount
    if back:
        connection.execute("UPDATE projections SET changes = changes + 1 WHERE by_input")
    return next_seq + back


# --- rows that leave


def drop(connection: sqlite3.Connection, row_ids: Iterable[int]) -> None:
    """These rows leave the output; their answers stay."""
    numbers = [(row_id,) for row_id in row_ids]
    if numbers:
        connection.executemany(_DEPARTS + "WHERE row_id = ?", numbers)
        connection.executemany("DELETE FROM standing WHERE row_id = ?", numbers)
        connection.executemany("DELETE FROM edited WHERE row_id = ?", numbers)
        connection.execute("UPDATE projections SET changes = changes + 1")


def succeed(connection: sqlite3.Connection, pairs: Sequence[tuple[int, int]]) -> None:
    """(row, successor): the row stands until its successor does. All pairs of the input as it was read."""
    connection.execute("DELETE FROM edited")
    connection.executemany("INSERT INTO edited VALUES (?, ?)", pairs)
    for row_id, successor in pairs:
        # In a folder the new answer takes the place of the old one's file.
        rename(
            connection, row_id, connection.execute("SELECT twin FROM rows WHERE row_id = ?", (successor,)).fetchone()[0]
        )
        reopen(connection, row_id)


_RENAME = f"UPDATE rows SET twin = ?1, sum = {sums.changed(sums.ROW, twin='?1')} WHERE row_id = ?2 AND twin <> ?1"  # noqa: S608


def rename(connection: sqlite3.Connection, row_id: int, twin: int) -> None:
    """Give a row another number among those of its id."""
    connection.execute(_DEPARTS + "WHERE row_id = ? AND twin <> ?", (row_id, twin))
    if connection.execute(_RENAME, (twin, row_id)).rowcount:
        connection.execute("UPDATE projections SET changes = changes + 1 WHERE shows_done")


def was_called(connection: sqlite3.Connection, row_id: int) -> None:
    """The row is about to get another name, or to lose its answer: a file of that name is not its own any more."""
    connection.execute(_DEPARTS + "WHERE row_id = ?", (row_id,))


def lose_answers(connection: sqlite3.Connection, row_ids: Iterable[int]) -> None:
    """These rows end failed: where an answer stood, its file goes."""
    answered = "(SELECT row_id FROM standing JOIN answers USING (row_id, chain_id, sample) WHERE row_id = ? AND done)"
    connection.executemany(f"{_DEPARTS} WHERE row_id = {answered}", [(row_id,) for row_id in row_ids])


def lose_answers_of(connection: sqlite3.Connection, row_ids: str, given: Mapping[str, Any]) -> None:
    """The same for the rows that a query names, whose parameters are `given`."""
    connection.execute(
        f"{_DEPARTS} WHERE row_id IN (SELECT s.row_id FROM ({row_ids}) JOIN standing s USING (row_id) "  # noqa: S608 - constants
        "JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample WHERE done)",
        given,
    )


def departed(connection: sqlite3.Connection) -> list[Name]:
    """Names of rows that left the output or lost their answer, where no row of that name stands answered."""
    # EXCEPT and not NOT IN, which compares each name with every row's where one could be null.
    query = (
        f"SELECT name, twin FROM departed EXCEPT SELECT {_NAME}, twin FROM rows "  # noqa: S608 - a constant
        "JOIN standing USING (row_id) JOIN answers ON answers.row_id = rows.row_id "
        "AND answers.chain_id = standing.chain_id AND answers.sample = standing.sample WHERE done"
    )
    return [Name(*columns) for columns in connection.execute(query)]


def forget_departed(connection: sqlite3.Connection) -> None:
    """The sinks have taken them out."""
    connection.execute("DELETE FROM departed")


# --- rows to parse again

_FORMAT = sums.FORMAT_WITH_SUMS
_ROW = sums.selected(sums.ROW, "r", _FORMAT)

_ANSWERED = f"""
SELECT s.seq, {_ROW}, {sums.selected(sums.ANSWER, "a", _FORMAT)}, {sums.selected(sums.REPLY, "q", _FORMAT)}
FROM standing s LEFT JOIN rows r ON r.row_id = s.row_id
LEFT JOIN answers a ON a.row_id = s.row_id AND a.chain_id = s.chain_id AND a.sample = s.sample
LEFT JOIN replies q ON q.row_id = coalesce(a.shared_from, a.row_id) AND q.request_key = a.reply_key
WHERE s.seq > ? AND s.seq <= ? AND s.chain_id IN (SELECT other_id FROM accepts WHERE chain_id = ?)
ORDER BY s.seq LIMIT ?
"""  # noqa: S608 - constants


def answered_page(connection: sqlite3.Connection, chain_id: int, after: int, last: int, size: int) -> list[Columns]:
    """What stands for rows and counts for a chain, with the reply that it was made of, in the order in which it came to stand."""
    return connection.execute(_ANSWERED, (after, last, chain_id, size)).fetchall()


# --- rows to run


def failed_rows(connection: sqlite3.Connection, kinds: frozenset[Kind] | None) -> list[tuple[int, str]]:
    """(row, kind) of the rows that stand failed, of these kinds or of all; not of those that were edited since."""
    query = (
        "SELECT row_id, kind FROM standing JOIN answers USING (row_id, chain_id, sample) "
        "WHERE NOT done AND row_id NOT IN (SELECT row_id FROM edited)"
    )
    return [(row_id, kind) for row_id, kind in connection.execute(query) if kinds is None or kind in kinds]


_TODO_IN_ORDER = """
INSERT INTO temp.todo (row_id, ordinal)
SELECT row_id, coalesce(ordinal, row_id - 1) FROM temp.chosen
LEFT JOIN (
    SELECT row_id, ordinal, max(generation) FROM places WHERE row_id IN (SELECT row_id FROM temp.chosen) GROUP BY row_id
) USING (row_id)
ORDER BY ordinal IS NULL, ordinal, row_id
"""


def choose(connection: sqlite3.Connection, row_ids: Iterable[int]) -> None:
    """Put rows aside in `chosen`."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS chosen (row_id INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM temp.chosen")
    connection.executemany("INSERT INTO temp.chosen VALUES (?)", ((row_id,) for row_id in row_ids))


def remember_todo(connection: sqlite3.Connection) -> None:
    """Keep the chosen rows for `todo_page`: by their place in the newest reading, those without one last."""
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS todo (position INTEGER PRIMARY KEY, row_id INTEGER NOT NULL, ordinal INTEGER NOT NULL)"
    )
    connection.execute("DELETE FROM temp.todo")
    connection.execute(_TODO_IN_ORDER)


def todo_page(connection: sqlite3.Connection, after: int, size: int) -> list[Columns]:
    """Rows that were taken up again, in order: what `restored_row` takes, and the position after which the next page begins."""
    query = (
        f"SELECT {_ROW}, t.ordinal, t.position FROM temp.todo t JOIN rows r USING (row_id) "  # noqa: S608 - a constant
        "WHERE t.position > ? ORDER BY t.position LIMIT ?"
    )
    return connection.execute(query, (after, size)).fetchall()


def pending_page(connection: sqlite3.Connection, generation: int, after: int, size: int) -> list[Columns]:
    """Rows in input order that are to be run: what `restored_row` takes, and the ordinal after which the next page begins."""
    query = (
        f"SELECT {_ROW}, p.ordinal, p.ordinal FROM places p JOIN rows r USING (row_id) "  # noqa: S608 - a constant
        "WHERE p.generation = ? AND p.ordinal > ? "
        "AND NOT EXISTS (SELECT 1 FROM standing s WHERE s.row_id = p.row_id AND NOT s.again) "
        "AND NOT EXISTS (SELECT 1 FROM temp.followers f WHERE f.row_id = p.row_id) ORDER BY p.ordinal LIMIT ?"
    )
    return connection.execute(query, (generation, after, size)).fetchall()
