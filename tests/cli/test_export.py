"""`export`: where it may write, and what it leaves beside the store."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lcbatch.cli.commands import app
from lcbatch.errors import CannotCreateOutput, InputMissing, LcbatchError, RefusedError, UsageError
from lcbatch.store.lock import hold_lock
from lcbatch.store.schema import connect
from tests.cli.work import Work
from tests.store.support import crash_image


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.chdir(tmp_path)
    found = Work(tmp_path)
    found.write("one", "two", "bad")
    assert found.run().exit_code == 3
    return found


def export(*arguments: str) -> str:
    """What it printed. Raises what the command raised."""
    result = CliRunner().invoke(app, ["export", *arguments])
    if isinstance(result.exception, LcbatchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def answers(path: Path) -> list[str]:
    return sorted(json.loads(line)["output"] for line in path.read_text().splitlines())


@pytest.mark.parametrize("target", ["so-far.jsonl", "no/such/folder/yet/so-far.jsonl"])
def test_an_export_is_a_file_of_what_stands(work: Work, target: str) -> None:
    export("out.jsonl", "-o", target)

    assert answers(work.folder / target) == ["ONE", "TWO"]
    export("out.jsonl", "-o", target, "--output-field", "said")
    assert [sorted(json.loads(line)) for line in (work.folder / target).read_text().splitlines()] == [
        ["said", "text"]
    ] * 2


@pytest.mark.parametrize("out", ["out.jsonl", "out.jsonl.lcbatch"])
@pytest.mark.parametrize(
    "target",
    [
        "out.jsonl",
        "./there/../out.jsonl",
        "link.jsonl",
        "out.jsonl.errors.jsonl",
        "out.jsonl.lcbatch",
        "out.jsonl.lcbatch-wal",
        "out.jsonl.lcbatch.lock",
        "in.jsonl",
    ],
)
def test_an_export_never_goes_onto_a_file_of_the_run(work: Work, out: str, target: str) -> None:
    (work.folder / "there").mkdir()
    (work.folder / "link.jsonl").symlink_to("out.jsonl")
    before = {path: path.read_bytes() for path in work.folder.iterdir() if path.is_file()}

    with pytest.raises(UsageError, match=r"is written by the run itself|is the run's input"):
        export(out, "-o", target)

    assert {path: path.read_bytes() for path in work.folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["rows/*.jsonl", "rows"])
def test_files_that_a_glob_or_a_folder_named_are_inputs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    work = Work(tmp_path)
    (tmp_path / "rows").mkdir()
    work.write("one", name="rows/a.jsonl")
    (tmp_path / "rows" / "doc.txt").write_text("one")
    if name == "rows":
        assert work.run(name=name, task="summarize", chain=None).exit_code == 0
    else:
        assert work.run(name=name).exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    with pytest.raises(UsageError, match="is the run's input"):
        export("../out.jsonl", "-o", "../rows/a.jsonl")
    assert (tmp_path / "rows" / "a.jsonl").read_text() == '{"text": "one"}\n'
    export("../out.jsonl", "-o", "a.jsonl")
    assert len((elsewhere / "a.jsonl").read_text().splitlines()) == 1


def test_files_in_the_run_s_own_folder_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    work = Work(tmp_path)
    work.write("one")
    (tmp_path / "out").mkdir()
    assert work.run(output=f"{tmp_path}/out/").exit_code == 0

    for target in ("out/", "out", "out/so-far.csv"):
        with pytest.raises(UsageError, match="is written by the run itself"):
            export("out/", "-o", target)


def test_a_link_s_target_is_replaced_and_not_the_link(work: Work) -> None:
    (work.folder / "real.jsonl").write_text("old\n")
    (work.folder / "link.jsonl").symlink_to("real.jsonl")

    export("out.jsonl", "-o", "link.jsonl")

    assert (work.folder / "link.jsonl").is_symlink()
    assert answers(work.folder / "real.jsonl") == ["ONE", "TWO"]


@pytest.mark.parametrize("target", ["in.jsonl/x.jsonl", "closed/x.jsonl"])
def test_where_nothing_can_be_made_is_said_as_for_a_run(work: Work, target: str) -> None:
    (work.folder / "closed").mkdir(mode=0o500)
    if target.startswith("closed") and os.access(work.folder / "closed", os.W_OK):
        pytest.skip("nothing is closed to this user")

    with pytest.raises(CannotCreateOutput, match="cannot create"):
        export("out.jsonl", "-o", target)


def test_a_name_of_no_known_form_is_a_usage_error(work: Work) -> None:
    with pytest.raises(UsageError, match="cannot tell from the name"):
        export("out.jsonl", "-o", "x.docx")
    assert "x.docx" not in work.names()


def test_a_fifo_gets_the_rows_whatever_its_name(work: Work) -> None:
    fifo = work.folder / "fifo.jsonl"
    os.mkfifo(fifo)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()

    export("out.jsonl", "-o", "fifo.jsonl")

    reader.join()
    assert sorted(json.loads(line)["output"] for line in got[0].splitlines()) == ["ONE", "TWO"]


def test_a_store_that_is_not_the_outputs_is_told_and_not_exported(work: Work) -> None:
    store = work.folder / "out.jsonl.lcbatch"
    older = store.read_bytes()
    work.write("one", "two", "bad", "three")
    assert work.run().exit_code == 3
    store.write_bytes(older)

    with pytest.raises(RefusedError, match="an older copy, or another output's store") as refusal:
        export("out.jsonl", "-o", "so-far.jsonl")
    assert not (work.folder / "so-far.jsonl").exists()
    assert "note     out.jsonl.lcbatch knows nothing of" in CliRunner().invoke(app, ["status", "out.jsonl"]).stdout

    assert "name the store itself" in refusal.value.hint
    export("out.jsonl.lcbatch", "-o", "so-far.jsonl")
    assert answers(work.folder / "so-far.jsonl") == ["ONE", "TWO"]


def test_a_store_in_which_no_run_began(tmp_path: Path) -> None:
    connect(tmp_path / "out.jsonl.lcbatch").close()
    with pytest.raises(RefusedError, match="no run ever began"):
        export(str(tmp_path / "out.jsonl"), "-o", str(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("command", [["export", "out.jsonl", "-o", "x.jsonl"], ["status", "out.jsonl"]])
def test_what_only_reads_leaves_nothing_beside_a_store_that_nobody_has_open(work: Work, command: list[str]) -> None:
    names = work.names()

    assert CliRunner().invoke(app, command).exit_code == 0

    assert work.names() - {"x.jsonl"} == names


def test_what_a_killed_run_left_is_not_touched_while_the_next_one_holds_it(work: Work) -> None:
    connection = connect(work.folder / "out.jsonl.lcbatch")
    connection.execute("UPDATE runs SET exit_code = 0")
    store = crash_image(work.folder / "out.jsonl.lcbatch", work.folder / "killed")
    connection.close()
    log = store.with_name(f"{store.name}-wal")
    before = log.read_bytes()

    async def beside_a_run() -> None:
        async with hold_lock(store.with_name(f"{store.name}.lock"), command="lcbatch run"):
            assert CliRunner().invoke(app, ["status", str(store)]).exit_code == 0

    asyncio.run(beside_a_run())

    assert before
    assert log.read_bytes() == before


@pytest.mark.parametrize("command", [["status"], ["export", "-o", "x.jsonl"], ["stop"]])
def test_a_store_is_known_by_what_it_is_whatever_its_name(work: Work, command: list[str]) -> None:
    assert work.run(output="other.jsonl", store="s.db").exit_code == 3

    assert CliRunner().invoke(app, [*command, "s.db"]).exit_code == 0


def test_so_is_one_whose_beginning_still_stands_in_its_log(work: Work) -> None:
    connection = connect(work.folder / "new.db")
    store = crash_image(work.folder / "new.db", work.folder / "killed")
    connection.close()

    with pytest.raises(RefusedError, match="no run ever began"):
        export(str(store), "-o", "x.jsonl")


def test_somebody_else_s_database_is_no_store(work: Work) -> None:
    with closing(sqlite3.connect(work.folder / "theirs.db")) as connection:
        connection.execute("CREATE TABLE own (row)")

    with pytest.raises(RefusedError, match=r"theirs\.db is no run store of lcbatch"):
        export("theirs.db", "-o", "x.jsonl")
    with pytest.raises(InputMissing, match=r"there is no run store in\.jsonl\.lcbatch"):
        export("in.jsonl", "-o", "x.jsonl")
