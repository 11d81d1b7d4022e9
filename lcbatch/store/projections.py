"""How far each sink has come, and what it has to show anew. Statements over a connection, as in answers.py."""

from __future__ import annotations

import sqlite3

from lcbatch.ports import Order, View
from lcbatch.store import sums
from lcbatch.store.damage import understood


@understood
def load_projection(
    connection: sqlite3.Connection, view: View, options: str
) -> tuple[int, str | None, bool, str | None]:
    """(position, sink's state, stale, boot) of a projection, noted with these options; other ones make it stale."""
    connection.execute(
        "INSERT INTO projections VALUES (?1, 0, NULL, ?2, ?3, ?4, ?5, 0, 0, 0, NULL, sum_of(?1, 0, NULL)) "
        "ON CONFLICT (name) DO UPDATE SET "
        "changes = changes + (options <> excluded.options), options = excluded.options, "
        "shows_done = excluded.shows_done, shows_failed = excluded.shows_failed, by_input = excluded.by_input",
        (view.name, options, view.done, view.failed, view.order is Order.INPUT),
    )
    position, state, stale, boot = connection.execute(
        "SELECT position, state, changes > rebuilt, boot FROM projections WHERE name = ?", (view.name,)
    ).fetchone()
    return position, state, bool(stale), boot


def state_of(connection: sqlite3.Connection, name: str) -> str | None:
    """The sink's state of a projection."""
    found = connection.execute("SELECT state FROM projections WHERE name = ?", (name,)).fetchone()
    return None if found is None else found[0]


def projection_is_stale(connection: sqlite3.Connection, name: str) -> bool:
    """Whether something that was shown has changed since the last rebuild."""
    found = connection.execute("SELECT changes > rebuilt FROM projections WHERE name = ?", (name,)).fetchone()
    return bool(found and found[0])


def save_projection(connection: sqlite3.Connection, name: str, position: int, state: str, boot: str) -> None:
    """Note how far a projection has come.

    A negative position stands before a rebuild, or says that the next start has to make one; what changed up to then is
    shown by the time a real position follows.
    """
    if position < 0:
        connection.execute("UPDATE projections SET rebuilding = changes WHERE name = ?", (name,))
    else:
        connection.execute("UPDATE projections SET rebuilt = rebuilding WHERE name = ? AND position < 0", (name,))
    connection.execute(
        "UPDATE projections SET position = ?, state = ?, boot = ?, sum = ? WHERE name = ?",
        (position, state, boot, sums.PROJECTION.sum(name, position, state), name),
    )


def mark_edited(connection: sqlite3.Connection, *, done: bool) -> None:
    """A row that was shown, done or failed, is another now: the projections that show it have to be rebuilt."""
    shown = "CASE WHEN ? THEN shows_done ELSE shows_failed END"
    connection.execute(f"UPDATE projections SET changes = changes + 1 WHERE {shown}", (done,))  # noqa: S608 - a constant


def mark_reordered(connection: sqlite3.Connection) -> None:
    """Rows have other places in the input: the projections in its order have to be rebuilt."""
    connection.execute("UPDATE projections SET changes = changes + 1 WHERE by_input")


def mark_behind_kept(connection: sqlite3.Connection, generation: int) -> None:
    """Rows are appended to a generation of places: where removed ones were kept, which ordered projections show last, these go
    before them.
    """
    query = (
        "UPDATE projections SET changes = changes + 1 WHERE by_input "
        "AND EXISTS (SELECT 1 FROM standing WHERE row_id NOT IN (SELECT row_id FROM places WHERE generation = ?))"
    )
    connection.execute(query, (generation,))
