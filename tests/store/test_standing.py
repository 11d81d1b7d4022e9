"""What stands while it is asked anew, after kill -9 too, and what its outputs are told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import Kind
from lcbatch.ports import SETTLED, Keyed, View
from lcbatch.records import Reply, Row, Usage
from lcbatch.store import reading, run_store, views
from lcbatch.store.opened import open_store
from lcbatch.store.run_store import RunStore
from lcbatch.store.schema import connect

from .support import (
    DONE,
    FAILED,
    FIRST,
    ORDERED,
    SECOND,
    TABLE,
    answer,
    crash_image,
    done,
    failed,
    keyed_all,
    labelled,
    pending_of,
    read,
    read_whole,
    shown_after,
    states_of,
    store_at,
    texts_of,
)


def standing_at(path: Path) -> reading.Standing:
    connection = connect(path, read_only=True)
    try:
        return reading.standing(connection)
    finally:
        connection.close()


def all_texts(store: RunStore, view: View) -> list[str]:
    return sorted(texts_of(store.all_entries(view)))


async def requeued(store: RunStore) -> list[Row]:
    await store.answer_with(await store.lineage(FIRST))
    await store.requeue(None)
    return [row async for page in store.pending(only_requeued=True) for row in page]


# --- a retry


@pytest.mark.parametrize("killed", [False, True])
def test_a_failure_stands_until_the_retry_has_something_better(tmp_path: Path, *, killed: bool) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        async with store_at(path) as store:
            rows = pending_of(await read_whole(store, keyed_all("abcd")))
            await store.put([done(rows[0]), *(failed(row) for row in rows[1:])])
        async with open_store(path) as store:
            again = await requeued(store)
            await answer(store, again[:1])
            assert all_texts(store, TABLE) == list("ab"), "the outputs leave out what is asked"
            assert not await store.all_stand()
            image = crash_image(path, tmp_path / "killed") if killed else path
            if not killed:
                await store.settle()
                assert all_texts(store, TABLE) == list("abcd")
                assert await store.all_stand()
        assert (standing_at(image).done, standing_at(image).failed, standing_at(image).left) == (2, 2, 0)
        async with open_store(image) as store:
            assert sorted(texts_of(shown_after(store, FAILED))) == list("cd")
            assert [row.fields["text"] for row in await requeued(store)] == list("cd")

    asyncio.run(main())


def test_what_a_retry_gave_back_comes_behind_what_was_shown_meanwhile(tmp_path: Path) -> None:
    """A pipe, and a file that is only appended to, see a row once it stands again."""

    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("abc")))
            await store.put([failed(rows[0]), failed(rows[1]), done(rows[2])])
        async with open_store(tmp_path / "s") as store:
            again = await requeued(store)
            await answer(store, again[1:])
            everything = View("all", DONE.order, done=True, failed=True)
            shown = shown_after(store, everything)
            assert texts_of(shown) == ["c", "b"]
            await store.settle()
            assert texts_of(shown_after(store, everything, shown[-1].seq)) == ["a"]

    asyncio.run(main())


def test_an_ordered_output_that_was_made_anew_meanwhile_is_stale_when_rows_are_given_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.projection(TABLE, {})
            rows = pending_of(await read_whole(store, keyed_all("abc")))
            await store.put([failed(rows[0]), done(rows[1]), done(rows[2])])
        async with open_store(tmp_path / "s") as store:
            await requeued(store)
            await store.commit_position(TABLE.name, -1, {})
            await store.commit_position(TABLE.name, 3, {})
            assert not await store.is_stale(TABLE)
            await store.settle()
            assert await store.is_stale(TABLE)

    asyncio.run(main())


def test_an_answer_that_a_retry_got_before_it_was_killed_is_not_paid_again(tmp_path: Path) -> None:
    def reply(text: str) -> Reply:
        return Reply(text, {"role": "assistant", "content": text}, "sim", "stop", Usage(1, 1), 0.5)

    async def main() -> None:
        path = tmp_path / "s"
        async with store_at(path) as store:
            (row,) = pending_of(await read_whole(store, keyed_all("a")))
            store.replies.keep_reply(row, b"k" * 16, reply("no JSON"))
            await store.put([failed(row, Kind.PARSE)])
        async with open_store(path) as store:
            (row,) = await requeued(store)
            assert store.replies.reply(row, b"k" * 16) is None
            store.replies.keep_reply(row, b"k" * 16, reply("{}"))
            assert (await store.spent()).usd == 1.0
            image = crash_image(path, tmp_path / "killed")
        async with open_store(image) as store:
            (row,) = await requeued(store)
            assert store.replies.reply(row, b"k" * 16) == reply("{}")
            await store.put([failed(row, Kind.PARSE)])
        async with open_store(image) as store:
            (row,) = await requeued(store)
            assert store.replies.reply(row, b"k" * 16) is None, "it led to a failure of its own"
            assert (await store.spent()).usd == 1.0

    asyncio.run(main())


def test_a_failure_that_passes_stands_while_a_limit_leaves_it_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("abc")))
            await store.put([failed(row, Kind.TIMEOUT) for row in rows])
        async with store_at(tmp_path / "s") as store:
            again = pending_of(await read_whole(store, keyed_all("abc")))
            assert len(again) == 3
            await answer(store, again[:1])
            await store.settle()
            assert texts_of(store.all_entries(TABLE)) == ["a", "b", "c"]
            assert all_texts(store, FAILED) == ["b", "c"]

    asyncio.run(main())


# --- another chain


@pytest.mark.parametrize("killed", [False, True])
def test_old_answers_stand_until_the_new_chain_has_answered(tmp_path: Path, *, killed: bool) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        async with store_at(path) as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("abcd"))))
        async with store_at(path, SECOND) as store:
            again = pending_of(await read_whole(store, keyed_all("abcd")))
            await answer(store, again[:1], by="second")
            assert [entry.output for entry in shown_after(store, DONE)] == ['"second: a"']
            image = crash_image(path, tmp_path / "killed") if killed else path
            if not killed:
                await store.settle()
        now = standing_at(image)
        assert (now.rows, now.done, now.failed, now.left) == (4, 1, 0, 3)
        async with store_at(image, SECOND) as store:
            assert sorted(str(entry.output) for entry in store.all_entries(DONE)) == [
                '"first: b"', '"first: c"', '"first: d"', '"second: a"',
            ]  # fmt: skip
            assert states_of(await read_whole(store, keyed_all("abcd"))) == "APPP"
            assert all_texts(store, DONE) == ["a"]
            await store.settle()
            assert all_texts(store, DONE) == list("abcd")

    asyncio.run(main())


def test_a_pipe_forgets_what_another_chain_said(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("ab"))))
        async with open_store(tmp_path / "s") as store:
            await store.adopt(await store.lineage(SECOND), keep_answers=False, forget=True)
            await store.settle()
            assert all_texts(store, DONE) == []

    asyncio.run(main())


# --- edited rows


@pytest.mark.parametrize("answers", [0, 1])
def test_an_edited_row_stands_until_its_successor_does(tmp_path: Path, answers: int) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("a", "1"), ("b", "2")))))
        async with store_at(tmp_path / "s") as store:
            new = pending_of(await read_whole(store, labelled(("a", "1"), ("B", "2"))))
            assert all_texts(store, DONE) == ["a"]
            await answer(store, new[:answers])
            await store.settle()
            assert all_texts(store, DONE) == (["B", "a"] if answers else ["a", "b"])
        async with store_at(tmp_path / "s") as store:
            await read(store, labelled(("a", "1"), ("B", "2")))
            assert [(gone.id, gone.edited) for gone in await store.gone()] == ([] if answers else [("2", True)])

    asyncio.run(main())


def test_one_new_row_makes_one_of_its_id_an_edited_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = labelled(*((text, "same") for text in "abcd"))
            await answer(store, pending_of(await read_whole(store, rows)))
        async with store_at(tmp_path / "s") as store:
            await read(store, labelled(("a", "same"), ("X", "same")))
            assert [gone.edited for gone in await store.gone()] == [True, False, False]

    asyncio.run(main())


def test_an_edit_that_is_taken_back_leaves_the_row_as_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        before, after = labelled(("a", "1"), ("b", "2")), labelled(("a", "1"), ("B", "2"))
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, before)))
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, after)
        async with store_at(tmp_path / "s") as store:
            assert states_of(await read_whole(store, before)) == "AA"
            await store.settle()
            assert all_texts(store, DONE) == ["a", "b"]

    asyncio.run(main())


def test_an_edited_row_that_comes_back_beside_its_successor_stays(tmp_path: Path) -> None:
    """Also where that is found out by a reading that does not come to its end."""

    async def main() -> None:
        before, after = labelled(("a", "1"), ("b", "2")), labelled(("a", "1"), ("B", "2"))
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, before)))
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, after)
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read(store, [*after, before[1]])))
            await store.settle()
            assert all_texts(store, DONE) == ["B", "a", "b"]

    asyncio.run(main())


def test_a_retry_leaves_a_row_alone_that_was_edited(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, labelled(("a", "1"), ("b", "2"))))
            await store.put([failed(row) for row in rows])
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, labelled(("a", "1"), ("B", "2")))
        async with open_store(tmp_path / "s") as store:
            assert [row.fields["text"] for row in await requeued(store)] == ["a"]

    asyncio.run(main())


# --- where a row is


@pytest.mark.parametrize("kind", [Kind.REFUSAL, Kind.TIMEOUT])
def test_a_failed_row_that_moved_says_where_it_is_now(tmp_path: Path, kind: Kind) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.projection(FAILED, {})
            rows = pending_of(await read_whole(store, keyed_all("ab")))
            await store.put([done(rows[0]), failed(rows[1], kind)])
        moved = [Keyed(one.item.__class__(one.item.fields, f"elsewhere:{n}"), one.content, one.whole)
                 for n, one in enumerate(keyed_all("ab"))]  # fmt: skip
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, moved)
            assert await store.is_stale(FAILED)
            await store.settle()
            assert [entry.place for entry in shown_after(store, FAILED)] == ["elsewhere:1"]

    asyncio.run(main())


# --- what a view looks at


@pytest.mark.parametrize(("view", "shown", "fetched"), [(FAILED, 1, 1), (ORDERED, 1999, 2000), (DONE, 1999, 1999)])
def test_no_row_is_looked_at_twice_by_a_view_that_does_not_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: View, shown: int, fetched: int
) -> None:
    looked: list[int] = []
    begun: list[int] = []
    fetch = views.Views._fetch

    def counted(over: views.Views, query: str, arguments: tuple[int, ...]) -> list[tuple[Any, ...]]:
        rows = fetch(over, query, arguments)
        looked.append(len([row for row in rows if row[0] is not None]))
        begun.append(arguments[-2])
        return rows

    monkeypatch.setattr(views.Views, "_fetch", counted)

    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all(map(str, range(2000))), batch=500))
            position = found = 0
            for start in range(0, 2000, 100):
                await store.put([failed(row) if row.ordinal == 0 else done(row) for row in rows[start : start + 100]])
                for entry in shown_after(store, view, position):
                    position = entry.ordinal + 1 if view is ORDERED else entry.seq
                    found += 1
            assert found == shown
            assert sum(looked) == fetched
            assert begun[-1] >= 1900, "each look begins where the last one ended"

    asyncio.run(main())


def test_a_view_that_is_read_from_its_beginning_again_shows_everything_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("abcd")))
            await store.put([failed(rows[0]), *(done(row) for row in rows[1:])])
            for view in (DONE, ORDERED):
                assert texts_of(shown_after(store, view)) == texts_of(shown_after(store, view)) == ["b", "c", "d"]

    asyncio.run(main())


# --- another boot


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("boot", ["the same", "another"])
def test_an_output_that_was_cut_off_is_made_anew_after_another_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, boot: str, settled: bool
) -> None:
    async def main() -> None:
        monkeypatch.setattr(run_store, "boot_id", lambda: "the same")
        async with store_at(tmp_path / "s") as store:
            await store.begin_run("lcbatch run", {}, in_flight=1)
            await store.projection(DONE, {})
            await store.commit_position(DONE.name, 3, {SETTLED: True} if settled else {})
        monkeypatch.setattr(run_store, "boot_id", lambda: boot)
        for _ in range(2):
            async with store_at(tmp_path / "s") as store:
                await store.begin_run("lcbatch run", {}, in_flight=1)
                assert (await store.projection(DONE, {})).stale == (boot == "another" and not settled)

    asyncio.run(main())
