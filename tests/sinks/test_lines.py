from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from lcbatch import jsontext
from lcbatch.ports import Entry
from lcbatch.records import Json
from lcbatch.sinks.lines import Lines, error_line, row_line
from lcbatch.sinks.selection import Selection

from .fakes import entry

TEXT = st.text(st.characters(codec=None, categories=None, exclude_categories=()), max_size=12)
NAMES = st.one_of(TEXT, st.sampled_from(["output", "meta", "error", "_lcbatch_error", "id", 'o"ut', "a\\b", "ausgäbe"]))
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)


def encode(selection: Selection, *entries: Entry) -> bytes:
    return Lines(row_line(selection), {}).encode(entries)


def only(data: bytes) -> Any:
    """The one line, with each key once."""
    (line,) = data.decode().splitlines()
    return json.loads(line, object_pairs_hook=unique)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


@given(OBJECTS, VALUES, NAMES.filter(bool), st.booleans())
def test_joining_texts_equals_writing_the_object(fields: Json, output: Json, name: str, meta: bool) -> None:  # noqa: FBT001
    row = entry(1, fields=fields, output=output, meta={"model": "m"})
    assume(not (meta and name == "meta"))
    expected = {**fields, name: output, **({"meta": {"model": "m"}} if meta else {})}
    assert only(encode(Selection(output_field=name, meta=meta), row)) == expected


@given(OBJECTS, TEXT)
def test_a_failed_row_shows_null_and_its_error_beside_all_fields(fields: Json, message: str) -> None:
    row = entry(1, fields=fields, kind="timeout", message=message)
    shown = only(encode(Selection(), row))
    name = "_lcbatch_error" if "error" in fields else "error"
    assert shown == {**fields, "output": None, name: {"kind": "timeout", "message": message}}


@given(OBJECTS)
def test_an_errors_file_line_gives_the_row_back(fields: Json) -> None:
    row = entry(1, fields=fields, kind="server", message="502", meta={"attempts": 5}, place="in.csv:7")
    shown = only(Lines(error_line, {}).encode([row]))
    error = shown.pop("_lcbatch_error")
    fields.pop("_lcbatch_error", None)
    assert shown == fields
    assert error == {"kind": "server", "message": "502", "attempts": 5, "place": "in.csv:7"}


def test_a_line_that_could_not_be_decoded_stands_as_it_is() -> None:
    row = entry(1, fields={"_lcbatch_raw": '{"a": '}, kind="bad_row", message="broken JSON")
    assert only(Lines(error_line, {}).encode([row]))["_lcbatch_raw"] == '{"a": '


def test_documents_give_id_path_and_output_and_never_their_text() -> None:
    fields = {"path": "/docs/a.md", "name": "a.md", "text": "long"}
    row = entry(1, fields=fields, output="short", id_="a.md", is_document=True)
    assert only(encode(Selection(), row)) == {"id": "a.md", "path": "/docs/a.md", "output": "short"}


def test_keep_chooses_the_fields_in_its_own_order() -> None:
    row = entry(1, fields={"a": 1, "b": 2, "c": 3})
    assert encode(Selection(keep=("c", "a", "gone")), row) == b'{"c":3,"a":1,"output":"yes"}\n'
    assert encode(Selection(keep=()), row) == b'{"output":"yes"}\n'
    assert encode(Selection(), entry(1, fields={})) == b'{"output":"yes"}\n'


def test_line_separators_inside_strings_are_escaped() -> None:
    data = encode(Selection(), entry(1, output="a\u2028b\u2029c\x85d"))
    assert b"\\u2028b\\u2029c\\u0085d" in data
    assert only(data)["output"] == "a\u2028b\u2029c\x85d"


def test_a_raw_lone_surrogate_in_stored_text_is_escaped() -> None:
    row = Entry(1, 0, "0", "p", fields='{"a":"\ud800"}', is_document=False, output='"x"')
    assert encode(Selection(), row) == b'{"a":"\\ud800","output":"x"}\n'


def test_on_a_terminal_control_characters_stay_escaped_and_the_value_the_same() -> None:
    row = entry(1, output="\x1b[31mred\x9b2J\u202egnp")
    data = Lines(row_line(Selection()), {}, for_terminal=True).encode([row])
    assert "\x9b" not in data.decode()
    assert "\u202e" not in data.decode()
    assert only(data)["output"] == "\x1b[31mred\x9b2J\u202egnp"


def test_numbers_beyond_64_bits_come_through() -> None:
    row = entry(1, fields={"id": 2**80, "output": 1}, output=2**70)
    assert only(encode(Selection(), row)) == {"id": 2**80, "output": 2**70}
    assert jsontext.loads(row.fields)["id"] == 2**80
