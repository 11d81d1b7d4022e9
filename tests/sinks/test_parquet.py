from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcbatch.errors import UsageError
from lcbatch.ports import Entry, Order, View
from lcbatch.records import Json
from lcbatch.sinks.appendfile import AppendFile
from lcbatch.sinks.faults import RewriteNeeded
from lcbatch.sinks.parquet import ParquetSink
from lcbatch.sinks.schema import Type, type_of, wider
from lcbatch.sinks.selection import Selection
from lcbatch.sinks.table import Cutter

from .fakes import entry
from .test_lines import OBJECTS, VALUES

parquet = importlib.import_module("pyarrow.parquet")


def sink_at(path: Path, *, failed: bool = False, selection: Selection = Selection()) -> ParquetSink:  # noqa: B008 - frozen
    return ParquetSink(View("output", Order.INPUT, done=True, failed=failed), AppendFile(path), Cutter(selection))


def table(path: Path, rows: list[Entry], **options: Any) -> Any:
    sink = sink_at(path, **options)
    sink.open(None, clean=True)
    sink.rebuild(rows)
    sink.close()
    return parquet.read_table(path)


def types(found: Any) -> dict[str, str]:
    return {each.name: str(each.type) for each in found.schema}


def test_columns_have_the_narrowest_type_that_holds_all_rows(tmp_path: Path) -> None:
    one = {"i": 1, "f": 1, "b": True, "t": "x", "mixed": 1, "list": [1, "x"], "none": None, "long": 2**60, "big": 2**70}
    two: Json = {"i": None, "f": 1.5, "b": False, "t": "y", "mixed": "x", "list": [], "late": 1}
    found = table(tmp_path / "a.parquet", [entry(1, fields=one), entry(2, fields=two)])
    assert types(found) == {
        "i": "int64",
        "f": "double",
        "b": "bool",
        "t": "string",
        "mixed": "string",
        "list": "string",
        "none": "string",
        "long": "int64",
        "big": "string",
        "late": "int64",
        "output": "string",
    }
    first, second = found.to_pylist()
    assert (first["mixed"], second["mixed"], first["list"], first["big"]) == ("1", '"x"', '[1,"x"]', str(2**70))
    assert (first["f"], second["late"], first["late"], first["long"]) == (1.0, 1, None, 2**60)


def test_vectors_are_lists_of_float32_and_the_users_own_lists_stay_exact(tmp_path: Path) -> None:
    found = table(
        tmp_path / "a.parquet", [entry(1, fields={"v": [0.1]}, output=[0.25, 1]), entry(2, fields={}, output=[])]
    )
    assert types(found) == {"v": "list<element: double>", "output": "list<element: float>"}
    assert found.to_pylist() == [{"v": [0.1], "output": [0.25, 1.0]}, {"v": None, "output": []}]


def test_keys_of_the_output_and_errors_have_columns(tmp_path: Path) -> None:
    rows = [entry(1, output={"a": 1}, meta={"model": "m"}), entry(2, kind="server", message="502", meta={"model": "m"})]
    found = table(tmp_path / "a.parquet", rows, failed=True, selection=Selection(meta=True)).to_pylist()
    assert found == [
        {"n": 0, "a": 1, "meta.model": "m", "error": None},
        {"n": 1, "a": None, "meta.model": "m", "error": "server: 502"},
    ]


def test_many_groups_make_one_file_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcbatch.sinks.parquet._ROW_GROUP", 7)
    found = table(tmp_path / "a.parquet", [entry(i + 1) for i in range(20)])
    assert found["n"].to_pylist() == list(range(20))
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3


def test_beyond_the_cap_columns_go_into_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcbatch.sinks.schema.MAX_COLUMNS", 2)
    found = table(tmp_path / "a.parquet", [entry(1), entry(2, fields={"n": 1, "more": [1]})]).to_pylist()
    assert found[1] == {"n": 1, "output": "yes", "_extra": '{"more":[1]}'}


def test_no_rows_make_a_valid_file(tmp_path: Path) -> None:
    assert table(tmp_path / "a.parquet", []).num_rows == 0


def test_rows_that_come_between_the_two_looks_are_not_lost(tmp_path: Path) -> None:
    class Growing:
        looks = 0

        def __iter__(self) -> Any:
            self.looks += 1
            yield entry(1, fields={"n": 1})
            if self.looks > 1:
                yield entry(2, fields={"n": "text", "late": 1})

    sink = sink_at(tmp_path / "a.parquet")
    sink.open(None, clean=True)
    sink.rebuild(Growing())
    sink.close()
    assert parquet.read_table(tmp_path / "a.parquet")["n"].to_pylist() == ["1", '"text"']


def test_appending_asks_for_a_rebuild_at_the_end(tmp_path: Path) -> None:
    sink = sink_at(tmp_path / "a.parquet")
    sink.open(None, clean=True)
    with pytest.raises(RewriteNeeded) as needed:
        sink.append([entry(1)])
    assert not needed.value.now
    sink.close()


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError) as missing:
        sink_at(tmp_path / "a.parquet").open(None, clean=True)
    assert "lcbatch[parquet]" in missing.value.hint
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(OBJECTS, VALUES), max_size=4))
def test_any_rows_can_be_written(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Json, Json]]) -> None:
    entries = [entry(i + 1, fields=fields, output=output) for i, (fields, output) in enumerate(rows)]
    assert table(tmp_path_factory.mktemp("p") / "a.parquet", entries).num_rows == len(rows)


@given(VALUES, VALUES)
def test_widening_is_the_same_from_both_sides(one: Json, other: Json) -> None:
    first, second = type_of(one), type_of(other)
    assert wider(first, second) is wider(second, first)
    assert wider(first, first) is first
    assert wider(first, Type.JSON) is Type.JSON
