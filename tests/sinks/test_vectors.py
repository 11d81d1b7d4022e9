"""Packed vectors as users get them: numbers in JSON lines, lists of float32 in Parquet."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.errors import UsageError
from lcbatch.job import EMBED, OutputOptions
from lcbatch.ports import Entry, Sink
from lcbatch.sinks import open_sink
from lcbatch.vectors import as_json, is_packed, packed, unpacked

from .fakes import entry

parquet = importlib.import_module("pyarrow.parquet")

_FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(_FLOAT32, min_size=1))
def test_numbers_come_back_as_they_were(numbers: list[float]) -> None:
    text = packed(numbers)
    assert is_packed(text)
    assert unpacked(text).tolist() == numbers
    assert unpacked(packed(json.loads(as_json(text)))).tolist() == numbers


def test_a_vector_of_length_1_keeps_its_direction_and_zeros_stay() -> None:
    assert unpacked(packed([3.0, 4.0]), unit=True).tolist() == pytest.approx([0.6, 0.8])
    assert unpacked(packed([1e-30, 0.0]), unit=True).tolist() == [1.0, 0.0]
    assert unpacked(packed([0.0, 0.0]), unit=True).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("text", ["", "AAA", "AAAA", "no!", None, 3])
def test_what_is_no_packed_vector(text: object) -> None:
    assert not is_packed(text)


@pytest.mark.parametrize("numbers", [[], [[1.0]], 1.0])
def test_what_is_no_vector(numbers: Any) -> None:
    with pytest.raises(ValueError, match="list of numbers"):
        packed(numbers)


def sink_of(path: Path, **options: Any) -> Sink:
    given = OutputOptions(output=str(path), output_field="embedding", **options)
    return open_sink(given, task=EMBED, stdout_fd=None, stdout_is_terminal=False)


def written(path: Path, rows: list[Entry], **options: Any) -> None:
    sink = sink_of(path, **options)
    sink.open(None, clean=True)
    sink.rebuild(rows)
    sink.close()


def rows_of(*vectors: list[float]) -> list[Entry]:
    return [entry(number, output=packed(vector)) for number, vector in enumerate(vectors, 1)]


def test_json_lines_hold_the_numbers_in_few_digits(tmp_path: Path) -> None:
    written(tmp_path / "out.jsonl", rows_of([0.1, -2.0]))
    assert (tmp_path / "out.jsonl").read_text() == '{"n":0,"embedding":[0.1,-2.0]}\n'


def test_parquet_holds_them_as_lists_of_a_fixed_length(tmp_path: Path) -> None:
    failed = entry(3, kind="no_text", message="empty")
    written(tmp_path / "out.parquet", [*rows_of([3.0, 4.0], [0.0, 2.0]), failed], failed_rows="include", normalize=True)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[2]"
    found = table["embedding"].to_pylist()
    assert found[:2] == [pytest.approx([0.6, 0.8]), [0.0, 1.0]]
    assert found[2] is None


def test_vectors_of_two_models_stand_in_lists_of_any_length(tmp_path: Path) -> None:
    written(tmp_path / "out.parquet", rows_of([1.0], [1.0, 2.0]))
    table = parquet.read_table(tmp_path / "out.parquet")
    assert str(table.schema.field("embedding").type) == "list<element: float>"
    assert table["embedding"].to_pylist() == [[1.0], [1.0, 2.0]]


def test_csv_holds_them_as_json(tmp_path: Path) -> None:
    written(tmp_path / "out.csv", rows_of([0.5, 1.5]))
    assert '"[0.5,1.5]"' in (tmp_path / "out.csv").read_text()


def test_normalizing_is_another_look_at_the_same_vectors(tmp_path: Path) -> None:
    plain, unit = (sink_of(tmp_path / "out.jsonl", normalize=unit) for unit in (False, True))
    plain.open(None, clean=True)
    plain.append(rows_of([3.0, 4.0]))
    state = plain.sync()
    plain.close()
    assert not unit.open(state, clean=True), "it has to be written anew"
    unit.rebuild(rows_of([3.0, 4.0]))
    unit.close()
    assert json.loads((tmp_path / "out.jsonl").read_text())["embedding"] == pytest.approx([0.6, 0.8])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one file"):
        open_sink(OutputOptions(output=f"{tmp_path}/"), task=EMBED, stdout_fd=None, stdout_is_terminal=False)
