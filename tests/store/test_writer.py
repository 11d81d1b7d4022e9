"""The writer thread: groups, durable commits, and what it does with answers when the disk refuses."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import LcbatchError, OutputFailed
from lcbatch.store.schema import connect
from lcbatch.store.writer import Writer


class Rescued(list[bytes]):
    """Where answers land that could not be written; with `full` not even here."""

    full = False

    def __call__(self, lines: Sequence[bytes]) -> None:
        if self.full and lines:
            raise OSError("the reserve is full")
        self += lines


@asynccontextmanager
async def writer_at(path: Path, rescue: Rescued | None = None) -> AsyncIterator[tuple[Writer, list[str]]]:
    """A writer over a table of numbers, and every statement that its connection ran."""
    connection = connect(path)
    connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY, filler TEXT)")
    said: list[str] = []
    connection.set_trace_callback(said.append)
    writer = Writer(connection, path, rescue if rescue is not None else Rescued())
    try:
        yield writer, said
    finally:
        await writer.close()
        if writer.failure is not None:
            connection.close()


def adding(number: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?, ?)", (number, "x" * 500))
        return number

    return work


def fill_disk(connection: sqlite3.Connection) -> None:
    """From here on SQLite itself says that the disk is full, as soon as it needs another page."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")


async def refuses(writer: Writer) -> LcbatchError:
    """Write until the full disk is noticed."""
    await writer.submit(fill_disk)
    for number in range(1000, 2000):
        try:
            await writer.submit(adding(number))
        except OutputFailed as error:
            return error
    raise AssertionError("the disk was never full")


def numbers_in(path: Path) -> list[int]:
    connection = connect(path, read_only=True)
    try:
        return [columns[0] for columns in connection.execute("SELECT n FROM numbers ORDER BY n")]
    finally:
        connection.close()


async def blocked(writer: Writer) -> threading.Event:
    """Hold the writer thread up until the event is set, so that jobs pile up."""
    go, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(10)

    writer.post(work, list)
    await begun.wait()
    return go


def test_what_waits_is_committed_together(tmp_path: Path) -> None:
    async def main() -> None:
        async with writer_at(tmp_path / "s") as (writer, said):
            go = await blocked(writer)
            said.clear()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(writer.submit(adding(number))) for number in range(50)]
                await asyncio.sleep(0)
                go.set()
            assert [task.result() for task in tasks] == list(range(50))
            assert said.count("COMMIT") == 2, "the job that held it up, and the fifty behind it"

    asyncio.run(main())


def test_a_submitted_job_is_committed_when_it_returns(tmp_path: Path) -> None:
    async def main() -> None:
        async with writer_at(tmp_path / "s") as (writer, _):
            assert await writer.submit(adding(7)) == 7
            assert numbers_in(tmp_path / "s") == [7]

    asyncio.run(main())


def test_a_posted_job_is_committed_before_what_is_submitted_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with writer_at(tmp_path / "s") as (writer, _):
            writer.post(adding(1), list)
            await writer.submit(adding(2))
            assert numbers_in(tmp_path / "s") == [1, 2]
            writer.post(adding(3), list)
        assert numbers_in(tmp_path / "s") == [1, 2, 3]

    asyncio.run(main())


def test_a_durable_commit_syncs_and_the_next_one_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with writer_at(tmp_path / "s") as (writer, said):
            await writer.submit(adding(1), durable=True)
            await writer.submit(adding(2))
        beats = [one for one in said if one.startswith(("PRAGMA syn", "BEGIN", "COMMIT"))]
        full, normal = "PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL"
        assert beats == [full, "BEGIN IMMEDIATE", "COMMIT", normal, "BEGIN IMMEDIATE", "COMMIT"]

    asyncio.run(main())


def test_a_durable_job_never_shares_its_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with writer_at(tmp_path / "s") as (writer, said):
            go = await blocked(writer)
            said.clear()
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.submit(adding(1)))
                group.create_task(writer.submit(adding(2), durable=True))
                group.create_task(writer.submit(adding(3)))
                await asyncio.sleep(0)
                go.set()
            assert said.count("COMMIT") == 4

    asyncio.run(main())


@pytest.mark.parametrize(("commit", "left"), [(True, [1, 2, 3]), (False, [1])])
def test_a_held_transaction_is_kept_or_undone_whole(tmp_path: Path, *, commit: bool, left: list[int]) -> None:
    async def main() -> None:
        async with writer_at(tmp_path / "s") as (writer, _):
            await writer.submit(adding(1))
            await writer.hold()
            await writer.submit(adding(2))
            await writer.submit(adding(3), durable=True)
            assert numbers_in(tmp_path / "s") == [1]
            await writer.release(commit=commit)
            assert numbers_in(tmp_path / "s") == left
            await writer.submit(adding(4))
            assert numbers_in(tmp_path / "s") == [*left, 4]

    asyncio.run(main())


def test_a_full_disk_fails_everybody_who_waits_and_saves_every_answer_once(tmp_path: Path) -> None:
    rescue = Rescued()

    async def main() -> None:
        async with writer_at(tmp_path / "s", rescue) as (writer, said):
            await writer.submit(fill_disk)
            go = await blocked(writer)
            waiting = [
                asyncio.create_task(writer.submit(adding(number), rescue=lambda number=number: [b"%d" % number]))  # type: ignore[misc]
                for number in range(100)
            ]
            await asyncio.sleep(0)
            writer.post(adding(100), lambda: [b"100"])
            go.set()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(result) for result in results} == {OutputFailed}
            assert isinstance(writer.failure, OutputFailed)
            assert "full" in str(writer.failure)
            assert writer.failure.hint
            said.clear()
            with pytest.raises(OutputFailed):
                await writer.submit(adding(101), rescue=lambda: [b"101"])
            assert said == [], "SQLite is not asked again"
        assert [int(line) for line in rescue] == list(range(102))
        assert numbers_in(tmp_path / "s") == []

    asyncio.run(main())


def test_after_a_failed_write_the_connection_is_not_closed(tmp_path: Path) -> None:
    """Closing would write again: SQLite moves what is in its log into the file."""

    async def main() -> None:
        connection = connect(tmp_path / "s")
        connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, filler TEXT)")
        writer = Writer(connection, tmp_path / "s", Rescued())
        await refuses(writer)
        await writer.close()
        connection.execute("SELECT 1")
        connection.close()
        healthy = connect(tmp_path / "s")
        await Writer(healthy, tmp_path / "s", Rescued()).close()
        with pytest.raises(sqlite3.ProgrammingError):
            healthy.execute("SELECT 1")

    asyncio.run(main())


def test_when_even_the_reserve_is_full_callers_are_told(tmp_path: Path) -> None:
    rescue = Rescued()
    rescue.full = True

    async def main() -> None:
        async with asyncio.timeout(10), writer_at(tmp_path / "s", rescue) as (writer, _):
            await refuses(writer)
            for _ in range(2):
                with pytest.raises(OutputFailed, match="lost: the reserve is full"):
                    await writer.submit(adding(1), rescue=lambda: [b"1"])

    asyncio.run(main())


@pytest.mark.parametrize("error", [KeyError("a bug"), OutputFailed("something of ours"), TypeError("no JSON")])
def test_an_error_inside_a_job_leaves_nobody_waiting(tmp_path: Path, error: Exception) -> None:
    def breaks(_: sqlite3.Connection) -> None:
        raise error

    async def main() -> None:
        async with asyncio.timeout(10), writer_at(tmp_path / "s") as (writer, _):
            with pytest.raises(OutputFailed) as caught:
                await writer.submit(breaks)
            assert caught.value is error or caught.value.__cause__ is error
            with pytest.raises(OutputFailed):
                await writer.submit(adding(1))

    asyncio.run(main())


def test_a_caller_who_gives_up_does_not_undo_his_job(tmp_path: Path) -> None:
    async def main() -> None:
        async with writer_at(tmp_path / "s") as (writer, _):
            go = await blocked(writer)
            task = asyncio.create_task(writer.submit(adding(1)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            go.set()
        assert numbers_in(tmp_path / "s") == [1]

    asyncio.run(main())


def test_a_long_log_is_moved_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcbatch.store.writer._LOG_BYTES", 100_000)
    longest = 0

    async def main() -> None:
        nonlocal longest
        async with writer_at(tmp_path / "s") as (writer, _):
            for number in range(400):
                await writer.submit(adding(number))
                longest = max(longest, (tmp_path / "s-wal").stat().st_size)
            assert numbers_in(tmp_path / "s") == list(range(400))

    asyncio.run(main())
    assert 100_000 < longest < 200_000


class _NoSync(sqlite3.Connection):
    """SQLite on a disk that fails when the log is moved into the file."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if "wal_checkpoint" in sql:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *arguments)


def test_a_log_that_cannot_be_moved_stops_the_writing_and_saves_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcbatch.store.writer._LOG_BYTES", 100_000)
    connect(tmp_path / "s").close()
    connection = sqlite3.connect(tmp_path / "s", isolation_level=None, check_same_thread=False, factory=_NoSync)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, filler TEXT)")
    rescue, saved = Rescued(), list[int]()

    async def main() -> None:
        writer = Writer(connection, tmp_path / "s", rescue)
        while not writer.failure:
            saved.append(len(saved))
            with suppress(OutputFailed):
                await writer.submit(adding(saved[-1]), rescue=lambda: [b"%d" % saved[-1]])
        assert "disk I/O error" in writer.failure.message
        await writer.close()

    asyncio.run(main())
    assert len(saved) > 10
    assert list(rescue) == [b"%d" % saved[-1]], "the one that was not committed"
    assert numbers_in(tmp_path / "s") == saved[:-1]
    connection.close()
