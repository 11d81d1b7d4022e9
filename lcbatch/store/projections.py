"""How far each sink has come. Statements over a connection, as in answers.py."""

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
