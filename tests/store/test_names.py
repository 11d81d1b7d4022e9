"""What a folder's files are called: rows of one id, rows without one, and names that nobody has any more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from lcbatch.ports import Name
from lcbatch.records import Json
from lcbatch.store.placing import Gone
from lcbatch.store.run_store import RunStore

from .support import (
    DONE,
    FIRST,
    SECOND,
    answer,
    done,
    failed,
    labelled,
    pending_of,
    read,
    read_whole,
    store_at,
    texts_of,
)


def names_of(store: RunStore) -> dict[str, tuple[str, int]]:
    """By text."""
    return {texts_of([entry])[0]: (entry.id, entry.twin) for entry in store.all_entries(DONE)}


def test_rows_of_one_id_are_told_apart_and_keep_their_names(tmp_path: Path) -> None:
    async def main() -> None:
        rows = labelled(("a", "x"), ("b", "x"), ("c", None), ("d", "x"))
        for _ in range(2):
            async with store_at(tmp_path / "s") as store:
                await answer(store, pending_of(await read_whole(store, rows)))
                assert names_of(store) == {"a": ("x", 0), "b": ("x", 1), "c": ("row-3", 0), "d": ("x", 2)}
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, rows[1:])
            assert names_of(store) == {"b": ("x", 0), "c": ("row-3", 0), "d": ("x", 1)}
            assert await store.departed() == [Name("x", 2)]

    asyncio.run(main())


def test_a_row_that_gets_the_id_of_another_gets_a_name_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("a", "x"), ("b", "y"), ("c", "z")))))
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, labelled(("a", "x"), ("b", "x"), ("c", "z")))
            assert names_of(store) == {"a": ("x", 0), "b": ("x", 1), "c": ("z", 0)}
            assert await store.departed() == [Name("y")]

    asyncio.run(main())


def test_an_id_like_our_own_names_is_no_name_of_ours(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("a", None), ("b", "row-1")))))
            assert names_of(store) == {"a": ("row-1", 0), "b": ("row-1", 1)}

    asyncio.run(main())


def test_a_new_answer_takes_the_name_of_the_row_that_was_edited(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("a", "x"), ("b", "x")))))
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("A", "x"), ("b", "x")))))
            await store.settle()
            assert names_of(store) == {"A": ("x", 0), "b": ("x", 1)}
            assert await store.departed() == []

    asyncio.run(main())


def test_a_row_that_stays_makes_room_for_the_one_that_has_its_id_now(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("a", "x"), ("b", "x")))))
        async with store_at(tmp_path / "s") as store:
            await read(store, labelled(("b", "x")))
            (gone,) = await store.gone()
            assert gone.namesake
            await store.end_placing([Gone(gone.row_id, gone.id, namesake=True, stays=True)])
            assert names_of(store) == {"a": ("x", -1), "b": ("x", 0)}
            assert await store.departed() == [Name("x", 1)], "the other name has an answer again"

    asyncio.run(main())


def test_the_name_that_a_row_leaves_to_a_failed_one_departs(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = pending_of(await read_whole(store, labelled(("a", "x"), ("b", "x"))))
            await store.put([done(rows[0]), failed(rows[1])])
        async with store_at(tmp_path / "s") as store:
            await read(store, labelled(("b", "x")))
            await store.end_placing(
                [Gone(gone.row_id, gone.id, namesake=True, stays=True) for gone in await store.gone()]
            )
            assert names_of(store) == {"a": ("x", -1)}
            assert Name("x", 0) in await store.departed()

    asyncio.run(main())


@pytest.mark.parametrize("label", ["x", None])
@pytest.mark.parametrize("identity", [FIRST, SECOND], ids=["retyped", "redone"])
def test_a_name_departs_when_its_row_fails(tmp_path: Path, label: str | None, identity: Mapping[str, Json]) -> None:
    name = Name(label or "row-1")

    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("a", label), ("b", "y")))))
        async with store_at(tmp_path / "s", identity) as store:
            text = "a" if identity is SECOND else "A"
            rows = pending_of(await read_whole(store, labelled((text, label), ("b", "y"))))
            await store.put([failed(row) if row.fields["text"] == text else done(row) for row in rows])
            await store.settle()
            assert await store.departed() == [name]
            await store.forget_departed()
            assert await store.departed() == []

    asyncio.run(main())


@pytest.mark.parametrize("label", ["x", None])
def test_a_name_departs_with_its_row_and_not_while_the_row_stands_answered(tmp_path: Path, label: str | None) -> None:
    async def main() -> None:
        rows = labelled(("a", label), ("b", "y"))
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, rows)))
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, rows[1:])
            assert await store.departed() == [Name(label or "row-1")]
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, rows)
            assert await store.departed() == []

    asyncio.run(main())


def test_ids_of_a_reading_that_was_cut_short_do_not_stay_in_the_names(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            await read_whole(store, labelled(("a", "y"), ("b", "y")))
        async with store_at(tmp_path / "s") as store:
            await read(store, labelled(("a", "x")))
        async with store_at(tmp_path / "s") as store:
            await answer(store, pending_of(await read_whole(store, labelled(("a", "x"), ("b", "y")))))
            assert names_of(store) == {"a": ("x", 0), "b": ("y", 0)}

    asyncio.run(main())


def test_many_names_that_leave_are_told_in_no_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            rows = [(str(number), str(number)) for number in range(4000)]
            await answer(store, pending_of(await read_whole(store, labelled(*rows), batch=256)))
            await read_whole(store, labelled(*rows[:2000]), batch=256)
            steps = 0

            def counted() -> None:
                nonlocal steps
                steps += 1

            store._writer._connection.set_progress_handler(counted, 1000)
            assert len(await store.departed()) == 2000
            assert steps < 1000, "each name was compared with every row's"

    asyncio.run(main())
