"""What stands while something is asked anew: old answers and old failures stay until something takes their place.

Each test ends a run early, or comes back to an output after an edit, and looks at what the user finds.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lcbatch.app import Report, Retry, run_job
from lcbatch.sinks.appendfile import AppendFile
from lcbatch.sinks.faults import cannot_write, write_all
from lcbatch.store.reading import Standing, standing
from lcbatch.store.schema import connect
from tests.e2e.support import Shop, cli, texts

Rows = Sequence[Mapping[str, Any]]


def run(shop: Shop, rows: Rows | None = None, **options: Any) -> Report:
    """Run over these rows (over the input as it is). `out` is a folder."""
    if rows is not None:
        shop.write("in.jsonl", rows)
    if options.get("output") == "out":
        (shop.folder / "out").mkdir(exist_ok=True)
    return asyncio.run(shop.run("in.jsonl", **options))


def retry(shop: Shop, **options: Any) -> Report:
    job = shop.job("in.jsonl", **options)
    return asyncio.run(run_job(job, shop.world(), Retry()))


def called(shop: Shop, since: int) -> list[str]:
    return sorted(entry["prompt"] for entry in shop.billed()[since:])


def numbered(words: str, **more: Any) -> list[dict[str, Any]]:
    """Rows with ids from 1 on."""
    return [{"id": str(number), "text": word, **more} for number, word in enumerate(words, 1)]


def files_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def status_of(store: Path) -> Standing:
    with closing(connect(store, read_only=True)) as connection:
        return standing(connection)


def called_off(shop: Shop, **options: Any) -> Report:
    """A retry that the provider ends at once: the key is refused, and no row can be blamed for that."""
    shop.provider.control(faults={"auth": 1.0})
    try:
        report = retry(shop, **options)
    finally:
        shop.provider.control(faults={})
    assert report.exit_code == 77
    return report


BAD = "bad [[fault:context:1]]"


# --- failed rows that are asked again


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_failed_rows_stand_until_a_retry_has_something_better(shop: Shop, output: str) -> None:
    rows = [{"id": str(number), "text": f"{output} {BAD} {number}"} for number in range(9)]
    options: dict[str, Any] = {"output": output, "failed_rows": "include"}
    assert run(shop, [{"id": "good", "text": "good"}, *rows], **options).exit_code == 3
    lines = (shop.folder / output).read_text().splitlines()
    errors = shop.output(f"{output}.errors.jsonl")
    called_off(shop, **options)
    assert sorted((shop.folder / output).read_text().splitlines()) == sorted(lines)
    assert {row["id"]: row for row in shop.output(f"{output}.errors.jsonl")} == {row["id"]: row for row in errors}
    now = status_of(shop.folder / f"{output}.lcbatch")
    assert (now.rows, now.done, now.failed, now.left) == (10, 1, 9, 0)
    assert retry(shop, **options).exit_code == 0
    assert len((shop.folder / output).read_text().splitlines()) == len(lines)
    assert not (shop.folder / f"{output}.errors.jsonl").exists()


def test_failures_that_pass_stand_until_a_plain_rerun_comes_to_them(shop: Shop) -> None:
    # One at a time, and every second one good: a provider that spoils all it says is taken to be down.
    options: dict[str, Any] = {"output": "out.csv", "concurrency": "1"}
    marks = ["", " [[fault:badjson:2]]"] * 4
    assert run(shop, [{"text": f"row {number}{mark}"} for number, mark in enumerate(marks)], **options).exit_code == 3
    before = cells(shop.folder / "out.csv")
    assert [row[-1].split(":")[0] for row in before] == ["", "bad_body"] * 4
    assert run(shop, limit=1, **options).exit_code == 3
    found = cells(shop.folder / "out.csv")
    assert [row[0] for row in found] == [row[0] for row in before], "--limit never shortens an output"
    assert len([row for row in found if row[-1]]) == 3
    assert run(shop, **options).exit_code == 0


# --- another chain


def test_a_limited_redo_leaves_the_old_answers_until_new_ones_come(shop: Shop) -> None:
    rows = numbered("abcdefghi")
    run(shop, rows)
    before = len(shop.billed())
    assert run(shop, prompt="Shout {text}", on_change="redo", limit=2).exit_code == 0
    found = shop.output()
    assert [row["text"] for row in sorted(found, key=lambda row: row["id"])] == list("abcdefghi")
    assert called(shop, before) == ["Shout a", "Shout b"]
    now = status_of(shop.folder / "out.jsonl.lcbatch")
    assert (now.rows, now.done, now.left) == (9, 2, 7)
    assert run(shop, prompt="Shout {text}").exit_code == 0
    assert called(shop, before) == [f"Shout {word}" for word in "abcdefghi"]
    said = {entry["prompt"]: entry["answer"] for entry in shop.billed()}
    assert all(row["output"] == said[f"Shout {row['text']}"] for row in shop.output())
    assert len(shop.output()) == 9


# --- edited rows


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_an_edited_row_under_a_limit_is_one_row(shop: Shop, output: str) -> None:
    run(shop, numbered("abcd"), output=output)
    edited = [*numbered("aBcd"), {"id": "5", "text": "e"}]
    assert run(shop, edited, output=output, limit=1).exit_code == 0
    if output == "out.jsonl":
        assert texts(shop.output()) == sorted("aBcd")
    else:
        assert [row[1] for row in cells(shop.folder / output)] == list("aBcd")
    assert run(shop, output=output).exit_code == 0, "nothing is gone: it is one row, edited"
    before = len(shop.billed())
    assert run(shop, output=output).exit_code == 0
    assert called(shop, before) == []


def test_an_edited_row_that_the_limit_does_not_reach_keeps_its_answer(shop: Shop) -> None:
    run(shop, numbered("abcd"))
    run(shop, numbered("ABcd"), limit=1)
    assert texts(shop.output()) == sorted("Abcd")
    run(shop)
    assert texts(shop.output()) == sorted("ABcd")


# --- rows that are kept


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_kept_rows_survive_a_deleted_ordered_output(shop: Shop, output: str) -> None:
    options: dict[str, Any] = {"output": output, "ordered": True}
    run(shop, numbered("abcdefghij"), **options)
    run(shop, numbered("abcdefgh"), on_removed="keep", **options)
    whole = (shop.folder / output).read_bytes()
    assert len(whole.splitlines()) in {10, 11}
    (shop.folder / output).unlink()
    assert run(shop, on_removed="keep", **options).exit_code == 0
    assert (shop.folder / output).read_bytes() == whole
    assert run(shop, on_removed="keep", **options).exit_code == 0
    assert (shop.folder / output).read_bytes() == whole


def test_another_pipe_into_the_same_file_is_told_not_refused(shop: Shop) -> None:
    arguments = ["run", "-m", "openai:sim", "--base-url", shop.provider.base_url, "-p", "Say {text}", "-o", "o.jsonl"]
    first = cli(*arguments, cwd=shop.folder, stdin="".join(f'{{"text": "{word}"}}\n' for word in "abcde"))
    assert first.returncode == 0
    second = cli(*arguments, cwd=shop.folder, stdin="".join(f'{{"text": "{word}"}}\n' for word in "vwxyz"))
    assert second.returncode == 0, second.stderr
    assert "kept, although not piped in this time: 5 rows of this output (--on-removed drop" in second.stderr
    assert texts(shop.output("o.jsonl")) == list("abcdevwxyz")
    third = cli(*arguments, "--on-removed", "drop", cwd=shop.folder, stdin='{"text": "v"}\n')
    assert third.returncode == 0, third.stderr
    assert texts(shop.output("o.jsonl")) == ["v"]


# --- an output that could not be written


def test_what_a_failed_write_left_behind_is_not_blamed_on_others(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(file: AppendFile, data: bytes) -> None:
        assert file._fd is not None
        write_all(file._fd, data[: len(data) // 2])
        file._broken = cannot_write(OSError(28, "No space left on device"), file.path)
        raise file._broken

    with monkeypatch.context() as broken:
        broken.setattr(AppendFile, "write", torn)
        assert run(shop, numbered("abc")).exit_code == 74
    before = len(shop.billed())
    assert run(shop).exit_code == 0
    assert called(shop, before) == [] or len(shop.billed()) == 3
    assert texts(shop.output()) == list("abc")
    assert [path.name for path in shop.folder.iterdir() if ".edited-" in path.name] == []


# --- folders


def test_a_stale_file_goes_when_its_row_fails(shop: Shop) -> None:
    run(shop, numbered("abc"), output="out")
    assert set(files_in(shop.folder / "out")) == {"1.md", "2.md", "3.md"}
    edited = [*numbered("ab"), {"id": "3", "text": "c [[fault:context]]"}]
    assert run(shop, edited, output="out").exit_code == 3
    assert set(files_in(shop.folder / "out")) == {"1.md", "2.md"}


def test_a_stale_file_goes_when_its_row_fails_under_a_new_prompt(shop: Shop) -> None:
    run(shop, numbered("abc"), output="out")
    shop.provider.control(faults={"context": 1.0})
    try:
        run(shop, output="out", prompt="Shout {text}", on_change="redo")
    finally:
        shop.provider.control(faults={})
    assert files_in(shop.folder / "out") == {}


def test_files_of_rows_without_ids_leave_with_them(shop: Shop) -> None:
    rows = [{"text": f"word {number}"} for number in range(20)]
    run(shop, rows, output="out")
    assert len(files_in(shop.folder / "out")) == 20
    run(shop, rows[1:], output="out")
    found = files_in(shop.folder / "out")
    said = {entry["prompt"]: entry["answer"] for entry in shop.billed()}
    assert sorted(found.values()) == sorted(said[f"Say {row['text']}"] + "\n" for row in rows[1:])


def test_rows_of_one_id_have_a_file_each_and_leave_no_litter(shop: Shop) -> None:
    rows = [{"id": "x", "text": word} for word in "abc"] + [{"id": "y", "text": "d"}]
    run(shop, rows, output="out")
    first = files_in(shop.folder / "out")
    said = {entry["prompt"].removeprefix("Say "): entry["answer"] + "\n" for entry in shop.billed()}
    assert sorted(first.values()) == sorted(said[word] for word in "abcd")
    assert first["x.md"] == said["a"]
    for _ in range(2):
        run(shop, output="out")
        assert files_in(shop.folder / "out") == first
    run(shop, rows[1:], output="out", on_removed="drop")
    found = files_in(shop.folder / "out")
    assert found["x.md"] == said["b"]
    assert sorted(found.values()) == sorted(said[word] for word in "bcd")


# --- the errors file


def test_the_errors_file_says_where_a_row_stands_now(shop: Shop) -> None:
    rows = [{"text": "a"}, {"text": "bad [[fault:context]]"}, {"text": "c"}]
    run(shop, rows)
    (error,) = shop.output("out.jsonl.errors.jsonl")
    assert error["_lcbatch_error"]["place"].endswith("in.jsonl:2")
    run(shop, [{"text": "new"}, {"text": "newer"}, *rows])
    (error,) = shop.output("out.jsonl.errors.jsonl")
    assert error["_lcbatch_error"]["place"].endswith("in.jsonl:4")
