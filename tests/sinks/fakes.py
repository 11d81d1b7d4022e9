"""A store in memory, a clock that only sleeping moves, and entries of one line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lcbatch import jsontext
from lcbatch.ports import Entry, Order, View
from lcbatch.records import Json


def entry(
    seq: int, *, fields: Mapping[str, Json] | None = None, output: Json = "yes", id_: str | None = None, **more: Any
) -> Entry:
    """An answered row; with `kind` a failed one."""
    ordinal = more.pop("ordinal", seq - 1)
    failed = more.get("kind") is not None
    return Entry(
        seq=seq,
        ordinal=ordinal,
        id=id_ if id_ is not None else str(ordinal),
        place=more.pop("place", f"in.jsonl:{ordinal + 1}"),
        fields=jsontext.dumps(fields if fields is not None else {"n": ordinal}),
        is_document=more.pop("is_document", False),
        output=None if failed else jsontext.dumps(output),
        **more,
    )


class FakeStore:
    """Projectable over a list; `put` in any order. Groups of `group` entries."""

    def __init__(self, entries: Sequence[Entry] = (), group: int = 3) -> None:
        self.rows = list(entries)
        self.hidden: set[int] = set()
        self.group = group
        self.reads = 0

    def put(self, *entries: Entry) -> None:
        self.rows += entries

    def entries(self, view: View, after: int) -> Iterator[list[Entry]]:
        self.reads += 1
        rows = self._by_input(view, after) if view.order is Order.INPUT else self._finished(view, after)
        for start in range(0, len(rows), self.group):
            yield rows[start : start + self.group]

    def all_entries(self, view: View) -> Iterator[Entry]:
        by_input = view.order is Order.INPUT
        rows = [row for row in self.rows if self._shows(view, row)]
        yield from sorted(rows, key=lambda row: row.ordinal if by_input else row.seq)

    def _finished(self, view: View, after: int) -> list[Entry]:
        rows = [row for row in self.rows if row.seq > after and self._shows(view, row)]
        return sorted(rows, key=lambda row: row.seq)

    def _by_input(self, view: View, after: int) -> list[Entry]:
        standing = {row.ordinal: row for row in self.rows}
        shown = []
        ordinal = after
        while ordinal in standing:
            if self._shows(view, standing[ordinal]):
                shown.append(standing[ordinal])
            ordinal += 1
        return shown

    def _shows(self, view: View, row: Entry) -> bool:
        return view.failed if row.kind is not None else view.done


class Ledger:
    """The run store's side of a commit, and what the sink did, in one list of words."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.commits: list[tuple[str, int, Mapping[str, Json]]] = []

    async def commit(self, name: str, position: int, state: Mapping[str, Json]) -> None:
        jsontext.dumps(dict(state))
        self.events.append("commit")
        self.commits.append((name, position, state))

    @property
    def position(self) -> int:
        return self.commits[-1][1]

    @property
    def state(self) -> Mapping[str, Json]:
        return self.commits[-1][2]


class StillClock:
    """Time that passes only in `sleep`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)
