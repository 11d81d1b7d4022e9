from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.ports import Entry
from lcbatch.sinks.csvtable import CsvTable, long_record
from lcbatch.sinks.faults import RewriteNeeded
from lcbatch.sinks.selection import Selection
from lcbatch.sinks.table import Cutter

from .fakes import entry

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def table(**options: Any) -> CsvTable:
    selection = Selection(meta=options.pop("meta", False))
    return CsvTable(Cutter(selection, flatten=options.pop("flatten", True)), **options)


def rows(data: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True))


def cell(output: Any, **options: Any) -> str:
    return rows(table(**options).encode([entry(1, output=output)]))[0]["output"]


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4), st.sampled_from([",", "\t"]))
def test_cells_come_back_as_they_were(values: list[tuple[str, str]], delimiter: str) -> None:
    entries = [entry(i + 1, fields={"a": a}, output=out) for i, (a, out) in enumerate(values)]
    found = rows(table(safe=False, delimiter=delimiter).encode(entries), delimiter)
    assert [(row["a"], row["output"]) for row in found] == values
    assert {row["error"] for row in found} == {""}


def test_the_header_is_fixed_by_the_first_row_and_comes_once() -> None:
    csv_ = table()
    data = csv_.encode([entry(1, fields={"b": 1, "a": 2})]) + csv_.encode([entry(2, fields={"a": 3})])
    assert data == b"b,a,output,error\n1,2,yes,\n,3,yes,\n"


def test_values_have_their_conventions() -> None:
    values = {
        "none": None,
        "yes": True,
        "n": 1.5,
        "list": [1, "x"],
        "object": {"k": None},
        "nul": "a\0b",
        "lone": "\ud800",
    }
    (row,) = rows(table(error=False).encode([entry(1, fields=values, output="")]))
    assert row == {
        "none": "",
        "yes": "true",
        "n": "1.5",
        "list": '[1,"x"]',
        "object": '{"k":null}',
        "nul": "a\u2400b",
        "lone": "\\ud800",
        "output": "",
    }


@pytest.mark.parametrize(
    "text", ["=1+2", "+cmd|' /C calc'!A0", "-x", "@SUM(1)", "\tx", "\r=1", "\n=1", "\uff1d1", "-1-2", "+1=1"]
)
def test_a_formula_of_the_model_is_defused(text: str) -> None:
    assert cell(text) == "'" + text
    assert cell(text, safe=False) == text


@pytest.mark.parametrize("text", ["-5", "+1.5", "-1e-9", "-1,234.56", "-.5", "-12 %", "5=5", "a=b", "+491234567"])
def test_numbers_and_plain_text_are_left_alone(text: str) -> None:
    assert cell(text) == text


def test_fields_of_the_input_and_their_names_are_defused_too_and_real_numbers_are_not() -> None:
    """Whoever wrote the rows need not be who opens the table."""
    (row,) = rows(table().encode([entry(1, fields={"a": "=1", "=b": "c"}, output={"n": -5, "s": "=2"})]))
    assert (row["a"], row["'=b"], row["n"], row["s"]) == ("'=1", "c", "-5", "'=2")


def test_a_failed_row_stands_with_blank_cells_and_its_error() -> None:
    data = table().encode([entry(1, output={"a": 1, "b": 2}), entry(2, kind="timeout", message="600 s")])
    assert data == b"n,a,b,error\n0,1,2,\n1,,,timeout: 600 s\n"


def test_an_output_object_becomes_columns_unless_told_otherwise() -> None:
    nested = {"label": "x", "tags": ["a"], "n": 5}
    (flat,) = rows(table().encode([entry(1, output=nested)]))
    assert flat == {"n": "0", "label": "x", "tags": '["a"]', "output.n": "5", "error": ""}
    (whole,) = rows(table(flatten=False).encode([entry(1, output=nested)]))
    assert whole["output"] == '{"label":"x","tags":["a"],"n":5}'


def test_names_that_clash_are_kept_apart() -> None:
    fields = {"error": "mine", "_extra": "too", "a": 1}
    (row,) = rows(table(in_pipe=True).encode([entry(1, fields=fields, output={"a": 2, "error": 3})]))
    assert row == {
        "error": "mine",
        "_extra": "too",
        "a": "1",
        "output.a": "2",
        "output.error": "3",
        "__extra": "",
        "_lcbatch_error": "",
    }


def test_a_header_that_the_model_named_is_defused_too() -> None:
    assert table(error=False).encode([entry(1, output={"=1": "x"})]).startswith(b"n,'=1\n")


def written(csv_: CsvTable, *groups: list[Entry]) -> bytes:
    """As FileSink does: append, and rebuild all from the beginning where that is asked for."""
    data, seen = b"", list[Entry]()
    for group in groups:
        seen += group
        try:
            data += csv_.encode(group)
        except RewriteNeeded:
            while True:
                csv_.begin()
                try:
                    data = csv_.encode(seen)
                    break
                except RewriteNeeded:
                    continue
    return data


def test_a_later_field_goes_into_extra_which_rewrites_the_file_once() -> None:
    found = rows(written(table(), [entry(1)], [entry(2, fields={"n": 1, "late": [1]}), entry(3, fields={"other": 2})]))
    assert [row["_extra"] for row in found] == ["", '{"late":[1]}', '{"other":2}']


def test_columns_of_the_output_wait_for_the_first_answered_row() -> None:
    failed = entry(1, kind="server", message="502")
    found = rows(written(table(), [failed], [entry(2, output={"a": 1})]))
    assert list(found[0]) == ["n", "a", "error"]
    found = rows(written(table(), [failed], [entry(2, output="text")]))
    assert list(found[0]) == ["n", "output", "error"]


def test_an_object_under_a_text_column_stands_as_json_and_a_text_under_keys_in_extra() -> None:
    assert rows(written(table(), [entry(1)], [entry(2, output={"a": 1})]))[1]["output"] == '{"a":1}'
    assert rows(written(table(), [entry(1, output={"a": 1})], [entry(2)]))[1]["_extra"] == '{"output":"yes"}'


def test_a_pipe_is_never_rewritten_and_loses_nothing() -> None:
    csv_ = table(in_pipe=True)
    data = csv_.encode([entry(1, kind="server", message="502")])
    data += csv_.encode([entry(2, fields={"n": 1, "late": 2}, output={"a": 1})])
    found = rows(data)[1]
    assert (found["output"], found["_extra"]) == ('{"a":1}', '{"late":2}')


def test_meta_stands_in_columns_of_its_own() -> None:
    (row,) = rows(table(meta=True).encode([entry(1, fields={"model": "mine"}, meta={"model": "m", "cost_usd": None})]))
    assert row == {"model": "mine", "output": "yes", "meta.model": "m", "meta.cost_usd": "", "error": ""}


def test_the_columns_travel_in_the_state() -> None:
    first, second = table(), table()
    data = first.encode([entry(1, fields={"b": 1, "a": 2}, output={"k": 1})])
    second.resume(first.state())
    data += second.encode([entry(2, fields={"a": 3, "b": 4}, output={"k": 2})])
    assert data == b"b,a,k,error\n1,2,1,\n4,3,2,\n"


@given(
    st.lists(st.text(st.sampled_from('a,;\t"\r\n \u00e9\ud800'), max_size=6), min_size=1, max_size=4).filter(
        lambda row: row != [""]
    ),
    st.sampled_from([",", ";", "\t"]),
)
def test_a_long_record_has_the_bytes_that_csv_writer_gives_it(row: list[str], delimiter: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerow(row)
    expected = (out.getvalue()[:-2] + "\n").encode("utf-8", "backslashreplace")
    for step_chars in (1, 3, 100):
        assert b"".join(long_record(row, delimiter, step_chars)) == expected


def test_a_row_of_one_empty_cell_is_still_a_row_beside_a_long_one() -> None:
    long = "x" * (1024 * 1024 + 1)
    entries = [entry(number, fields={}, output=text) for number, text in enumerate(["", long, ""], start=1)]
    assert table(error=False).encode(entries) == b'output\n""\n' + long.encode() + b'\n""\n'
