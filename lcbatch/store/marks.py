"""Which run wrote an output last, and how far its positions had come: by this a store that lost its log is known.

A mark is the run's own, the number of the position that it committed last, and the store's own; a run that came to an end,
whatever end, adds that it did. The output's lock file keeps it, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from lcbatch import jsontext
from lcbatch.records import Json
from lcbatch.store import projections
from lcbatch.store.damage import understood
from lcbatch.store.sums import FORMAT_WITH_SUMS

_BEAT, _BY = "beat", "by"
_ENDED = "ended"


def mark(run: str, beat: int, store: str, *, ended: bool) -> str:
    """What the lock file keeps."""
    return " ".join([run, str(beat), store, *([_ENDED] if ended else [])])


def is_of_store(mark: str, store: str) -> bool:
    """Whether the run of this mark worked with this store, or a copy of it."""
    return store in mark.split(" ")[2:3]


def store_name(connection: sqlite3.Connection) -> str | None:
    """What a store is called by for good, None where it has no name yet."""
    found = connection.execute("SELECT value FROM meta WHERE name = 'store'").fetchone()
    return None if found is None else str(found[0])


def has_ended(mark: str) -> bool:
    """Whether the run of this mark came to its end: it left no log, so that none can be missing."""
    return mark.endswith(f" {_ENDED}")


def stamped(state: Mapping[str, Json], run: str, beat: int) -> str:
    """A projection's state as it is kept, with whose it is."""
    return jsontext.dumps({**state, _BEAT: beat, _BY: run})


def plain(state: Mapping[str, Json]) -> dict[str, Json]:
    """The same without."""
    return {name: value for name, value in state.items() if name not in {_BEAT, _BY}}


@understood
def knows(connection: sqlite3.Connection, mark: str, name: str) -> bool:
    """Whether the run of this mark began here, and what it committed of the projection `name` up to its last beat is here.

    The log is moved into the file now and then: without it a run may be known of which the end is gone.
    """
    run, said, *_ = [*mark.split(" "), ""]
    beat, began = int(said) if said.isdecimal() else 0, _began(connection, run)
    if not began:
        return False
    text = projections.state_of(connection, name)
    left = {} if text is None else dict(jsontext.loads(text))
    if left.get(_BY) == run:
        return int(left[_BEAT]) >= beat
    # A position of a run before it: those that it committed itself are gone.
    return not beat or _began(connection, left.get(_BY)) > began


def _began(connection: sqlite3.Connection, run: Json) -> int:
    """The number of a run, 0 for one that never began here; a store of an older format knows of none."""
    if connection.execute("PRAGMA user_version").fetchone()[0] < FORMAT_WITH_SUMS:
        return 0
    return int(connection.execute("SELECT coalesce(max(run_id), 0) FROM runs WHERE mark = ?", (run,)).fetchone()[0])
