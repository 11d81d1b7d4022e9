"""JSON text: whatever comes in goes out the same, and what cannot is refused where it comes in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch import jsontext

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too
NUMBERS = st.integers() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types: 1 is neither True nor 1.0."""
    return repr(left) == repr(right)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    text = jsontext.dumps(value)

    assert same(jsontext.loads(text), value)
    assert same(jsontext.loads(text.encode()), value)  # any text of ours is UTF-8
    assert same(json.loads(text), value)  # and JSON for everybody


@given(VALUES)
def test_it_reads_what_the_standard_library_writes(value: Any) -> None:
    assert same(jsontext.loads(json.dumps(value)), value)
    assert same(jsontext.loads(json.dumps(value, ensure_ascii=False)), value)


@given(st.dictionaries(ANY_TEXT, VALUES, max_size=5), st.randoms())
def test_the_order_of_keys_is_no_part_of_an_identity(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)

    assert jsontext.canonical(dict(items)) == jsontext.canonical(value)
    assert same(jsontext.loads(jsontext.canonical(value)), dict(sorted(value.items()))) or value != {}


@given(VALUES, VALUES)
def test_different_values_have_different_canons(left: Any, right: Any) -> None:
    assert (jsontext.canonical(left) == jsontext.canonical(right)) == same_json(left, right)


def same_json(left: Any, right: Any) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(st.binary(max_size=40) | ANY_TEXT)
def test_garbage_is_a_value_error_or_a_value(raw: bytes | str) -> None:
    try:
        value = jsontext.loads(raw)
    except ValueError:
        return
    jsontext.dumps(value)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64, -(2**64), 10**100])
def test_long_integers_stay_exact(number: int) -> None:
    assert jsontext.loads(jsontext.dumps({"id": number})) == {"id": number}
    assert jsontext.loads(jsontext.canonical(number)) == number


@pytest.mark.parametrize("beside", ["plain", "\ud800", 2**70])
def test_what_is_no_number_is_null(beside: Any) -> None:
    value = [math.nan, {"a": -math.inf}, beside]

    assert json.loads(jsontext.dumps(value), parse_constant=pytest.fail) == [None, {"a": None}, beside]
    assert json.loads(jsontext.canonical(value), parse_constant=pytest.fail) == [None, {"a": None}, beside]


def test_nan_is_read_as_python_writes_it() -> None:
    assert math.isnan(jsontext.loads('{"a": NaN}')["a"])


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize("depth", [201, 900, 1100, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_what_nobody_could_write_again_is_refused(depth: int, opening: str, closing: str) -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        jsontext.loads(nested(depth, opening, closing))


def test_what_is_read_can_be_written_and_hashed() -> None:
    value = jsontext.loads(nested(200))

    assert jsontext.dumps([value, "\ud800"])
    assert jsontext.canonical(value) == jsontext.dumps(value).encode()


def test_many_values_are_not_taken_for_deep_ones() -> None:
    assert len(jsontext.loads("[" + ",".join(["[]"] * 1000) + "]")) == 1000


@pytest.mark.parametrize("value", [object(), {1, 2}, [b"bytes"], {"a": {"b": object()}}])
def test_what_is_no_json_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        jsontext.dumps(value)
    with pytest.raises(TypeError):
        jsontext.canonical(value)


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_a_digest_knows_where_its_parts_end(left: list[bytes], right: list[bytes]) -> None:
    assert (jsontext.digest(*left) == jsontext.digest(*right)) == (left == right)
    assert len(jsontext.digest(*left)) == jsontext.DIGEST_BYTES


@pytest.mark.parametrize("text", ['plain \\ "words"\n', "é\u2019ж", "\U0001f600 \x00", "a\ud800b"])
def test_long_texts_are_written_and_hashed_as_short_ones_are(text: str) -> None:
    value = {"z": [{"content": text * 400_000}, 1, None], "a": {"é": text * 300_000}, "n": 2.5}
    assert jsontext.encoded(value) == jsontext.dumps(value).encode()
    assert jsontext.digest_of(value, b"x") == jsontext.digest(jsontext.canonical(value), b"x")
    assert jsontext.loads(jsontext.encoded(value)) == value


def test_a_long_integer_is_found_wherever_it_stands_in_a_long_text() -> None:
    for before in range(1_048_550, 1_048_600, 7):
        assert jsontext.loads(f'["{"x" * before}",{2**70}]'.encode())[1] == 2**70
