"""What every sink of a file or folder must do, whatever it writes."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import LcbatchError
from lcbatch.job import RUN, OutputOptions
from lcbatch.ports import Entry, Name, Sink
from lcbatch.records import Json
from lcbatch.sinks import errors_sink, open_sink
from lcbatch.sinks.faults import RewriteNeeded

from .fakes import entry

APPENDING = ["out.jsonl", "out.ndjson", "out.csv", "out.tsv", "errors", "folder/"]
ALL = [*APPENDING, "out.parquet"]


def make(tmp_path: Path, name: str, **options: Any) -> Sink:
    if name == "errors":
        return errors_sink(tmp_path / "out.errors.jsonl")
    return open_sink(
        OutputOptions(output=f"{tmp_path}/{name}", **options), task=RUN, stdout_fd=None, stdout_is_terminal=False
    )


def rows(name: str, first: int, count: int) -> list[Entry]:
    failed = {"kind": "server", "message": "502"} if name == "errors" else {}
    return [
        entry(i, fields={"n": i}, output=f"answer {i}", id_=f"d{i % 3}/r{i}", **failed)
        for i in range(first, first + count)
    ]


def content(tmp_path: Path, name: str) -> Json:
    """What the user finds, as something that can be compared."""
    path = tmp_path / {"errors": "out.errors.jsonl"}.get(name, name)
    if name.endswith("/"):
        return {str(each.relative_to(path)): each.read_text() for each in path.rglob("*") if each.is_file()}
    if name.endswith(".parquet"):
        return importlib.import_module("pyarrow.parquet").read_table(path).to_pylist()
    if name.endswith((".csv", ".tsv")):
        return list(
            csv.reader(io.StringIO(path.read_text(), newline=""), delimiter="\t" if name.endswith(".tsv") else ",")
        )
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def appended(sink: Sink, *groups: list[Entry]) -> Any:
    for group in groups:
        sink.append(group)
    state = sink.sync()
    sink.close()
    return json.loads(json.dumps(dict(state)))


@pytest.mark.parametrize("name", APPENDING)
def test_groups_are_taken_up_again_where_they_ended(tmp_path: Path, name: str) -> None:
    sink = make(tmp_path, name)
    assert sink.open(None, clean=True)
    state = appended(sink, rows(name, 1, 2), rows(name, 3, 1))
    again = make(tmp_path, name)
    if not again.open(state, clean=True):
        again.rebuild(rows(name, 1, 3))
    appended(again, rows(name, 4, 3))
    whole = tmp_path / "whole"
    other = make(whole, name)
    other.open(None, clean=True)
    appended(other, rows(name, 1, 6))
    assert content(tmp_path, name) == content(whole, name)


@pytest.mark.parametrize("name", APPENDING)
def test_what_came_after_the_state_is_cut_off_or_written_once(tmp_path: Path, name: str) -> None:
    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    sink.append(rows(name, 1, 2))
    state = sink.sync()
    sink.append(rows(name, 3, 2))
    sink.close()
    again = make(tmp_path, name)
    if not again.open(state, clean=False):
        again.rebuild(rows(name, 1, 2))
    appended(again, rows(name, 3, 2))
    whole = tmp_path / "whole"
    other = make(whole, name)
    other.open(None, clean=True)
    appended(other, rows(name, 1, 4))
    assert content(tmp_path, name) == content(whole, name)


@pytest.mark.parametrize("name", APPENDING)
def test_a_rebuild_equals_appending(tmp_path: Path, name: str) -> None:
    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    appended(sink, rows(name, 1, 700), rows(name, 701, 5))
    rebuilt = make(tmp_path / "rebuilt", name)
    rebuilt.open(None, clean=True)
    state = rebuilt.rebuild(rows(name, 1, 705))
    rebuilt.close()
    assert content(tmp_path, name) == content(tmp_path / "rebuilt", name)
    again = make(tmp_path / "rebuilt", name)
    assert again.open(state, clean=True) or name == "folder/"
    again.close()


@pytest.mark.parametrize("name", ALL)
def test_a_rebuild_that_fails_leaves_the_old_output_and_nothing_else(tmp_path: Path, name: str) -> None:
    def breaking() -> Any:
        class Rows:
            def __iter__(self) -> Any:
                yield from rows(name, 1, 2)
                raise LcbatchError("the store is damaged")

        return Rows()

    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    sink.rebuild(rows(name, 1, 2))
    before = content(tmp_path, name)
    with pytest.raises(LcbatchError, match="damaged"):
        sink.rebuild(breaking())
    sink.close()
    assert content(tmp_path, name) == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ALL)
def test_rows_that_leave_are_gone_after_discard_and_rebuild(tmp_path: Path, name: str) -> None:
    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    sink.rebuild(rows(name, 1, 3))
    sink.discard([Name(row.id) for row in rows(name, 2, 1)])
    sink.rebuild([*rows(name, 1, 1), *rows(name, 3, 1)])
    sink.close()
    assert "answer 2" not in str(content(tmp_path, name))
    assert len(content(tmp_path, name)) == (3 if name.endswith((".csv", ".tsv")) else 2)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("change", [{"meta": True}, {"keep": "none"}, {"output_field": "answer"}])
def test_other_options_ask_for_a_rebuild(tmp_path: Path, name: str, change: dict[str, Any]) -> None:
    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    state = sink.rebuild(rows(name, 1, 2))
    sink.close()
    again = make(tmp_path, name, **change)
    assert again.open(state, clean=True) is (name == "errors")
    again.close()


@pytest.mark.parametrize("name", ALL)
def test_the_state_is_small_plain_json(tmp_path: Path, name: str) -> None:
    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    state = sink.rebuild(rows(name, 1, 100))
    sink.close()
    assert len(json.dumps(dict(state))) < 1000


@pytest.mark.parametrize("name", ALL)
def test_closing_twice_and_an_empty_group_do_nothing(tmp_path: Path, name: str) -> None:
    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    sink.append([])
    sink.close()
    sink.close()


def test_a_rebuild_of_a_table_looks_again_where_late_rows_need_columns(tmp_path: Path) -> None:
    sink = make(tmp_path, "out.csv")
    sink.open(None, clean=True)
    entries = [
        entry(1, kind="server", message="502"),
        entry(2, output={"a": 1}),
        entry(3, fields={"late": 1}, output="x"),
    ]
    sink.rebuild(entries)
    sink.close()
    assert content(tmp_path, "out.csv")[0] == ["n", "a", "_extra", "error"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_bare_iterator_is_refused_since_a_rebuild_may_look_twice(tmp_path: Path, name: str) -> None:
    sink = make(tmp_path, name)
    sink.open(None, clean=True)
    with pytest.raises(TypeError):
        sink.rebuild(iter(rows(name, 1, 1)))
    sink.close()


def test_a_group_that_needs_a_rewrite_leaves_the_file_untouched(tmp_path: Path) -> None:
    sink = make(tmp_path, "out.csv")
    sink.open(None, clean=True)
    sink.append([entry(1)])
    with pytest.raises(RewriteNeeded):
        sink.append([entry(2), entry(3, fields={"late": 1})])
    sink.close()
    assert content(tmp_path, "out.csv") == [["n", "output", "error"], ["0", "yes", ""]]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_errors_file_is_private_and_there_only_while_rows_stand_failed(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        _private_while_rows_stand_failed(tmp_path)
    finally:
        os.umask(before)


def _private_while_rows_stand_failed(tmp_path: Path) -> None:
    path = tmp_path / "out.errors.jsonl"
    sink = make(tmp_path, "errors")
    sink.open(None, clean=True)
    assert not path.exists()
    sink.append(rows("errors", 1, 1))
    assert path.stat().st_mode & 0o777 == 0o600
    sink.rebuild(rows("errors", 1, 2))
    assert path.stat().st_mode & 0o777 == 0o600
    state = sink.rebuild([])
    assert not path.exists()
    sink.append(rows("errors", 3, 1))
    sink.close()
    again = make(tmp_path, "errors")
    assert not again.open(state, clean=False)
    again.rebuild([])
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_errors_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "out.errors.jsonl").write_text("of an earlier store\n")
    sink = make(tmp_path, "errors")
    assert sink.open(None, clean=True)
    sink.close()
    (kept,) = tmp_path.iterdir()
    assert kept.read_text() == "of an earlier store\n"
