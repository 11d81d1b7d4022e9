"""The judge itself: it must find every fault that it is there for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from tests.torture.judge import Case, Row, judge

_ROWS: list[Row] = [{"id": f"r{number}", "text": f"row {number}"} for number in range(4)]
_GOOD: list[Row] = [{**row, "output": f"said {row['text']}"} for row in _ROWS]
_BOOK = [{"prompt": f"Say {row['text']}", "answer": f"said {row['text']}"} for row in _ROWS]


def _jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _csv(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "text", "output"])
        table.writeheader()
        table.writerows(rows)
    return path


def _parquet(path: Path, rows: list[Row]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def _folder(path: Path, rows: list[Row]) -> Path:
    path.mkdir()
    for row in rows:
        (path / f"{row['id']}.md").write_text(f"{row['output']}\n")
    return path


_SINKS: list[tuple[str, Callable[[Path, list[Row]], Path]]] = [
    ("o.jsonl", _jsonl), ("o.csv", _csv), ("o.parquet", _parquet), ("o", _folder),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write"), _SINKS)
def test_what_is_right_passes_at_every_sink(
    tmp_path: Path, name: str, write: Callable[[Path, list[Row]], Path]
) -> None:
    judge(Case(name="right", rows=_ROWS), write(tmp_path / name, _GOOD), _BOOK, exit_code=0)


@pytest.mark.parametrize(("name", "write"), _SINKS)
def test_a_lost_row_and_a_wrong_answer_are_found_at_every_sink(
    tmp_path: Path, name: str, write: Callable[[Path, list[Row]], Path]
) -> None:
    (tmp_path / "lost").mkdir()
    with pytest.raises(AssertionError, match="1 of 4 rows lost"):
        judge(Case(name="x", rows=_ROWS, may_repay=1), write(tmp_path / "lost" / name, _GOOD[1:]), _BOOK, exit_code=0)
    swapped = [{**_GOOD[0], "output": _GOOD[1]["output"]}, *_GOOD[1:]]
    with pytest.raises(AssertionError, match="answered was"):
        judge(Case(name="x", rows=_ROWS), write(tmp_path / name, swapped), _BOOK, exit_code=0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*_GOOD, _GOOD[0]], "1 rows twice"),
        ([*_GOOD, {**_GOOD[0], "id": "other"}], "not of the input"),
        ([{**_GOOD[0], "text": "else"}, *_GOOD[1:]], "than the input"),
    ],
)
def test_other_rows_than_those_of_the_input_are_found(tmp_path: Path, rows: list[Row], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        judge(Case(name="x", rows=_ROWS), _jsonl(tmp_path / "o.jsonl", rows), _BOOK, exit_code=0)


def test_a_half_line_is_found(tmp_path: Path) -> None:
    output = _jsonl(tmp_path / "o.jsonl", _GOOD)
    output.write_bytes(output.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="ends within a line"):
        judge(Case(name="x", rows=_ROWS), output, _BOOK, exit_code=0)


def test_calls_paid_twice_the_order_the_exit_code_and_leftovers_are_looked_at(tmp_path: Path) -> None:
    output = _jsonl(tmp_path / "o.jsonl", _GOOD[::-1])
    judge(Case(name="x", rows=_ROWS, may_repay=1), output, [*_BOOK, _BOOK[0]], exit_code=0)
    with pytest.raises(AssertionError, match="2 more, not 1"):
        judge(Case(name="x", rows=_ROWS, may_repay=1), output, [*_BOOK, *_BOOK[:2]], exit_code=0)
    with pytest.raises(AssertionError, match="not in input order"):
        judge(Case(name="x", rows=_ROWS, ordered=True), output, _BOOK, exit_code=0)
    with pytest.raises(AssertionError, match="exit 3 with 0 rows failed"):
        judge(Case(name="x", rows=_ROWS), output, _BOOK, exit_code=3)
    (tmp_path / ".lcbatch-0123.tmp").touch()
    with pytest.raises(AssertionError, match="left behind"):
        judge(Case(name="x", rows=_ROWS), output, _BOOK, exit_code=0)


def test_failed_rows_count_and_belong_to_no_more_than_one_side(tmp_path: Path) -> None:
    output = _jsonl(tmp_path / "o.jsonl", _GOOD[1:])
    errors = tmp_path / "o.jsonl.errors.jsonl"
    _jsonl(errors, [{**_ROWS[0], "_lcbatch_error": {"kind": "refusal"}}])
    judge(Case(name="x", rows=_ROWS), output, _BOOK[1:], exit_code=3)
    with pytest.raises(AssertionError, match="exit 0 with 1 rows failed"):
        judge(Case(name="x", rows=_ROWS), output, _BOOK[1:], exit_code=0)
    _jsonl(errors, _ROWS[:2])
    with pytest.raises(AssertionError, match="1 rows twice"):
        judge(Case(name="x", rows=_ROWS), output, _BOOK[1:], exit_code=3)
