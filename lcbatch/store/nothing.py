"""What stands for a store where there is none yet, and none is to be made: a dry run's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lcbatch.ports import Keyed, Placed, State
from lcbatch.records import Row


class NothingStored:
    """What Plan asks of a store, where there is none yet: every row is new, and nothing is kept."""

    def __init__(self) -> None:
        self._ordinal = 0
        self._said: sqlite3.Connection | None = None

    async def begin_placing(self, *, dedupe: bool = False) -> None:
        """There is nothing to sweep away."""
        if dedupe:
            # On disk, for an input of any size.
            self._said = sqlite3.connect("", isolation_level=None)
            self._said.execute("CREATE TABLE said (content BLOB PRIMARY KEY) WITHOUT ROWID")

    async def place(self, batch: Sequence[Keyed]) -> list[Placed]:
        """Each item is to be run, with --dedupe the first of those that are equal."""
        placed = []
        for keyed in batch:
            item, ordinal = keyed.item, self._ordinal
            row = Row(
                ordinal=ordinal,
                key=keyed.content,
                id=item.id if item.id is not None else str(ordinal + 1),
                fields=item.fields,
                place=item.place,
                ref=ordinal,
                document=item.document,
                failure=item.failure,
            )
            placed.append(Placed(State.PENDING, None if self._was_said(keyed) else row))
            self._ordinal += 1
        return placed

    def _was_said(self, keyed: Keyed) -> bool:
        if self._said is None or keyed.item.failure is not None:
            return False
        return not self._said.execute("INSERT OR IGNORE INTO said VALUES (?)", (keyed.content,)).rowcount

    def close(self) -> None:
        """What was kept for --dedupe goes."""
        if self._said is not None:
            self._said.close()

    async def gone(self) -> list[object]:
        """Nothing stood."""
        return []

    async def stood_count(self) -> int:
        """Nothing stood."""
        return 0

    async def end_placing(self, drop: Sequence[object]) -> None:
        """Nothing is kept."""
