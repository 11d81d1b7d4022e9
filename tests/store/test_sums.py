"""A record that is not as it was written is damage, whoever reads it: other letters, another record's, or none."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import aclosing, closing, suppress
from pathlib import Path

import pytest

from lcbatch.errors import RefusedError
from lcbatch.records import Account, Done, Reply, Usage
from lcbatch.store import sums

from .old_formats import make_store
from .support import DONE, ORDERED, answer, keyed_all, pending_of, query, read_whole, shown_after, store_at, texts_of

_REPLY = Reply(
    text="four",
    message={"role": "assistant", "content": "four"},
    model="m",
    finish_reason="stop",
    usage=Usage(1, 1),
    cost_usd=1,
    latency_s=0.5,
    attempts=1,
)


def filled(path: Path) -> Path:
    """Four rows: three with their answers, and a reply of the fourth, which has none."""

    async def main() -> None:
        async with store_at(path) as store:
            await store.begin_run("lcbatch run", {"task": "run"}, in_flight=1)
            rows = pending_of(await read_whole(store, keyed_all("abcd")))
            await answer(store, rows[:2])
            store.replies.keep_reply(rows[2], b"key 2", _REPLY)
            await store.put([Done(rows[2], _REPLY.text, Account(), reply_key=b"key 2")])
            store.replies.keep_reply(rows[3], b"key 3", _REPLY)
            store.replies.keep_layout(rows[3], [1, 2])
            await store.projection(DONE, {})
            await store.commit_position("output", 3, {"offset": 7})

    asyncio.run(main())
    return path


async def _projects(path: Path) -> None:
    async with store_at(path) as store:
        shown_after(store, DONE)


async def _runs_the_rest(path: Path) -> None:
    async with store_at(path) as store, aclosing(store.pending()) as pages:
        rows = [row async for page in pages for row in page]
        assert store.replies.reply(rows[0], b"key 3") == _REPLY
        assert store.replies.layout(rows[0]) == [1, 2]


async def _parses_again(path: Path) -> None:
    async with store_at(path) as store, aclosing(store.answered()) as pages:
        assert [one async for page in pages for one in page]


_SPOILT = [
    (_projects, "UPDATE rows SET fields = replace(fields, 'b', 'c') WHERE row_id = 2", "row 2"),
    (_projects, "UPDATE rows SET id = 'another' WHERE row_id = 2", "row 2"),
    (_projects, "UPDATE answers SET output = replace(output, 'b', 'c') WHERE row_id = 2", "the answer to row 2"),
    (_projects, "UPDATE answers SET done = 0 WHERE row_id = 2", "the answer to row 2"),
    (_projects, "UPDATE answers SET account = replace(account, '0', '9')", "the answer to row 1"),
    (_projects, "DELETE FROM answers WHERE row_id = 2", "the answer to row 2"),
    (_projects, "UPDATE replies SET text = '\"five\"' WHERE row_id = 3", "the reply to row 3"),
    (_projects, "UPDATE standing SET row_id = 4 WHERE row_id = 2", "what stands for row 4"),
    (_projects, "UPDATE projections SET position = 2", "the record of output"),
    (_projects, "UPDATE runs SET job = '{}'", "the record of 1"),
    (_projects, "UPDATE meta SET value = '2' WHERE name = 'generation'", "the record of generation"),
    (_projects, "UPDATE accepts SET other_id = 7", "the record of 1"),
    (_projects, "UPDATE chains SET identity = replace(identity, 'first', 'third')", "chain 1"),
    (_runs_the_rest, "UPDATE rows SET fields = replace(fields, 'd', 'e') WHERE row_id = 4", "row 4"),
    (_runs_the_rest, "UPDATE replies SET text = '\"five\"' WHERE row_id = 4", "the reply to row 4"),
    (_runs_the_rest, "UPDATE replies SET superseded = 1 WHERE row_id = 4", "the reply to row 4"),
    (_runs_the_rest, "UPDATE meta SET value = '[1,3]' WHERE name LIKE 'layout %'", "how a document was cut"),
    (_parses_again, "UPDATE replies SET text = '\"five\"' WHERE row_id = 3", "the reply to row 3"),
    (_parses_again, "UPDATE answers SET output = replace(output, 'b', 'c') WHERE row_id = 2", "the answer to row 2"),
]


@pytest.mark.parametrize(("reads", "spoils", "names"), _SPOILT)
def test_what_was_changed_is_refused_by_its_name(
    tmp_path: Path, reads: Callable[[Path], Coroutine[None, None, None]], spoils: str, names: str
) -> None:
    path = filled(tmp_path / "s")
    asyncio.run(reads(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(spoils)
    with pytest.raises(RefusedError) as caught:
        asyncio.run(reads(path))
    assert str(path) in caught.value.message
    assert names in caught.value.message
    assert "--fresh" in caught.value.hint


def test_a_place_that_is_gone_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "s")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE places SET ordinal = 9 WHERE ordinal = 1")

    async def main() -> None:
        async with store_at(path) as store:
            shown_after(store, ORDERED)

    with pytest.raises(RefusedError, match="a place after 0 is gone"):
        asyncio.run(main())


def test_python_and_sql_sum_alike() -> None:
    columns = (7, b"\0\xff", 0, b"", "ä\n", "in.jsonl:1", None, None, '{"a":"\U0001f600"}', -7, 1)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.create_function("sum_of", -1, sums.sum_of, deterministic=True)
        marks = ", ".join("?" * len(columns))
        assert connection.execute(f"SELECT sum_of({marks})", columns).fetchone() == (sums.ROW.sum(*columns),)
        assert connection.execute("SELECT sum_of(?, ?)", (0.1, 1e22)).fetchone() == (sums.META.sum(0.1, 1e22),)


def test_all_that_a_store_writes_has_its_sum(tmp_path: Path) -> None:
    path = filled(tmp_path / "s")
    for table in ("meta", "accepts", "rows", "answers", "replies", "standing", "projections", "runs"):
        found = query(path, f"SELECT count(*), sum(sum IS NULL OR sum < 0) FROM {table}")  # noqa: S608 - constants
        assert found[0][0], table
        assert found[0][1] == 0, table


@pytest.mark.parametrize("version", [1, 2])
def test_rows_of_an_older_format_have_no_sum_and_what_comes_after_has(tmp_path: Path, version: int) -> None:
    path = make_store(tmp_path / "s", version)

    async def main() -> None:
        async with store_at(path) as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("yz"))))
            assert texts_of(shown_after(store, DONE))[-2:] == ["y", "z"]

    asyncio.run(main())
    assert query(path, "SELECT count(*) FROM answers WHERE sum IS NULL") == [(6,)]
    assert query(path, "SELECT count(*) FROM answers WHERE sum > 0") == [(2,)]


_OTHER_TYPES = ("x'ff'", "'{'", "'[]'", "'1'", "-5")


@pytest.mark.parametrize("value", _OTHER_TYPES)
@pytest.mark.parametrize(
    "column", ["rows.fields", "rows.sample", "rows.equal_before", "answers.account", "replies.body"]
)
def test_without_a_sum_what_cannot_have_been_written_is_refused_all_the_same(
    tmp_path: Path, column: str, value: str
) -> None:
    path = filled(tmp_path / "s")
    table, name = column.split(".")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {name} = {value}, sum = NULL WHERE row_id > 1")  # noqa: S608
    for reads in (_projects, _runs_the_rest, _parses_again):
        with suppress(RefusedError):  # and nothing else
            asyncio.run(reads(path))
