"""A store and a sink in memory, a clock that only sleeping moves, and entries of one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from lcbatch import jsontext
from lcbatch.ports import Entry, Name, Order, Sink, View
from lcbatch.records import Json
from lcbatch.sinks import Projector
from lcbatch.sinks.projector import Rhythm


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
    """Projectable over a list; `put` in any order. Groups of `group` entries. Ordinal -1: a row without a place."""

    def __init__(self, entries: Sequence[Entry] = (), group: int = 3) -> None:
        self.rows = list(entries)
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
        yield from sorted(rows, key=lambda row: (row.ordinal < 0, row.ordinal) if by_input else (False, row.seq))

    def has_unplaced(self) -> bool:
        return any(row.ordinal < 0 for row in self.rows)

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


@dataclass
class ListSink:
    """A sink in memory that says what was done to it in the ledger's words."""

    ledger: Ledger
    order: Order = Order.FINISHED
    takes: bool = True
    rows: list[int] = field(default_factory=list)
    fails: Exception | None = None
    opened: tuple[Mapping[str, Json] | None, bool] | None = None

    def __post_init__(self) -> None:
        self.view = View("output", self.order, done=True, failed=False)

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:
        self.opened = state, clean
        self.ledger.events.append("open")
        return self.takes

    def append(self, entries: Sequence[Entry]) -> None:
        if self.fails is not None:
            raise self.fails
        self.ledger.events.append("append")
        self.rows += [row.ordinal for row in entries]

    def sync(self) -> Mapping[str, Json]:
        self.ledger.events.append("sync")
        return {"rows": len(self.rows)}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        self.ledger.events.append("rebuild")
        self.rows = [row.ordinal for row in entries]
        return self.sync()

    def discard(self, names: Sequence[Name]) -> None:
        self.ledger.events.append(f"discard {','.join(name.id for name in names)}")

    def abort(self) -> None:
        self.ledger.events.append("abort")

    def close(self) -> None:
        self.ledger.events.append("close")


@asynccontextmanager
async def running(projector: Projector) -> AsyncIterator[None]:
    """`run` as a task, cancelled at the end as its owner does."""
    task = asyncio.ensure_future(projector.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop and the projector's thread go on until it holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread that knows no event of ours
            await asyncio.sleep(0)


def projector_of(sink: Sink, store: FakeStore, ledger: Ledger, clock: StillClock | None = None) -> Projector:
    clock = clock or StillClock()
    return Projector(sink, store=store, commit=ledger.commit, rhythm=Rhythm(0.1, clock, clock.sleep))


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]  # every scene is a coroutine
