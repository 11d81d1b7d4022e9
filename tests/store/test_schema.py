"""What may stand where a run store should: what is not ours is not touched, and what is older is brought up to date."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lcbatch.errors import CannotCreateOutput, LcbatchError, RefusedError
from lcbatch.ports import Name
from lcbatch.store import reading
from lcbatch.store.lock import hold_lock
from lcbatch.store.opened import open_store
from lcbatch.store.schema import FORMAT, connect
from lcbatch.store.views import Views

from .old_formats import make_store
from .support import (
    DONE,
    FAILED,
    ORDERED,
    answer,
    keyed,
    keyed_all,
    names_in,
    pending_of,
    query,
    read_whole,
    shown_after,
    states_of,
    store_at,
    texts_of,
)


def open_and_use(path: Path) -> None:
    """What every run does first."""

    async def main() -> None:
        async with store_at(path) as store:
            await read_whole(store, keyed_all("abc"))
            shown_after(store, DONE)

    asyncio.run(main())


@contextmanager
def untouched(path: Path) -> Iterator[None]:
    """The same bytes under the same date, and nothing beside it."""
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    yield
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


def refused(path: Path) -> LcbatchError:
    with untouched(path), pytest.raises(RefusedError) as caught:
        open_and_use(path)
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize("content", [b"short", b"no database at all, only text\n" * 1000])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    refused(tmp_path / "s")


def test_another_applications_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "s")) as connection:
        connection.executescript("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1);")
    assert "no run store" in refused(tmp_path / "s").message


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    open_and_use(tmp_path / "s")
    with closing(sqlite3.connect(tmp_path / "s")) as connection:
        connection.execute("PRAGMA user_version=99")
    assert "upgrade" in refused(tmp_path / "s").hint


@pytest.mark.parametrize("first_page", [1, 2])
def test_damaged_pages_are_refused(tmp_path: Path, first_page: int) -> None:
    path = tmp_path / "s"

    async def fill() -> None:
        async with store_at(path) as store:
            await answer(store, pending_of(await read_whole(store, keyed_all(map(str, range(300))), batch=100)))

    asyncio.run(fill())
    data = bytearray(path.read_bytes())
    data[first_page * 4096 :] = b"\xff" * (len(data) - first_page * 4096)
    path.write_bytes(data)
    with pytest.raises(RefusedError) as caught:
        open_and_use(path)
    assert "--fresh" in caught.value.hint


def test_a_folder_that_is_not_there_cannot_hold_a_store(tmp_path: Path) -> None:
    with pytest.raises(CannotCreateOutput):
        open_and_use(tmp_path / "missing" / "s")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_only_its_owner_can_read_a_store(tmp_path: Path, umask: int) -> None:
    async def main() -> None:
        async with open_store(tmp_path / "s") as store:
            await store.begin_run("lcbatch", {}, in_flight=1)
            modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in names_in(tmp_path)}
            assert modes == dict.fromkeys(("s", "s-wal", "s-shm", "s.reserve"), 0o600)

    before = os.umask(umask)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_folders_that_are_made_for_a_store_are_their_owners_alone(tmp_path: Path, umask: int) -> None:
    async def main() -> None:
        async with hold_lock(tmp_path / "state" / "lcbatch" / "s.lock"):
            pass

    before = os.umask(umask)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)
    made = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "state").rglob("*")}
    assert made == {tmp_path / "state" / "lcbatch": 0o700, tmp_path / "state" / "lcbatch" / "s.lock": 0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


# --- older formats


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_older_format_goes_on_as_it_was(tmp_path: Path, version: int) -> None:
    path = make_store(tmp_path / "s", version)
    items = [keyed(text, id=label) for text, label in zip("abcdef", ["x", "x", "x", None, "e", "f"], strict=True)]

    async def main() -> None:
        async with store_at(path) as store:
            kept = await store.projection(DONE, {})
            assert (kept.position, kept.state, kept.stale) == (6, {"offset": 7, "settled": True}, False)
            assert states_of(await read_whole(store, items)) == "AAAAFF", "nothing is asked that was answered"
            assert texts_of(shown_after(store, FAILED)) == ["f", "e"], "a retry's end left it out"
            assert [(entry.id, entry.twin) for entry in shown_after(store, DONE)] == [
                ("x", 0), ("x", 1), ("x", 2), ("row-4", 0),
            ]  # fmt: skip
            assert set(await store.departed()) == {Name("old"), Name("4")}, (
                "the row without an id had its number's name"
            )

    asyncio.run(main())
    assert query(path, "PRAGMA user_version") == [(FORMAT,)]


def test_an_upgraded_store_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
        tables = query(path, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        told = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY name'
        with closing(sqlite3.connect(path)) as connection:
            return {name: connection.execute(told, (name,)).fetchall() for (name,) in tables}

    open_and_use(make_store(tmp_path / "old", 1))
    open_and_use(tmp_path / "new")
    assert columns(tmp_path / "old") == columns(tmp_path / "new")


def test_an_older_store_that_was_cut_off_is_not_taken_for_finished(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s", 2, ended=False)

    async def main() -> None:
        async with open_store(path) as store:
            assert (await store.projection(DONE, {})).state == {"offset": 7}

    asyncio.run(main())


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_store_can_be_read_without_being_changed(tmp_path: Path, version: int) -> None:
    path = make_store(tmp_path / "s", version)
    with untouched(path), closing(connect(path, read_only=True)) as connection:
        views = Views(connection, lambda: 1)
        assert texts_of(views.all(DONE)) == list("abcd")
        assert texts_of(views.all(ORDERED)) == list("abcd")
        now = reading.standing(connection)
        assert (now.rows, now.done, now.failed, now.left) == (6, 4, 1, 1)
        assert reading.last_run(connection) is not None
