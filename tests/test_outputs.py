"""Where a run's files lie, who holds them, and how old ones are set aside."""

from __future__ import annotations

import asyncio
import io
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import UsageError
from lcbatch.job import Job
from lcbatch.outputs import AlreadyRunning, Place, locked, place_of, remove_store, set_aside
from lcbatch.store.lock import OutputLocked, holder_of
from lcbatch.store.run_store import open_store
from lcbatch.world import World
from tests.store.support import DONE, answer, keyed_all, names_in, pending_of, read_whole, store_at, texts_of


def place(tmp_path: Path, *inputs: str, **options: Any) -> Place:
    return place_of(Job.of(*inputs, **options), _world(tmp_path))


def _world(home: Path) -> World:
    env = {"XDG_STATE_HOME": str(home / "state")}
    return World(
        stdin=None, stdout_fd=1, stdout_is_terminal=False, stderr=io.StringIO(), stderr_is_terminal=False, env=env
    )


def test_everything_lies_beside_the_output(tmp_path: Path) -> None:
    found = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    assert found.store == tmp_path / "out.jsonl.lcbatch"
    assert found.lock == tmp_path / "out.jsonl.lcbatch.lock"
    assert found.errors == tmp_path / "out.jsonl.errors.jsonl"
    assert not found.is_temporary
    own = {path.name for path in found.own_files()}
    assert own >= {"out.jsonl", "out.jsonl.lcbatch", "out.jsonl.lcbatch-wal", "out.jsonl.lcbatch.reserve"}


def test_a_folders_store_lies_beside_it_not_in_it(tmp_path: Path) -> None:
    assert place(tmp_path, output=f"{tmp_path}/out/").store == tmp_path / "out.lcbatch"


def test_a_store_can_be_named(tmp_path: Path) -> None:
    found = place(tmp_path, output="/nfs/out.jsonl", store=str(tmp_path / "local"))
    assert (found.store, found.lock) == (tmp_path / "local", tmp_path / "local.lock")


def test_a_name_of_no_known_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        place(tmp_path, output="out.docx")


def test_equal_pipes_share_a_store_and_others_do_not(tmp_path: Path) -> None:
    first = place(tmp_path, "a.jsonl", prompt="one")
    assert first.is_temporary
    assert first.store.parent == tmp_path / "state" / "lcbatch"
    assert place(tmp_path, "a.jsonl", prompt="one", progress="none", quiet=True).store == first.store
    others = [place(tmp_path, "b.jsonl", prompt="one"), place(tmp_path, "a.jsonl", prompt="two")]
    assert len({first.store, *(other.store for other in others)}) == 3


def test_the_second_of_two_runs_is_turned_away_or_skipped(tmp_path: Path) -> None:
    output = str(tmp_path / "out.jsonl")

    async def main() -> None:
        job = Job.of(output=output)
        async with locked(place_of(job, _world(tmp_path)), job, "lcbatch run"):
            for mode, error in (("fail", OutputLocked), ("skip", AlreadyRunning)):
                second = Job.of(output=output, if_locked=mode)
                with pytest.raises(error) as caught:
                    async with locked(place_of(second, _world(tmp_path)), second, "lcbatch run"):
                        pass
                assert "in use by another run" in str(caught.value)

    asyncio.run(main())


def test_equal_pipes_run_side_by_side_each_with_a_store_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        job = Job.of("a.jsonl")
        found = place_of(job, _world(tmp_path))
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(locked(found, job, "lcbatch run")) for _ in range(3)]
            assert len({one.store for one in held}) == 3
            assert held[0] == found
            assert all(holder_of(one.lock) for one in held)
        async with locked(found, job, "lcbatch run") as again:
            assert again == found

    asyncio.run(main())


def test_an_error_inside_the_run_frees_the_output(tmp_path: Path) -> None:
    async def main() -> None:
        job = Job.of(output=str(tmp_path / "out.jsonl"))
        found = place_of(job, _world(tmp_path))
        with pytest.raises(ValueError, match="inside"):
            async with locked(found, job, "lcbatch run"):
                raise ValueError("inside")
        assert holder_of(found.lock) is None

    asyncio.run(main())


def test_what_is_set_aside_is_whole_and_can_be_read(tmp_path: Path) -> None:
    found = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    assert found.errors is not None

    async def fill() -> None:
        async with store_at(found.store) as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("ab"))))

    async def answers_in(path: Path) -> list[str]:
        async with open_store(path) as store:
            return texts_of(store.all_entries(DONE))

    asyncio.run(fill())
    (tmp_path / "out.jsonl").write_text("old\n")
    found.errors.write_text("old\n")
    moved = set_aside(found)
    assert set(moved) == set(tmp_path.iterdir())
    assert len(moved) == 3
    (store,) = [path for path in moved if ".lcbatch.old" in path.name]
    assert asyncio.run(answers_in(store)) == ["a", "b"]
    assert set_aside(found) == []


def test_a_write_ahead_log_goes_with_its_store(tmp_path: Path) -> None:
    found = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    for end in ("", "-wal", "-shm"):
        found.store.with_name(found.store.name + end).touch()
    store, *others = sorted(set_aside(found))
    assert {path.name.removeprefix(store.name) for path in others} == {"-wal", "-shm"}


def test_a_pipes_store_is_removed_but_never_its_lock(tmp_path: Path) -> None:
    async def main() -> None:
        job = Job.of("a.jsonl")
        found = place_of(job, _world(tmp_path))
        async with locked(found, job, "lcbatch run"):
            async with open_store(found.store):
                pass
            remove_store(found)
        assert names_in(found.store.parent) == [found.lock.name]

    asyncio.run(main())
