"""Objects in what a model wrote: what is mended, and what is not."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch import jsontext
from lcbatch.chains.jsonanswer import objects_in
from lcbatch.records import Json

OBJECT = {"category": "bug", "n": 3, "note": 'a "quote", a {brace} and // no comment,}'}
TEXT = json.dumps(OBJECT)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"\ufeff  {TEXT}\n",
        f"```json\n{TEXT}\n```",
        f"Sure! Here it is, {{as you}} asked:\n{TEXT}\nIs there {{anything}} else?",
        TEXT[:-1] + ",\n}",
        TEXT.replace('"n": 3,', '"n": 3, // of five\n'),
        str(OBJECT),
    ],
    ids=["plain", "padded", "fenced", "amid prose", "last comma", "comment", "Python"],
)
def test_what_leaves_no_doubt_is_mended(text: str) -> None:
    assert list(objects_in(text)) == [OBJECT]


def test_line_breaks_inside_strings_are_kept() -> None:
    assert list(objects_in('{"a": "one\ntwo\tthree",}')) == [{"a": "one\ntwo\tthree"}]


def test_pythons_names_and_jsons_may_be_mixed() -> None:
    assert list(objects_in("{'a': true, 'b': None, 'c': -1.5, 'd': ('x', null)}")) == [
        {"a": True, "b": None, "c": -1.5, "d": ["x", None]}
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "[1, 2]",
        '{"a": NaN}',
        '{"a": 1e999}',
        "{'a': 1 + 1}",
        "{a: 1}",
        "{'a': f'{1}'}",
        "{**{'a': 1}}",
        '{"a": ' + "[" * 250 + "]" * 250 + "}",
        '{"a": ' + "[" * 250 + "]" * 250 + ",}",
    ],
)
def test_what_is_no_object_or_would_have_to_be_guessed_is_none(text: str) -> None:
    assert list(objects_in(text)) == []


@given(st.integers(1, len(TEXT) - 1))
def test_an_answer_that_was_cut_off_is_none(length: int) -> None:
    assert list(objects_in(TEXT[:length])) == []


def test_a_part_of_an_answer_that_was_cut_off_is_none_either() -> None:
    assert list(objects_in('{"items": [{"category": "bug"}, {"category": "ot')) == []


@pytest.mark.parametrize(
    "text", ["{" * 200_000, '{"a":' * 50_000, '{"' * 100_000, "{}" * 200_000, "{'a': " + "[" * 150_000 + "}"]
)
def test_hostile_answers_are_read_in_no_time(text: str) -> None:
    began_s = time.monotonic()

    list(objects_in(text))

    assert time.monotonic() - began_s < 5


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_every_object_is_read_as_json_reads_it(value: dict[str, Json]) -> None:
    text = json.dumps(value)

    assert list(objects_in(text)) == [jsontext.loads(text)]
    assert next(objects_in(f"Here:\n```\n{text}\n```"), None) == jsontext.loads(text)


@given(st.text() | st.text(st.sampled_from("{}[]\"',:\\ab1 \n/#")))
def test_garbage_never_raises_and_what_comes_is_json(text: str) -> None:
    for value in objects_in(text):
        assert jsontext.loads(jsontext.dumps(value)) == value
