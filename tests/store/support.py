"""What the store's tests share: items with their identities, whole readings, and a look at the file from outside."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lcbatch import jsontext
from lcbatch.errors import Failure, Kind
from lcbatch.ports import Entry, Keyed, Order, Placed, State, View
from lcbatch.records import Done, Failed, Item, Json, Row
from lcbatch.store.opened import open_store
from lcbatch.store.run_store import RunStore

FIRST: Mapping[str, Json] = {"prompt": "first", "uses": ["text"]}
SECOND: Mapping[str, Json] = {"prompt": "second", "uses": ["text"]}

DONE = View("output", Order.FINISHED, done=True, failed=False)
FAILED = View("errors", Order.FINISHED, done=False, failed=True)
ORDERED = View("output", Order.INPUT, done=True, failed=False)
TABLE = View("output", Order.INPUT, done=True, failed=True)


def keyed(text: str, *, id: str | None = None, **passed: Json) -> Keyed:  # noqa: A002 - the field's own name
    """An item whose `text` alone decides its answer; `passed` are its other columns."""
    fields = {"text": text, **passed}
    item = Item(fields, f"in.jsonl:{text}", id)
    content = jsontext.digest(text.encode())
    return Keyed(item, content, jsontext.digest(jsontext.canonical([fields, id])))


def labelled(*rows: tuple[str, str | None]) -> list[Keyed]:
    return [keyed(text, id=label) for text, label in rows]


def keyed_all(texts: Iterable[str]) -> list[Keyed]:
    return [keyed(text) for text in texts]


@asynccontextmanager
async def store_at(path: Path, identity: Mapping[str, Json] = FIRST, *, keep: bool = False) -> AsyncIterator[RunStore]:
    """A store under a chain."""
    async with open_store(path) as store:
        await store.adopt(await store.lineage(identity), keep_answers=keep)
        yield store


async def read(store: RunStore, items: Sequence[Keyed], *, batch: int = 7) -> list[Placed]:
    """Place the input from its beginning; it is not ended."""
    await store.begin_placing()
    placed: list[Placed] = []
    for start in range(0, len(items), batch):
        placed += await store.place(items[start : start + batch])
    return placed


async def read_whole(store: RunStore, items: Sequence[Keyed], *, batch: int = 7) -> list[Placed]:
    """Place the input to its end; what is gone from it leaves the output."""
    placed = await read(store, items, batch=batch)
    await store.end_placing(await store.gone())
    return placed


def pending_of(placed: Iterable[Placed]) -> list[Row]:
    return [one.row for one in placed if one.row is not None]


def states_of(placed: Iterable[Placed]) -> str:
    """One letter a row: A(nswered), F(ailed before), P(ending)."""
    letters = {State.ANSWERED: "A", State.FAILED_BEFORE: "F", State.PENDING: "P"}
    return "".join(letters[one.state] for one in placed)


async def answer(store: RunStore, rows: Iterable[Row], *, by: str = "first") -> None:
    await store.put([done(row, by=by) for row in rows])


def done(row: Row, *, by: str = "first") -> Done:
    return Done(row, f"{by}: {row.fields['text']}")


def failed(row: Row, kind: Kind = Kind.REFUSAL) -> Failed:
    return Failed(row, Failure(kind, f"{kind} at {row.place}"))


def texts_of(entries: Iterable[Entry]) -> list[str]:
    return [jsontext.loads(entry.fields)["text"] for entry in entries]


def shown_after(store: RunStore, view: View, after: int = 0) -> list[Entry]:
    return [entry for group in store.entries(view, after) for entry in group]


def crash_image(store: Path, target: Path) -> Path:
    """The files as kill -9 would leave them now: what was committed, and nothing else. Nobody may be writing."""
    target.mkdir()
    for end in ("", "-wal", ".reserve"):
        source = store.with_name(store.name + end)
        if source.exists():
            shutil.copyfile(source, target / source.name)
    return target / store.name


def dump(path: Path) -> list[str]:
    """Every row of every table, as another process would see it."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())


def fast_folder() -> TemporaryDirectory[str]:
    """A folder in memory where the system has one: for tests that open hundreds of stores."""
    memory = Path("/dev/shm")  # noqa: S108 - a name of its own is made in it
    return TemporaryDirectory(dir=memory if memory.is_dir() else None)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def query(path: Path, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, arguments).fetchall()
