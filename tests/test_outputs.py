"""Where a run's files lie, who holds them, and how old ones are set aside."""

from __future__ import annotations

import asyncio
import io
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lcbatch.cli.found import reading
from lcbatch.errors import CannotCreateOutput, UsageError
from lcbatch.job import Job
from lcbatch.observers.stats import Stats
from lcbatch.observers.summary import summary_json
from lcbatch.outputs import (
    AlreadyRunning,
    NewOutput,
    Place,
    locked,
    place_of,
    put_back,
    remove_store,
    set_aside,
)
from lcbatch.store.lock import OutputLocked, holder_of, keep_mark, mark_of
from lcbatch.store.opened import open_store
from lcbatch.store.reading import last_run
from lcbatch.witness import forget_writer
from lcbatch.world import World
from tests.cli.work import Work
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"errors": "out.jsonl.lcbatch"}, "both a file of the run store and the errors file"),
        ({"errors": "out.jsonl.lcbatch-wal"}, "both a file of the run store and the errors file"),
        ({"errors": "out.jsonl"}, "both the output and the errors file"),
        ({"errors": "link.jsonl"}, "both the errors file and the input"),
        ({"store": "out.jsonl.errors.jsonl"}, "both a file of the run store and the errors file"),
        ({"store": "out.jsonl"}, "both a file of the run store and the output"),
        ({"summary_json": "out.jsonl.lcbatch"}, "both a file of the run store and --summary-json"),
        ({"summary_json": "out.jsonl.lcbatch.lock"}, "both a file of the run store and --summary-json"),
        ({"summary_json": "in.jsonl"}, "both --summary-json and the input"),
        ({"output": "in.jsonl"}, "both the output and the input"),
        ({"output": "out/", "errors": "out/row.md"}, "lies where the answers go"),
    ],
    ids=str,
)
def test_no_file_of_a_run_is_another_of_its_files_or_its_input(
    tmp_path: Path, options: dict[str, str], said: str
) -> None:
    (tmp_path / "in.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    (tmp_path / "out").mkdir()
    given = {name: f"{tmp_path}/{path}" for name, path in {"output": "out.jsonl", **options}.items()}
    with pytest.raises(UsageError, match=re.escape(said)):
        place(tmp_path, str(tmp_path / "in.jsonl"), **given)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("in/*.jsonl", {"errors": "in/b.jsonl"}, "in/b.jsonl would be both the errors file and the input"),
        ("in/*.jsonl", {"errors": "link.jsonl"}, "in/b.jsonl would be both the errors file and the input"),
        ("in/*.jsonl", {"summary_json": "in/b.jsonl"}, "in/b.jsonl would be both --summary-json and the input"),
        ("in/*.jsonl", {"output": "in/b.jsonl", "fresh": True}, "in/b.jsonl would be both the output and the input"),
        ("in/*.jsonl", {"store": "in/b.jsonl", "fresh": True}, "both a file of the run store and the input"),
        ("in", {"summary_json": "in/sub/c.md"}, "in/sub/c.md would be both --summary-json and the input"),
        ("in", {"errors": "in/sub/c.md"}, "in/sub/c.md would be both the errors file and the input"),
        ("i?", {"errors": "in/sub/c.md"}, "in/sub/c.md would be both the errors file and the input"),
    ],
    ids=str,
)
def test_what_a_pattern_or_a_folder_takes_in_is_not_written_over(
    tmp_path: Path, given: str, options: dict[str, Any], said: str
) -> None:
    _inputs_in(tmp_path)
    paths = {name: f"{tmp_path}/{value}" for name, value in options.items() if name != "fresh"}
    with pytest.raises(UsageError, match=re.escape(said)):
        place(tmp_path, f"{tmp_path}/{given}", **{"output": f"{tmp_path}/out.jsonl", **options, **paths})


@pytest.mark.parametrize(
    "options",
    [
        {"errors": "in/new.jsonl"},
        {"errors": "in/empty.jsonl"},
        {"errors": "in/errors.jsonl"},
        {"summary_json": "in/figures.jsonl"},
        {"output": "in/out.jsonl"},
        {"output": "in/out.jsonl", "errors": "in/sub/c.md", "include": ("*.jsonl",)},
    ],
    ids=str,
)
@pytest.mark.parametrize("given", ["in/*.jsonl", "in"])
def test_what_an_earlier_run_wrote_may_lie_among_the_input(tmp_path: Path, given: str, options: dict[str, Any]) -> None:
    _inputs_in(tmp_path)
    (tmp_path / "in/empty.jsonl").touch()
    (tmp_path / "in/errors.jsonl").write_text(
        '{"text": "' + "x" * 2_000_000 + '", "_lcbatch_error": {}}\n{"text": "b"}\n'
    )
    (tmp_path / "in/figures.jsonl").write_text(json.dumps(summary_json(Stats().snapshot(0.0))) + "\n")
    for name in ("out.jsonl", "out.jsonl.errors.jsonl"):
        (tmp_path / "in" / name).write_text("an older run's, and edited")
    (tmp_path / "in/out.jsonl.lcbatch.lock").touch()
    paths = {name: f"{tmp_path}/{value}" for name, value in options.items() if name != "include"}
    place(tmp_path, f"{tmp_path}/{given}", **{"output": f"{tmp_path}/out.jsonl", **options, **paths})


def _inputs_in(folder: Path) -> None:
    (folder / "in/sub").mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl", "sub/c.md"):
        (folder / "in" / name).write_text('{"text": "a"}\n')
    (folder / "link.jsonl").symlink_to("in/b.jsonl")


def test_an_errors_file_as_input_of_its_own_output_is_retried_or_copied(tmp_path: Path) -> None:
    errors = tmp_path / "out.jsonl.errors.jsonl"
    errors.write_text('{"text": "a", "_lcbatch_error": {}}\n')
    (tmp_path / "out.jsonl.lcbatch").touch()
    with pytest.raises(UsageError, match="both the errors file and the input") as caught:
        place(tmp_path, str(errors), output=f"{tmp_path}/out.jsonl")
    assert caught.value.hint.startswith(f"lcbatch retry {tmp_path}/out.jsonl runs failed rows again; or name a copy")


def test_a_device_may_be_named_for_several_uses(tmp_path: Path) -> None:
    place(tmp_path, output=f"{tmp_path}/out.jsonl", errors="/dev/null", summary_json="/dev/null")


def test_equal_pipes_share_a_store_and_others_do_not(tmp_path: Path) -> None:
    first = place(tmp_path, "a.jsonl", prompt="one")
    assert first.is_temporary
    assert first.store.parent == tmp_path / "state" / "lcbatch"
    assert place(tmp_path, "a.jsonl", prompt="one", progress="none", quiet=True).store == first.store
    others = [place(tmp_path, "b.jsonl", prompt="one"), place(tmp_path, "a.jsonl", prompt="two")]
    assert len({first.store, *(other.store for other in others)}) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": "2"},
        {"fresh": True},
        {"limit": 3},
        {"max_cost": 5.0},
        {"timeout": 5.0},
        {"price": "in=1,out=2"},
        {"fallback": ("openai:b",)},
        {"base_url": "http://localhost:1/v1"},
        {"api_key_env": "OTHER"},
        {"on_change": "redo"},
        {"dry_run": True},
        {"summary_json": "s.json"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_pipe_is_the_same_pipe_however_it_is_run(tmp_path: Path, options: dict[str, Any]) -> None:
    given = {"prompt": "one", "model": "openai:a"}
    assert place(tmp_path, "-", **given, **options).store == place(tmp_path, "-", **given).store


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "two"},
        {"system": "s"},
        {"model": "openai:b"},
        {"temperature": 0.5},
        {"model_arg": ("top_p=0.5",)},
        {"keep": "none"},
        {"meta": True},
        {"input_format": "csv"},
        {"task": "summarize"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_pipe_that_gives_something_else_is_another(tmp_path: Path, options: dict[str, Any]) -> None:
    given = {"prompt": "one", "model": "openai:a"}
    assert place(tmp_path, "-", **{**given, **options}).store != place(tmp_path, "-", **given).store


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


@pytest.mark.parametrize("second", ["out.jsonl", "link.jsonl", "there/out.jsonl"])
@pytest.mark.parametrize("stores", [("a", "b"), ("a", None), (None, "b")], ids=str)
def test_one_output_has_one_run_whatever_stores_are_named(
    tmp_path: Path, second: str, stores: tuple[str | None, str | None]
) -> None:
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    (tmp_path / "there").symlink_to(tmp_path)
    first, other = (
        Job.of(output=str(tmp_path / name), **({"store": str(tmp_path / store)} if store else {}))
        for name, store in zip(("out.jsonl", second), stores, strict=True)
    )

    async def main() -> None:
        async with locked(place_of(first, _world(tmp_path)), first, "lcbatch run"):
            with pytest.raises(OutputLocked, match="in use by another run"):
                async with locked(place_of(other, _world(tmp_path)), other, "lcbatch run"):
                    pass
        async with locked(place_of(other, _world(tmp_path)), other, "lcbatch run"):
            pass

    asyncio.run(main())


def test_one_store_has_one_run_by_whatever_link_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("s.db")
    (tmp_path / "s.db").touch()
    first, other = (
        Job.of(output=str(tmp_path / output), store=str(tmp_path / store))
        for output, store in (("a.jsonl", "s.db"), ("b.jsonl", "link.db"))
    )

    async def main() -> None:
        async with locked(place_of(first, _world(tmp_path)), first, "lcbatch run"):
            with pytest.raises(OutputLocked, match="in use by another run"):
                async with locked(place_of(other, _world(tmp_path)), other, "lcbatch run"):
                    pass

    asyncio.run(main())


def test_a_store_behind_a_link_is_set_aside_and_removed_where_it_lies_and_the_link_stays(tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    link = tmp_path / "out.jsonl.lcbatch"
    link.symlink_to("far/s.db")
    for end in ("", "-wal", ".reserve"):
        (far / f"s.db{end}").write_text("old")
    found = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    assert found.store == far / "s.db"
    assert found.own_files() >= {far / "s.db-wal", far / "s.db.reserve", far / "s.db.lock"}
    moved = set_aside(found)
    assert {path.parent for path in moved} == {far}
    assert names_in(far) == sorted(path.name for path in moved)
    assert [path.read_text() for path in moved] == ["old"] * 3
    again = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    assert again.store == found.store
    again.store.write_text("new")
    assert link.read_text() == "new"
    remove_store(again)
    assert names_in(far) == sorted(path.name for path in moved)
    assert put_back(found) == [far / f"s.db{end}" for end in ("", "-wal", ".reserve")]
    assert link.read_text() == "old"


_LOOK = """
import os
from pathlib import Path
def look(fields):
    here = Path(__file__).parent
    return [sorted(name for name in os.listdir(folder) if name not in ("in.jsonl", "out.jsonl", "chain.py", "look.py")
                   and "__" not in name) for folder in (here, here / "far")]
"""


def test_all_files_of_a_store_behind_a_link_lie_where_the_link_leads(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.write("a")
    (tmp_path / "look.py").write_text(_LOOK)
    (tmp_path / "far").mkdir()
    (tmp_path / "out.jsonl.lcbatch").symlink_to("far/s.db")
    assert work.run(chain=f"{tmp_path}/look.py:look").exit_code == 0
    (row,) = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["output"] == [
        ["far", "out.jsonl.lcbatch"],
        ["s.db", "s.db-shm", "s.db-wal", "s.db.lock", "s.db.reserve"],
    ]
    with reading(tmp_path / "out.jsonl.lcbatch") as connection:
        assert last_run(connection) is not None
    assert names_in(tmp_path / "far") == ["s.db", "s.db.lock"]


def test_a_link_in_the_place_of_a_lock_file_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "out.jsonl.lcbatch.lock").symlink_to("theirs")
    job = Job.of(output=str(tmp_path / "out.jsonl"))

    async def main() -> None:
        with pytest.raises(
            CannotCreateOutput, match=r"out.jsonl.lcbatch.lock is a symbolic link, and is not"
        ) as caught:
            async with locked(place_of(job, _world(tmp_path)), job, "lcbatch run"):
                pass
        assert caught.value.hint == "remove the link"

    asyncio.run(main())
    assert (tmp_path / "theirs").read_text() == "precious"


def test_all_take_their_locks_in_the_same_order(tmp_path: Path) -> None:
    one = place(tmp_path, output=str(tmp_path / "a.jsonl"), store=str(tmp_path / "b.jsonl.lcbatch"))
    other = place(tmp_path, output=str(tmp_path / "b.jsonl"), store=str(tmp_path / "a.jsonl.lcbatch"))

    assert one.locks() == other.locks() == [tmp_path / "a.jsonl.lcbatch.lock", tmp_path / "b.jsonl.lcbatch.lock"]


def test_an_output_where_no_lock_can_be_made_is_held_by_its_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = Job.of(output=f"{tmp_path}/file/out/", store=str(tmp_path / "local"))

    async def main() -> None:
        async with locked(place_of(job, _world(tmp_path)), job, "lcbatch run"):
            assert holder_of(tmp_path / "local.lock") is not None
        without_room = Job.of(output=str(tmp_path / "out.jsonl"), store=f"{tmp_path}/file/local")
        with pytest.raises(CannotCreateOutput):
            async with locked(place_of(without_room, _world(tmp_path)), without_room, "lcbatch run"):
                pass

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


def test_what_was_set_aside_can_be_put_back(tmp_path: Path) -> None:
    found = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    for name in ("out.jsonl", "out.jsonl.lcbatch", "out.jsonl.lcbatch-wal", "out.jsonl.errors.jsonl"):
        (tmp_path / name).write_text(name)
    names = names_in(tmp_path)
    assert len(set_aside(found)) == 4

    assert sorted(path.name for path in put_back(found)) == names
    assert names_in(tmp_path) == names
    assert all((tmp_path / name).read_text() == name for name in names)
    assert put_back(found) == []


def test_whose_output_it_was_is_put_back_too(tmp_path: Path) -> None:
    job = Job.of(output=str(tmp_path / "out.jsonl"))

    async def main() -> None:
        async with locked(place_of(job, _world(tmp_path)), job, "lcbatch run") as here:
            assert here.output_lock is not None
            here.store.touch()
            keep_mark(here.output_lock, "some run 7")
            set_aside(here)
            forget_writer(here)
            assert mark_of(here.output_lock) is None
            keep_mark(here.output_lock, "a run with the new store 1")
            put_back(here)
            assert mark_of(here.output_lock) == "some run 7"

    asyncio.run(main())


def test_what_has_been_written_since_stays_where_it_is(tmp_path: Path) -> None:
    found = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    (tmp_path / "out.jsonl").write_text("old")
    (aside,) = set_aside(found)
    (tmp_path / "out.jsonl").write_text("new")

    assert put_back(found) == []
    assert ((tmp_path / "out.jsonl").read_text(), aside.read_text()) == ("new", "old")


def test_what_can_be_set_aside_only_in_part_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = place(tmp_path, output=str(tmp_path / "out.jsonl"))
    for name in ("out.jsonl", "out.jsonl.lcbatch"):
        (tmp_path / name).write_text(name)
    rename = Path.rename

    def once(path: Path, target: Path) -> Path:
        if path == found.store:
            raise PermissionError(1, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", once)

    with pytest.raises(CannotCreateOutput, match="Operation not permitted"):
        set_aside(found)
    assert names_in(tmp_path) == ["out.jsonl", "out.jsonl.lcbatch"]


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_before_any_run_began_puts_back_what_was_set_aside(tmp_path: Path, *, begun: bool) -> None:
    async def broken_off(found: Place, job: Job) -> None:
        async with locked(found, job, "lcbatch run") as here:
            set_aside(here)
            async with open_store(here.store) as store:
                if begun:
                    await store.begin_run("lcbatch run", {}, in_flight=1)
                raise ValueError("inside")

    async def main() -> None:
        job = Job.of(output=str(tmp_path / "out.jsonl"))
        found = place_of(job, _world(tmp_path))
        async with store_at(found.store) as store:
            await answer(store, pending_of(await read_whole(store, keyed_all("a"))))
        with pytest.raises(ValueError, match="inside"):
            await broken_off(found, job)
        async with open_store(found.store) as store:
            assert texts_of(store.all_entries(DONE)) == ([] if begun else ["a"])

    asyncio.run(main())


@pytest.mark.parametrize(("held", "left"), [(None, False), ("", False), ("a row", True)])
def test_an_output_that_was_made_for_nothing_goes_again(tmp_path: Path, held: str | None, left: bool) -> None:  # noqa: FBT001
    output = tmp_path / "out.jsonl"
    made = NewOutput(place(tmp_path, output=str(output)))
    if held is not None:
        output.write_text(held)

    made.remove_output()

    assert output.exists() == left


def test_an_output_that_was_there_before_stays_even_if_it_is_empty(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.touch()
    (tmp_path / "folder").mkdir()

    for name in ("out.jsonl", "folder/"):
        NewOutput(place(tmp_path, output=f"{tmp_path}/{name}")).remove_output()

    assert names_in(tmp_path) == ["folder", "out.jsonl"]


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    made = [NewOutput(place(tmp_path, output=f"{tmp_path}/{name}/")) for name in ("empty", "full")]
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.md").touch()

    for each in made:
        each.remove_output()

    assert names_in(tmp_path) == ["full"]


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
