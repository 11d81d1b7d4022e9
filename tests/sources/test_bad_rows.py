"""Rows that cannot be read fail by themselves, say where and why, and can be mended in the errors file."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from lcbatch.errors import Kind, UsageError
from lcbatch.records import ERROR_FIELD, RAW_FIELD, Item

from .reading import fields_of, items_of, read_items, source_of


def only_failure(items: list[Item]) -> tuple[str, Item]:
    (failed,) = [item for item in items if item.failure is not None]
    assert failed.failure is not None
    assert failed.failure.kind is Kind.BAD_ROW
    assert failed.failure.message.startswith(failed.place)
    return failed.failure.message, failed


BAD_LINES = {
    "broken": (b'{"a": 1', "broken JSON"),
    "undecodable": (b'{"a": "caf\xe9"}', "undecodable text (byte 0xe9 at position 11)"),
    "NUL": (b'{"a": \x00 1}', "NUL bytes"),
    "number": (b"17", "this is a number"),
    "text": (b'"text"', "this is a string"),
    "array": (b'["a"]', "this is an array"),
    "null": (b"null", "this is null"),
    "truth": (b"true", "this is true or false"),
    "large": (b'{"a": "' + b"x" * 2000 + b'"}', "larger than 2000 bytes; raise --max-row-bytes"),
    "deep": (b'{"a":' * 250 + b"1" + b"}" * 250, "nested"),
    "NaN": (b'{"a": NaN}', "NaN is no JSON; write null"),
    "infinity": (b'{"a": [-Infinity]}', "-Infinity is no JSON"),
    "too large": (b'{"a": 1, "b": {"c": 1e999}}', "1e999 is too large a number"),
    "too large and long": (
        b'{"id": 12345678901234567890123, "c": -' + b"1" * 400 + b".5}",
        "... is too large a number",
    ),
    "endless": (b"[" * 1900, "broken JSON"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_fails_and_the_others_go_on(kind: str, tmp_path: Path) -> None:
    line, message = BAD_LINES[kind]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    items = read_items(path, max_row_bytes=2000)
    said, failed = only_failure(items)
    assert message in said
    assert failed.place == f"{path}:2"
    assert failed.fields["source"] == failed.place
    assert fields_of([items[0], items[2]]) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("kind", [kind for kind in BAD_LINES if kind not in {"broken", "endless"}])
def test_a_bad_element_of_an_array_fails_and_the_others_go_on(kind: str, tmp_path: Path) -> None:
    element, message = BAD_LINES[kind]
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a": 1},\n' + element + b',\n{"a": 3}]')
    items = read_items(path, max_row_bytes=2000)
    said, failed = only_failure(items)
    assert message in said
    assert failed.place == f"{path}[1]"
    assert fields_of([items[0], items[2]]) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_number_of_thousands_of_digits_fails_in_our_words(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b'{"a": 1}\n{"a": ' + b"7" * 5000 + b"}\n")
    said, failed = only_failure(read_items(path))
    assert said == f"{path}:2: a number of 5000 digits is too large; write null, or the number as a text"
    assert failed.place == f"{path}:2"


def test_an_array_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a": 1}, {"a": 2}')
    items = read_items(path)
    assert "never closes" in only_failure(items)[0]
    assert len(items) == 3


BAD_RECORDS = {
    "short": (b"1\n", "1 cells, but the header has 2; mend it, or check --delimiter"),
    "long": (b"1,2,3\n", "3 cells, but the header has 2"),
    "undecodable": (b"1,caf\xe9\n", "undecodable text (byte 0xe9"),
    "CR": (b"1,lone\rCR\n", "broken CSV (a CR stands in a cell without quotes); mend or delete it"),
    "large": (b'1,"' + b"x" * 2000 + b'"\n', "larger than 2000 bytes"),
    "quote": (b'1,"open\n', "a quote opened here never closes"),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_a_bad_record_fails_and_the_others_go_on(kind: str, tmp_path: Path) -> None:
    record, message = BAD_RECORDS[kind]
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,"x\ny"\n' + record + b"3,z\n4,w\n")
    items = read_items(path, max_row_bytes=2000)
    said, failed = only_failure(items)
    assert message in said
    assert failed.place == f"{path}:4"
    good = fields_of([item for item in items if item.failure is None])
    assert good == [{"a": "1", "b": "x\ny"}, {"a": "3", "b": "z"}, {"a": "4", "b": "w"}]


def test_an_open_quote_swallows_no_more_than_a_row_may_measure(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,"open\n' + (b"2," + b"x" * 97 + b"\n") * 28_000)
    items = read_items(path, max_row_bytes=2 * 1024 * 1024)
    said, failed = only_failure(items)
    assert "are lost to it" in said
    assert failed.place == f"{path}:2"
    assert items[-1].fields == {"a": "2", "b": "x" * 97}
    assert 7_000 < len(items) < 8_000


def test_a_quote_that_never_closes_takes_the_memory_of_its_text_and_not_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,n\n"' + b"a\n" * 2_000_000 + b"\nb,2\n")
    source = source_of(path)
    tracemalloc.start()
    said, failed = only_failure(items_of(source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "a quote opened here never closes; lines 2 to 2000003 are lost to it" in said
    assert failed.place == f"{path}:2"
    assert peak < 5 * path.stat().st_size


@pytest.mark.parametrize(
    ("header", "named"),
    [(b"a,b,a\n", "'a' more than once"), (b"a,,c\n", "no name for column 2"), (b'a,"b\n', "never closes")],
)
def test_a_header_that_names_no_columns_is_a_usage_error(header: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(header + b"1,2,3\n")
    with pytest.raises(UsageError, match=named):
        read_items(path)


@pytest.mark.parametrize("max_row_bytes", [1000, 20])
@pytest.mark.parametrize("cell", [b"caf\xe9", b'"a\rb"'])
def test_a_table_whose_lines_end_with_cr_alone_is_refused_with_a_remedy(
    max_row_bytes: int, cell: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"id,text\r1,hello\r2," + cell + b"\r")
    with pytest.raises(UsageError, match="its lines end with CR alone") as caught:
        read_items(path, max_row_bytes=max_row_bytes)
    assert caught.value.hint == "make lines of them: tr '\\r' '\\n' < old.csv > new.csv"


def test_a_quote_inside_a_cell_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'name,size\ndisk,5" wide\nother,"3"" wide"\n')
    assert fields_of(read_items(path)) == [{"name": "disk", "size": '5" wide'}, {"name": "other", "size": '3" wide'}]


def test_a_cell_larger_than_the_csv_modules_own_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n1," + b"x" * 300_000 + b"\n")
    assert len(fields_of(read_items(path))[0]["b"]) == 300_000


@pytest.mark.parametrize("delimiter", ["|", "tab", "\\t", "·"])
def test_the_delimiter_is_as_told(delimiter: str, tmp_path: Path) -> None:
    mark = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    path = tmp_path / "rows.csv"
    path.write_text(f'a{mark}b\n1{mark}"x{mark}y"\n')
    assert fields_of(read_items(path, delimiter=delimiter)) == [{"a": "1", "b": f"x{mark}y"}]


@pytest.mark.parametrize(
    "options", [{"delimiter": "ab"}, {"delimiter": '"'}, {"encoding": "klingon"}, {"encoding": "hex"}]
)
def test_options_that_cannot_be_are_usage_errors(options: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(UsageError, match="cannot be"):
        read_items(tmp_path / "a.csv", **options)


def test_bytes_that_are_no_text_in_another_encoding_fail_their_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good, bad = json.dumps({"a": "é"}, ensure_ascii=False).encode("cp1252"), b'{"a": "\x81"}'
    path.write_bytes(b"\n".join([good, bad, good]))
    items = read_items(path, encoding="cp1252")
    assert "undecodable" in only_failure(items)[0]
    assert [item.fields.get("a") for item in items] == ["é", None, "é"]


def test_an_undecodable_line_never_passes_unmended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "caf\xe9"}\n')
    (failed,) = read_items(path)
    assert failed.fields[RAW_FIELD] == '{"a": "caf\\xe9"}'
    errors = tmp_path / "errors.jsonl"
    errors.write_text(json.dumps({**failed.fields, ERROR_FIELD: {"kind": "bad_row"}}) + "\n")
    (again,) = read_items(errors)
    assert again.failure is not None
    assert "still not readable" in again.failure.message
    assert again.fields == failed.fields


def test_a_mended_line_of_the_errors_file_is_a_row_again(tmp_path: Path) -> None:
    errors = tmp_path / "errors.jsonl"
    kept = {RAW_FIELD: '{"id": "r2", "a": 2}', "source": "rows.jsonl:2", ERROR_FIELD: {"kind": "bad_row"}}
    other = {"id": "r1", "a": 1, ERROR_FIELD: {"kind": "timeout"}}
    errors.write_text(json.dumps(kept) + "\n" + json.dumps(other) + "\n")
    items = read_items(errors)
    assert fields_of(items) == [{"id": "r2", "a": 2}, {"id": "r1", "a": 1}]
    assert [item.id for item in items] == ["r2", "r1"]


def test_what_is_kept_of_a_bad_row_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x" * 1_000_000 + b"\n")
    (failed,) = read_items(path)
    assert len(failed.fields[RAW_FIELD]) == 64 * 1024
