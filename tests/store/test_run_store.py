"""The store as a run uses it: answers, replies, retries, crashes, and a disk that is full."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from lcbatch.calls.stored import stored
from lcbatch.errors import Kind, OutputFailed
from lcbatch.ports import View
from lcbatch.records import Account, Done, Reply, Request, Row, RowScope, Usage, current_row
from lcbatch.store import reading
from lcbatch.store.opened import open_store
from lcbatch.store.run_store import RunStore
from lcbatch.store.schema import connect
from lcbatch.testing import ScriptedCall

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
    dump,
    failed,
    keyed_all,
    names_in,
    pending_of,
    query,
    read,
    read_whole,
    shown_after,
    states_of,
    store_at,
    texts_of,
)


def reply_of(text: str, **more: object) -> Reply:
    message = {"role": "assistant", "content": text, **more}
    return Reply(text, message, "sim", "stop", Usage(3, 5), 0.25, 1.5, 2)


async def requeued(store: RunStore, kinds: frozenset[Kind] | None = None) -> list[Row]:
    await store.requeue(kinds)
    return [row async for page in store.pending(only_requeued=True) for row in page]


def test_replies_come_back_as_they_were(tmp_path: Path) -> None:
    async def main() -> None:
        replies = {b"1" * 16: reply_of("yes", tool_calls=[{"id": 1}]), b"2" * 16: reply_of("lone \ud800 surrogate")}
        async with store_at(tmp_path / "s") as store:
            (row,) = pending_of(await read_whole(store, keyed_all("a")))
            assert not await store.ever_succeeded()
            for key, reply in replies.items():
                store.replies.keep_reply(row, key, reply)
            assert await store.ever_succeeded()
        async with store_at(tmp_path / "s") as store:
            (row,) = pending_of(await read_whole(store, keyed_all("a")))
            for key, reply in replies.items():
                assert store.replies.reply(row, key) == reply
            assert store.replies.reply(row, b"3" * 16) is None

    asyncio.run(main())


def test_an_output_that_is_a_replys_own_text_is_kept_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            (row,) = pending_of(await read_whole(store, keyed_all("a")))
            store.replies.keep_reply(row, b"k" * 16, reply_of("a rare sentence"))
            account = Account("sim", 1, 2, Usage(3, 5), 0.25, 1.5, "stop")
            await store.put([Done(row, "a rare sentence", account, reply_key=b"k" * 16)])
            (entry,) = shown_after(store, DONE)
            assert entry.output == '"a rare sentence"'
            assert (entry.meta["prompt_tokens"], entry.meta["attempts"], entry.id, entry.ordinal) == (3, 2, "row-1", -1)
        assert sum(line.count("a rare sentence") for line in dump(tmp_path / "s")) == 1

    asyncio.run(main())


def test_a_failure_never_replaces_an_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            (row,) = pending_of(await read_whole(store, keyed_all("a")))
            await answer(store, [row])
            await store.put([failed(row)])
            assert texts_of(store.all_entries(DONE)) == ["a"]
            assert list(store.all_entries(FAILED)) == []

    asyncio.run(main())


def test_both_orders_show_what_stands_and_wait_at_a_gap(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("abcde")))
            await store.put([done(rows[3]), failed(rows[1]), done(rows[0])])
            assert texts_of(shown_after(store, DONE)) == ["d", "a"]
            assert texts_of(shown_after(store, FAILED)) == ["b"]
            assert texts_of(shown_after(store, ORDERED)) == ["a"]
            assert texts_of(shown_after(store, TABLE)) == ["a", "b"]
            assert texts_of(store.all_entries(TABLE)) == ["a", "b", "d"]
            await store.put([done(rows[2])])
            assert texts_of(shown_after(store, ORDERED, 1)) == ["c", "d"]
            assert [entry.ordinal for entry in shown_after(store, TABLE, 2)] == [2, 3]

    asyncio.run(main())


def test_many_rows_come_in_bounded_groups(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all(map(str, range(1203))), batch=500)))
            for view in (DONE, ORDERED):
                groups = list(store.entries(view, 0))
                assert max(map(len, groups)) <= 500
                assert [text for group in groups for text in texts_of(group)] == [str(n) for n in range(1203)]

    asyncio.run(main())


def test_both_outputs_may_read_at_once(tmp_path: Path) -> None:
    """Each projector has a thread of its own."""

    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all(map(str, range(2000))), batch=500))
            await store.put([done(row) if row.ordinal % 2 else failed(row) for row in rows])

            def count(view: View) -> list[int]:
                return [sum(1 for _ in store.all_entries(view)) for _ in range(5)]

            counts = await asyncio.gather(*(asyncio.to_thread(count, view) for view in (DONE, FAILED, TABLE, ORDERED)))
            assert counts == [[1000] * 5, [1000] * 5, [2000] * 5, [1000] * 5]

    asyncio.run(main())


def test_a_retry_takes_up_failed_rows_of_an_input_that_had_changed(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("abc")))[:1])
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("cba")))
            await store.put([failed(rows[0], Kind.REFUSAL), failed(rows[1], Kind.PARSE)])
        async with open_store(tmp_path / "s") as store:
            await store.answer_with(await store.lineage(SECOND))
            again = await requeued(store, frozenset({Kind.PARSE}))
            assert [(row.fields, row.ordinal) for row in again] == [({"text": "b"}, 1)]
            await answer(store, again, by="second")
            assert texts_of(shown_after(store, TABLE)) == ["c", "b", "a"]
        async with store_at(tmp_path / "s") as store:
            assert states_of(await read_whole(store, keyed_all("cba"))) == "FAA"

    asyncio.run(main())


def test_a_retry_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("abcd")))
            await store.put([done(rows[0]), *(failed(row) for row in rows[1:])])
        for texts in ("bcd", "cd", "d"):
            async with open_store(tmp_path / "s") as store:
                await store.answer_with(await store.lineage(SECOND))
                again = await requeued(store)
                assert [row.fields["text"] for row in again] == list(texts)
                await answer(store, again[:1], by="second")
        async with open_store(tmp_path / "s") as store:
            await store.answer_with(await store.lineage(SECOND))
            assert await requeued(store) == []

    asyncio.run(main())


def test_a_retry_asks_the_failed_call_anew_but_not_what_came_before_a_fault_that_passes(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("ab")))
            for row in rows:
                store.replies.keep_reply(row, b"k" * 16, reply_of("no JSON at all"))
            await store.put([failed(rows[0], Kind.PARSE), failed(rows[1], Kind.TIMEOUT)])
        async with open_store(tmp_path / "s") as store:
            await store.answer_with(await store.lineage(FIRST))
            final, passing = await requeued(store)
            assert store.replies.reply(final, b"k" * 16) is None
            assert store.replies.reply(passing, b"k" * 16) is not None
            store.replies.keep_reply(final, b"k" * 16, reply_of("{}"))
            await answer(store, [final])
            assert store.replies.reply(final, b"k" * 16) == reply_of("{}")

    asyncio.run(main())


def test_what_was_committed_survives_a_crash(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.begin_run("lcbatch run", {}, in_flight=1)
            rows = pending_of(await read(store, keyed_all("abc")))
            await answer(store, rows[:2])
            image = crash_image(tmp_path / "s", tmp_path / "crashed")
        async with store_at(image) as store:
            assert store.holds_rows
            assert texts_of(store.all_entries(DONE)) == ["a", "b"]
            assert states_of(await read_whole(store, keyed_all("abc"))) == "AAP"

    asyncio.run(main())


def test_how_a_run_ended_is_noted(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_store(tmp_path / "s") as store:
            assert not store.holds_rows
            await store.begin_run("lcbatch run", {"task": "run"}, in_flight=1)
            await store.end_run(3)
        assert names_in(tmp_path) == ["s"]
        connection = connect(tmp_path / "s", read_only=True)
        last = reading.last_run(connection)
        connection.close()
        assert last is not None
        assert (last.exit_code, last.command, last.job) == (3, "lcbatch run", {"task": "run"})

    asyncio.run(main())


def _fill_disk(connection: sqlite3.Connection) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")


async def _with_full_disk(path: Path, texts: str) -> Path:
    """Answer rows while the disk fills up: each answer was received, few could be committed. The files as they are left."""
    async with store_at(path) as store:
        await store.projection(DONE, {})
        rows = pending_of(await read_whole(store, keyed_all(texts)))
        await store.begin_run("lcbatch run", {}, in_flight=4)
        await store._writer.submit(_fill_disk)
        for row in rows:
            store.replies.keep_reply(row, row.key, reply_of(f"reply for {row.fields['text']} " + "x" * 3000))
            try:
                await store.put([Done(row, "long " + "x" * 3000)])
            except OutputFailed:
                assert store.failed
        assert store.failed
        assert len(list(store.entries(DONE, 0))) <= 1
    image = crash_image(path, path.with_name("image"))
    for connection in (store._writer._connection, store._reader, store._view_reader):
        connection.close()  # a process that lost its disk leaves without closing; this one has to go on
    return image


def test_what_a_full_disk_refused_is_taken_in_by_the_next_run_once(tmp_path: Path) -> None:
    async def main() -> None:
        image = await _with_full_disk(tmp_path / "s", "abcdef")
        committed = len(query(image, "SELECT * FROM answers"))
        assert committed < 6
        for _ in range(2):
            async with store_at(image) as store:
                placed = await read_whole(store, keyed_all("abcdef"))
                assert states_of(placed) == "AAAAAA"
                assert sorted(texts_of(shown_after(store, DONE))) == list("abcdef")
        assert [columns[0] for columns in query(image, "SELECT seq FROM standing ORDER BY seq")] == [1, 2, 3, 4, 5, 6]
        assert query(image, "SELECT count(*) FROM replies") == [(6,)]
        assert not image.with_name("s.reserve").exists()

    asyncio.run(main())


def test_the_reserve_is_emptied_only_when_its_answers_are_safe_from_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def traced(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
        connection = connect(path, read_only=read_only)
        connection.set_trace_callback(said.append)
        return connection

    async def main() -> None:
        image = await _with_full_disk(tmp_path / "s", "abc")
        monkeypatch.setattr("lcbatch.store.opened.connect", traced)
        async with open_store(image):
            pass
        assert said.index("PRAGMA synchronous=FULL") < said.index("COMMIT") < said.index("PRAGMA synchronous=NORMAL")

    asyncio.run(main())


def test_replies_are_found_by_the_stored_layer_of_the_next_run(tmp_path: Path) -> None:
    async def main() -> None:
        call = ScriptedCall(["first", "second"])
        for calls_so_far, text in ((1, "a"), (1, "a"), (2, "b")):
            async with store_at(tmp_path / "s") as store:
                (row,) = pending_of(await read(store, keyed_all(text)))
                current_row.set(RowScope(row, 0.0))
                await stored(store.replies)(call)(Request([{"role": "user", "content": text}]))
                assert len(call.requests) == calls_so_far

    asyncio.run(main())


def test_a_store_knows_a_run_by_the_last_position_that_it_committed(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.begin_run("lcbatch run", {}, in_flight=1)
            await store.projection(DONE, {})
            first = f"{store.mark} {await store.commit_position('output', 1, {})}"
        async with store_at(tmp_path / "s") as store:
            await store.begin_run("lcbatch run", {}, in_flight=1)
            begun, of_which_more_is_lost = f"{store.mark} 0", f"{store.mark} 1"
        async with store_at(tmp_path / "s") as store:
            known = [await store.knows(mark, "output") for mark in (first, begun, of_which_more_is_lost, "another 1")]
            assert known == [True, True, False, False]
            await store.begin_run("lcbatch run", {}, in_flight=1)
            await store.commit_position("output", 2, {})
            assert await store.knows(first, "output"), "a later run has taken over"

    asyncio.run(main())
