"""One contract for every format of rows: the same rows come out, in bounded batches, with their places, twice."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.errors import ConfigError, InputMissing, UsageError
from lcbatch.sources.table import long_cells

from .reading import batches_of, fields_of, items_of, read_items, source_of

ROWS = [{"id": f"r{number}", "text": f'Line "{number}", größer; 東京\nand more'} for number in range(600)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def separated(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def zstandard(data: bytes) -> bytes:
    packed: bytes = importlib.import_module("zstandard").ZstdCompressor().compress(data)
    return packed


def parquet(rows: list[dict[str, Any]]) -> bytes:
    pyarrow = importlib.import_module("pyarrow")
    sink = io.BytesIO()
    importlib.import_module("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), sink, row_group_size=250)
    return sink.getvalue()


FORMATS: dict[str, tuple[Callable[[list[dict[str, Any]]], bytes], str]] = {
    "a.jsonl": (jsonl, ":12"),
    "a.ndjson": (jsonl, ":12"),
    "a.json": (lambda rows: json.dumps(rows, indent=2).encode(), "[11]"),
    "one-line.json": (lambda rows: json.dumps(rows).encode(), "[11]"),
    "following.json": (lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows).encode(), ":45"),
    "a.csv": (lambda rows: separated(rows, ","), ":24"),
    "semicolons.csv": (lambda rows: separated(rows, ";"), ":24"),
    "a.tsv": (lambda rows: separated(rows, "\t"), ":24"),
    "a.jsonl.gz": (lambda rows: gzip.compress(jsonl(rows)), ":12"),
    "a.csv.gz": (lambda rows: gzip.compress(separated(rows, ",")), ":24"),
    "a.jsonl.zst": (lambda rows: zstandard(jsonl(rows)), ":12"),
    "a.parquet": (parquet, ":row 12"),
    "no-suffix": (jsonl, ":12"),
    "array.data": (lambda rows: json.dumps(rows).encode(), "[11]"),
    "pretty.data": (lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows).encode(), ":45"),
    "bom.jsonl": (lambda rows: b"\xef\xbb\xbf" + jsonl(rows), ":12"),
    "bom.csv": (lambda rows: b"\xef\xbb\xbf" + separated(rows, ","), ":24"),
    "utf16.jsonl": (lambda rows: jsonl(rows).decode().encode("utf-16"), ":12"),
    "utf16be.csv": (lambda rows: b"\xfe\xff" + separated(rows, ",").decode().encode("utf-16-be"), ":24"),
    "utf32.json": (lambda rows: json.dumps(rows).encode("utf-32"), "[11]"),
    "crlf.jsonl": (lambda rows: jsonl(rows).replace(b"\n", b"\r\n"), ":12"),
    "blank.jsonl": (lambda rows: b"\n \r\n" + jsonl(rows) + b"\n\n", ":14"),
    "unended.jsonl": (lambda rows: jsonl(rows).removesuffix(b"\n"), ":12"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_rows_come_out_of_every_format(name: str, tmp_path: Path) -> None:
    make, twelfth = FORMATS[name]
    path = tmp_path / name
    path.write_bytes(make(ROWS))
    source = source_of(path)
    batches = batches_of(source)
    items = [item for batch in batches for item in batch]

    assert fields_of(items) == ROWS
    assert [item.id for item in items] == [row["id"] for row in ROWS]
    assert all(0 < len(batch) <= 256 for batch in batches)
    assert items[11].place == f"{path}{twelfth}"
    assert source.rereadable
    assert items_of(source) == items


def test_lines_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\n\n  zwei größer \nthree\x00".encode())
    items = read_items(path)
    assert fields_of(items) == [{"text": "one"}, {"text": "  zwei größer "}, {"text": "three\x00"}]
    assert [item.place for item in items] == [f"{path}:1", f"{path}:3", f"{path}:4"]


def test_the_format_named_wins_over_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b'{"a": 1}\n')
    assert fields_of(read_items(path, input_format="jsonl")) == [{"a": 1}]
    assert fields_of(read_items(path, input_format="lines")) == [{"text": '{"a": 1}'}]


def test_another_encoding_is_read_as_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("name;city\nJosé;Köln\n".encode("cp1252"))
    assert fields_of(read_items(path, encoding="cp1252")) == [{"name": "José", "city": "Köln"}]


def test_lines_in_brackets_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"[INFO] started\n[WARN] slow\n")
    assert fields_of(read_items(path)) == [{"text": "[INFO] started"}, {"text": "[WARN] slow"}]


def test_broken_first_line_of_json_lines_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b'{"a": nonsense}\n{"a": 2}\n')
    first, second = read_items(path)
    assert first.failure is not None
    assert second.fields == {"a": 2}


def test_a_binary_file_of_no_known_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sheet.xlsx"
    path.write_bytes(b"PK\x03\x04\x14\x00\x06\x00")
    with pytest.raises(UsageError, match="does not look like text"):
        read_items(path)


def test_several_inputs_come_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b'{"from": "b"}\n')
    (tmp_path / "a.csv").write_bytes(b"from\na\n")
    (tmp_path / "notes.md").write_text("# Notes")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "deep.md").write_text("deep")
    names = ["b.jsonl", "notes.md", "a.csv", "folder", "-"]
    stdin = io.BytesIO(b"from stdin\n")
    inputs = [name if name == "-" else tmp_path / name for name in names]
    source = source_of(*inputs, stdin=stdin)
    items = items_of(source)
    assert [item.place for item in items] == [
        f"{tmp_path}/b.jsonl:1",
        f"{tmp_path}/notes.md",
        f"{tmp_path}/a.csv:2",
        f"{tmp_path}/folder/deep.md",
        "stdin:1",
    ]
    assert not source.rereadable


def test_an_openai_batch_file_is_read_as_it_is(tmp_path: Path) -> None:
    line = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    path = tmp_path / "batch.jsonl"
    path.write_text(json.dumps(line) + "\n")
    (item,) = read_items(path)
    assert item.id == "r1"
    assert item.fields == line


@pytest.mark.parametrize(
    ("row", "label"), [({"id": 7}, "7"), ({"id": 0}, "0"), ({"id": None}, None), ({"id": ""}, None), ({}, None)]
)
def test_labels_are_text(row: dict[str, Any], label: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    assert [item.id for item in read_items(path)] == [label]


def test_integers_of_any_length_stay_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 123456789012345678901234567890}\n')
    assert read_items(path)[0].fields == {"id": 123456789012345678901234567890}


def test_parquet_values_become_json(tmp_path: Path) -> None:
    datetime = importlib.import_module("datetime")
    decimal = importlib.import_module("decimal")
    row = {
        "when": datetime.datetime(2024, 5, 6, 7, 8, 9),
        "price": decimal.Decimal("1.10"),
        "raw": b"\xff\x00",
        "long": datetime.timedelta(seconds=90),
        "nan": float("nan"),
        "inner": {"list": [1, 2.5, None, True]},
    }
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet([row]))
    assert fields_of(read_items(path)) == [
        {
            "when": "2024-05-06T07:08:09",
            "price": "1.10",
            "raw": "/wA=",
            "long": 90.0,
            "nan": None,
            "inner": {"list": [1, 2.5, None, True]},
        }
    ]


def test_a_damaged_parquet_file_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(ROWS)[:-20])
    with pytest.raises(InputMissing, match="cannot be read as Parquet"):
        read_items(path)


def test_a_missing_extra_is_named_with_its_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet(ROWS[:1]))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard(jsonl(ROWS[:1])))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for name, extra in (("a.parquet", "parquet"), ("a.jsonl.zst", "zstd")):
        with pytest.raises(ConfigError) as caught:
            read_items(tmp_path / name)
        assert caught.value.hint == f"pip install 'lcbatch[{extra}]'"


def test_gzip_members_that_follow_each_other_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n') + b"\0" * 100)
    assert fields_of(read_items(path)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("cut", [20, 400])
def test_a_cut_gzip_file_ends_the_run_after_what_could_be_read(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(ROWS))[:-cut])
    with pytest.raises(InputMissing, match="cannot be unpacked to its end"):
        read_items(path)


def test_a_file_packed_in_name_only_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b'{"a": 1}\n')
    assert fields_of(read_items(path)) == [{"a": 1}]


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = "pypdf, trafilatura, pyarrow, langchain_core, aiofiles, zstandard, docx2txt, pypdfium2"
    code = (
        "import sys, lcbatch.sources, lcbatch.sources.readers, lcbatch.sources.worker;"
        f"print([name for name in '{heavy}'.split(', ') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(record=st.text(alphabet='",ab\r\n;', max_size=12).filter(lambda text: text.strip("\r\n") == text != ""))
def test_long_records_have_the_cells_that_the_csv_module_gives_them(record: str) -> None:
    cells = long_cells(record, ",")
    if cells is not None:
        assert cells == next(csv.reader([record], delimiter=","))
