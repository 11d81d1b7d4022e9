"""However the bytes are cut, the same items come out; and what was written comes back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcbatch.errors import UsageError
from lcbatch.records import Item
from lcbatch.sources.encodings import Transcoder
from lcbatch.sources.formats import Reading, parser_for
from lcbatch.sources.lines import JsonLines, LineSplitter, Parser, TextLines
from lcbatch.sources.table import Table
from lcbatch.sources.values import JsonValues

from .reading import fed, fields_of

LIMIT = 300
PARSERS: dict[str, Callable[[], Parser]] = {
    "jsonl": lambda: JsonLines("x", LIMIT),
    "json": lambda: JsonValues("x", LIMIT),
    "lines": lambda: TextLines("x", LIMIT),
    "csv": lambda: Table("x", LIMIT, None),
    "looking": lambda: parser_for("x", None, Reading(LIMIT, None, "utf-8")),
}

FIELD = st.text(max_size=8).filter(lambda name: not name.startswith("_lcbatch"))
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(FIELD, VALUE, max_size=4), max_size=6)
BITS = b'"|\\|{|}|[|]|,|:| |a|1|true|{"a":1}|""|;"|a,b\n|\n|\r\n|\0|\xc3\xa9|\xff|\xef\xbb\xbf'.split(b"|")
MESS = st.lists(st.sampled_from([*BITS, b"x" * 200]), max_size=40).map(b"".join)


def outcome(name: str, data: bytes, piece_bytes: int) -> list[Item] | str:
    try:
        return fed(PARSERS[name](), data, piece_bytes)
    except UsageError as error:
        return error.message


@pytest.mark.parametrize("name", PARSERS)
@given(data=MESS, piece_bytes=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_cutting_changes_nothing(name: str, data: bytes, piece_bytes: int) -> None:
    if name == "looking":
        data = data.replace(b"\0", b"")  # what shows a binary file is looked for in the first piece alone
    assert outcome(name, data, piece_bytes) == outcome(name, data, len(data) + 1)


@given(rows=ROWS, piece_bytes=st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_json_lines_come_back(rows: list[dict[str, Any]], piece_bytes: int) -> None:
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    assert fields_of(fed(JsonLines("x", 10**6), data, piece_bytes)) == rows


@given(rows=ROWS, piece_bytes=st.integers(1, 50), indent=st.none() | st.integers(0, 2), as_array=st.booleans())
@settings(max_examples=150, deadline=None)
def test_json_values_come_back(
    rows: list[dict[str, Any]], piece_bytes: int, indent: int | None, *, as_array: bool
) -> None:
    text = json.dumps(rows, indent=indent) if as_array else " ".join(json.dumps(row, indent=indent) for row in rows)
    assert fields_of(fed(JsonValues("x", 10**6), text.encode(), piece_bytes)) == rows


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=10)


@given(
    table=st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[CELL] * width), max_size=6)),
    piece_bytes=st.integers(1, 50),
    delimiter=st.sampled_from([",", ";", "\t", "é"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=150, deadline=None)
def test_csv_comes_back(table: list[tuple[str, ...]], piece_bytes: int, delimiter: str, quoting: Any) -> None:
    header = [f"c{number}" for number in range(len(table[0]) if table else 1)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerows([header, *table])
    expected = [
        dict(zip(header, row, strict=True)) for row in table if any(cell.strip() for cell in row) or len(row) > 1
    ]
    found = fields_of(fed(Table("x", 10**6, delimiter), text.getvalue().encode(), piece_bytes))
    # A row of one blank cell cannot be told from a blank line unless it is quoted, so it may stand or not.
    assert [row for row in found if len(row) > 1 or row["c0"].strip()] == expected


# UTF-16 that begins with a NUL cannot be told from UTF-32.
@given(
    text=st.text(max_size=40).filter(lambda text: not text.startswith("\0")),
    piece_bytes=st.integers(1, 9),
    encoding=st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]),
)
@settings(max_examples=150, deadline=None)
def test_marked_encodings_come_back(text: str, piece_bytes: int, encoding: str) -> None:
    data = text.encode(encoding)
    transcoder = Transcoder("utf-8")
    out = b"".join(transcoder.feed(data[at : at + piece_bytes]) for at in range(0, len(data), piece_bytes))
    assert (out + transcoder.finish()).decode() == text


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf-16-le", "ab".encode("utf-16-le") + b"\x00\xd8" + "cd".encode("utf-16-le")),
        ("utf-16-le", "abcd".encode("utf-16-le") + b"\x41"),
        ("utf-32-le", "ab".encode("utf-32-le") + b"\xff\xff\xff\xff" + "cd".encode("utf-32-le")),
        ("cp1252", b"ab\x81cd"),
        ("shift_jis", b"ab\x81\x20cd"),
        ("ascii", b"ab\xe9cd"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 3, 100])
def test_what_is_no_text_is_marked_and_the_rest_goes_on(encoding: str, data: bytes, piece_bytes: int) -> None:
    transcoder = Transcoder(encoding)
    out = b"".join(transcoder.feed(data[at : at + piece_bytes]) for at in range(0, len(data), piece_bytes))
    out += transcoder.finish()
    with pytest.raises(UnicodeDecodeError):
        out.decode()
    assert out.startswith(b"ab")
    assert out.decode(errors="ignore").replace(" ", "") == "abcd"


def test_many_faults_take_no_quadratic_time() -> None:
    transcoder = Transcoder("ascii")
    assert transcoder.feed(b"\xff" * 100_000) + transcoder.finish() == b"\xff" * 100_000


def test_a_long_line_is_not_kept() -> None:
    splitter = LineSplitter(10)
    for _ in range(100):
        assert splitter.feed(b"x" * 100) == []
    assert splitter.feed(b"\nnext\n") == [b"x" * 11, b"next"]
