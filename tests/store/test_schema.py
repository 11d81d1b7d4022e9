"""What may stand where a run store should: nothing of it is touched, and the way out is said."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lcbatch.errors import CannotCreateOutput, LcbatchError, RefusedError
from lcbatch.store.run_store import open_store

from .support import DONE, answer, keyed_all, names_in, pending_of, read_whole, shown_after, store_at


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


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
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
