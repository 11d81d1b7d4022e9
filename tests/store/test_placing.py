"""Placing the input: which rows are answered already, which are gone, and what it costs to find out."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lcbatch.errors import Kind
from lcbatch.ports import Keyed
from lcbatch.store.opened import open_store
from lcbatch.store.placing import Placing
from lcbatch.store.run_store import RunStore
from lcbatch.store.schema import connect

from .support import (
    DONE,
    FIRST,
    ORDERED,
    SECOND,
    answer,
    done,
    dump,
    failed,
    fast_folder,
    keyed,
    keyed_all,
    pending_of,
    read,
    read_whole,
    shown_after,
    states_of,
    store_at,
    texts_of,
)


def test_a_row_is_answered_once_and_for_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            placed = await read_whole(store, keyed_all("abc"))
            assert states_of(placed) == "PPP"
            await answer(store, pending_of(placed)[:2])
        async with store_at(tmp_path / "s") as store:
            assert states_of(await read_whole(store, keyed_all("cbaxb"))) == "PAAPP"

    asyncio.run(main())


def test_equal_rows_are_separate_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, keyed_all("aaa")))
            assert len({row.key for row in rows}) == len({row.ref for row in rows}) == 3
            await answer(store, rows[:2])
        async with store_at(tmp_path / "s") as store:
            assert states_of(await read_whole(store, keyed_all("aaaa"))) == "AAPP"

    asyncio.run(main())


def test_failures_that_pass_are_tried_again_and_final_ones_are_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            one, two = pending_of(await read_whole(store, keyed_all("ab")))
            await store.put([failed(one, Kind.TIMEOUT), failed(two, Kind.REFUSAL)])
        for texts, states in (("ab", "PF"), ("ba", "FP")):
            async with store_at(tmp_path / "s") as store:
                assert states_of(await read_whole(store, keyed_all(texts))) == states

    asyncio.run(main())


def test_a_changed_chain_asks_anew_and_going_back_is_free(tmp_path: Path) -> None:
    async def main() -> None:
        for identity, states in ((FIRST, "PP"), (SECOND, "PP"), (FIRST, "AA"), (SECOND, "AA")):
            async with store_at(tmp_path / "s", identity) as store:
                placed = await read_whole(store, keyed_all("ab"))
                assert states_of(placed) == states
                await answer(store, pending_of(placed), by=str(identity["prompt"]))
                shown = [entry.output for entry in shown_after(store, DONE)]
                assert sorted(shown, key=str) == [f'"{identity["prompt"]}: a"', f'"{identity["prompt"]}: b"']

    asyncio.run(main())


def test_answers_that_are_kept_count_under_the_new_chain(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("ab"))))
        async with store_at(tmp_path / "s", SECOND, keep=True) as store:
            assert states_of(await read_whole(store, keyed_all("abc"))) == "AAP"
            assert texts_of(shown_after(store, DONE)) == ["a", "b"]
        async with store_at(tmp_path / "s", SECOND) as store:
            assert states_of(await read_whole(store, keyed_all("ca"))) == "PA"

    asyncio.run(main())


def test_an_answer_beats_a_failure_that_was_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("ab"))))
        async with store_at(tmp_path / "s", SECOND) as store:
            rows = pending_of(await read_whole(store, keyed_all("ab")))
            await store.put([failed(rows[0], Kind.TIMEOUT), failed(rows[1], Kind.REFUSAL)])
        async with store_at(tmp_path / "s", FIRST, keep=True) as store:
            assert states_of(await read_whole(store, keyed_all("ab"))) == "AA"
            assert len(shown_after(store, DONE)) == 2

    asyncio.run(main())


def test_a_passed_column_that_changed_costs_no_call_and_marks_the_output_stale(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.projection(DONE, {})
            await answer(store, pending_of(await read_whole(store, [keyed("a", note=1), keyed("b", note=1)])))
            assert not await store.is_stale(DONE)
        async with store_at(tmp_path / "s") as store:
            assert states_of(await read_whole(store, [keyed("a", note=1), keyed("b", note=2)])) == "AA"
            assert await store.is_stale(DONE)
            assert ['"note":2' in entry.fields for entry in shown_after(store, DONE)] == [False, True]

    asyncio.run(main())


def test_what_is_gone_stands_until_the_reading_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("abc"))))
        async with store_at(tmp_path / "s") as store:
            await read(store, keyed_all("ca"))
            assert len(await store.gone()) == 1
            assert texts_of(shown_after(store, DONE)) == ["a", "b", "c"]
            await store.end_placing(await store.gone())
            assert texts_of(shown_after(store, DONE)) == ["a", "c"]
            assert states_of(await read_whole(store, keyed_all("abc"))) == "AAA", "its answer is not lost"

    asyncio.run(main())


def test_a_row_with_the_id_of_a_new_one_was_edited_not_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(
                store, pending_of(await read_whole(store, [keyed("a", id="1"), keyed("b", id="2"), keyed("c")]))
            )
        async with store_at(tmp_path / "s") as store:
            await read(store, [keyed("A", id="1")])
            assert [(gone.id, gone.edited) for gone in await store.gone()] == [("1", True), ("2", False), (None, False)]

    asyncio.run(main())


def test_an_edited_row_that_an_interrupted_reading_answered_counts_as_edited_still(tmp_path: Path) -> None:
    """A pipe's rows are called while it is read: the run may end before the reading does."""

    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, [keyed("a", id="1"), keyed("b", id="2")])))
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read(store, [keyed("A", id="1")])))
        async with store_at(tmp_path / "s") as store:
            await read(store, [keyed("A", id="1"), keyed("b", id="2")])
            assert [(gone.id, gone.edited) for gone in await store.gone()] == [("1", True)]

    asyncio.run(main())


def test_equal_ids_do_not_make_removed_rows_edited_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, [keyed(text, id="same") for text in "abcd"])))
        async with store_at(tmp_path / "s") as store:
            await read(store, [keyed(text, id="same") for text in "ba"])
            assert [gone.edited for gone in await store.gone()] == [False, False]

    asyncio.run(main())


def test_a_reading_cut_short_leaves_no_trace_in_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("abcdefghij"))))
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read(store, keyed_all("abXYZdefghi"))))
        async with store_at(tmp_path / "s") as store:
            assert states_of(await read_whole(store, keyed_all("ajX"))) == "AAA"
            assert texts_of(store.all_entries(ORDERED)) == ["a", "j", "X"]
            assert sorted(texts_of(store.all_entries(DONE))) == ["X", "a", "j"]

    asyncio.run(main())


def test_a_first_reading_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read(store, keyed_all("abcd")))[:3])
        async with store_at(tmp_path / "s") as store:
            assert states_of(await read_whole(store, keyed_all("abcdef"))) == "AAAPPP"
            assert texts_of(store.all_entries(ORDERED)) == ["a", "b", "c"]

    asyncio.run(main())


def test_an_ordered_output_is_stale_when_a_row_before_its_position_runs_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.projection(ORDERED, {})
            rows = pending_of(await read_whole(store, keyed_all("abc")))
            await store.put([done(rows[0]), failed(rows[1], Kind.TIMEOUT), done(rows[2])])
            assert texts_of(shown_after(store, ORDERED)) == ["a", "c"]
            await store.commit_position(ORDERED.name, 3, {})
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("abc"))))
            assert await store.is_stale(ORDERED)

    asyncio.run(main())


def test_an_ordered_output_that_keeps_removed_rows_shows_what_is_appended_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.projection(ORDERED, {})
            await answer(store, pending_of(await read_whole(store, keyed_all("abc"))))
            await store.commit_position(ORDERED.name, 3, {})
        async with store_at(tmp_path / "s") as store:
            await read(store, keyed_all("ab"))
            await store.end_placing([])
            assert await store.is_stale(ORDERED)
            assert texts_of(store.all_entries(ORDERED)) == ["a", "b", "c"]

    asyncio.run(main())


def test_an_ordered_output_shows_a_kept_row_once_when_it_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await store.projection(ORDERED, {})
            await answer(store, pending_of(await read_whole(store, keyed_all("abc"))))
            await read(store, keyed_all("ab"))
            await store.end_placing([])
            await store.commit_position(ORDERED.name, -1, {})
            await store.commit_position(ORDERED.name, 2, {})
            assert not await store.is_stale(ORDERED)
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, keyed_all("abdc"))
            assert await store.is_stale(ORDERED), "the file says a, b, c, and after 2 come d and c"

    asyncio.run(main())


def test_what_is_refused_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with store_at(path) as store:
            await store.projection(DONE, {})
            rows = pending_of(await read_whole(store, keyed_all("abcde")))
            await store.put([*(done(row) for row in rows[:3]), failed(rows[3]), failed(rows[4], Kind.TIMEOUT)])
        before = dump(path)
        async with open_store(path) as store:
            await store.hold()
            await store.adopt(await store.lineage(SECOND), keep_answers=False)
            await read_whole(store, [keyed("b", note=5), keyed("x"), *keyed_all("ea")])
            await store.release(commit=False)
            assert dump(path) == before
        assert dump(path) == before

    asyncio.run(main())


def test_what_is_held_and_released_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("abc"))))
        async with store_at(tmp_path / "s") as store:
            await store.hold()
            await read_whole(store, keyed_all("bcd"))
            await store.release(commit=True)
            pages = [[row.fields["text"] for row in page] async for page in store.pending()]
            assert pages == [["d"]]
            assert texts_of(store.all_entries(ORDERED)) == ["b", "c"]

    asyncio.run(main())


_INPUTS = st.lists(st.sampled_from("abcd"), max_size=12)


@given(first=_INPUTS, second=_INPUTS, answered=st.sets(st.integers(0, 11)), batch=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_comparing_with_the_last_reading_and_looking_up_give_the_same(
    first: list[str], second: list[str], answered: set[int], batch: int
) -> None:
    async def main(folder: Path) -> None:
        async with store_at(folder / "old") as store:
            rows = pending_of(await read_whole(store, keyed_all(first), batch=batch))
            known = {row.key for row in rows if row.ordinal in answered}
            await store.put([done(row) for row in rows if row.key in known])
            compared = pending_of(await read_whole(store, keyed_all(second), batch=batch))
            shown = texts_of(store.all_entries(ORDERED))
        async with store_at(folder / "fresh") as store:
            rows = pending_of(await read_whole(store, keyed_all(second), batch=batch))
            await store.put([done(row) for row in rows if row.key in known])
            assert [(row.ordinal, row.key) for row in compared] == [
                (row.ordinal, row.key) for row in rows if row.key not in known
            ]
            assert shown == texts_of(store.all_entries(ORDERED))

    with fast_folder() as folder:
        asyncio.run(main(Path(folder)))


def _steps(count: int, readings: Sequence[Sequence[Keyed]]) -> int:
    """How many of SQLite's own steps, in hundreds, the last of these readings takes."""
    with fast_folder() as folder:
        connection = connect(Path(folder) / "s")
        steps = 0

        def count_step() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.execute("BEGIN")
        for items in readings:
            steps = 0
            connection.set_progress_handler(count_step, 100)
            placing = Placing(1, 1, 1)
            placing.begin(connection)
            for start in range(0, count, 256):
                placing.place(connection, items[start : start + 256])
            placing.gone(connection)
            placing.finish(connection)
        connection.close()
        return steps


def test_equal_rows_cost_as_much_as_others() -> None:
    def equal(count: int) -> list[Keyed]:
        return [keyed("same")] * count

    def reordered(count: int) -> list[Keyed]:
        return [keyed("other"), *equal(count - 1)]

    for few, many in (
        (_steps(2_000, [equal(2_000)]), _steps(8_000, [equal(8_000)])),
        (_steps(2_000, [equal(2_000), reordered(2_000)]), _steps(8_000, [equal(8_000), reordered(8_000)])),
    ):
        assert many < 4 * few * 1.5


def test_placing_many_rows_takes_no_more_memory_than_placing_few(tmp_path: Path) -> None:
    async def peak_of(store: RunStore, count: int) -> int:
        tracemalloc.reset_peak()
        await store.begin_placing()
        for start in range(0, count, 256):
            await store.place([keyed(f"row {number}") for number in range(start, min(start + 256, count))])
        await store.end_placing(await store.gone())
        return tracemalloc.get_traced_memory()[1]

    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            few = await peak_of(store, 1000)
            assert await peak_of(store, 20_000) < few + 200_000

    tracemalloc.start()
    try:
        asyncio.run(main())
    finally:
        tracemalloc.stop()
