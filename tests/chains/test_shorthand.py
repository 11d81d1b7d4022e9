"""The short form of --schema: what it comes to as a JSON schema, and what it says of mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lcbatch.chains.shorthand import parse_shorthand
from lcbatch.errors import UsageError


def test_the_forms_of_a_field() -> None:
    schema = parse_shorthand(
        'name, age? int (in years), tags list[str], kind billing|bug|"needs reply", stars 1|2|3, plan? free|paid, '
        'who {first, born date}, unit "EUR"'
    )

    assert (
        schema["required"]
        == list(schema["properties"])
        == ["name", "age", "tags", "kind", "stars", "plan", "who", "unit"]
    )
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"], "description": "in years"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"type": "string", "enum": ["billing", "bug", "needs reply"]},
        "stars": {"type": "integer", "enum": [1, 2, 3]},
        "plan": {"type": ["string", "null"], "enum": ["free", "paid", None]},
        "who": {
            "type": "object",
            "properties": {"first": {"type": "string"}, "born": {"type": "string", "format": "date"}},
            "required": ["first", "born"],
            "additionalProperties": False,
        },
        "unit": {"type": "string", "enum": ["EUR"]},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "column 1: the end where a field's name should stand"),
        ("a, , b", "column 4: ',' where a field's name should stand"),
        ("a strr", "column 3: there is no type 'strr'"),
        ("a int|b", "column 3: 'int' is a type, and stands among values"),
        ("a list[int", "column 11: the end where ']' should stand"),
        ("a x|", "column 5: the end where a value should stand"),
        ("a, b, a int", "column 7: 'a' stands there twice"),
        ('a, b "x', "column 6: '\"' is not closed or not expected"),
        ("a int b", "column 7: 'b' where ',' or the end should stand"),
    ],
)
def test_a_mistake_is_said_with_its_column(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_shorthand(text)

    assert said in raised.value.message


NAMES = st.from_regex(r"[a-z_][a-z0-9_-]{0,6}", fullmatch=True)
VALUES = st.lists(st.from_regex(r"[A-Za-z0-9+#/._-]{2,8}", fullmatch=True), min_size=2, max_size=4, unique=True)


def _quoted(values: list[str]) -> str:
    return "|".join(f'"{value}"' for value in values)


TYPES = st.recursive(
    st.sampled_from(["", "str", "int", "float", "bool", "date", "datetime", "list"]) | VALUES.map(_quoted),
    lambda inner: (
        inner.map(lambda one: f"list[{one or 'str'}]")
        | st.tuples(inner, inner).map(lambda two: f"{{k? {two[0]}, l {two[1]}}}")
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(NAMES, st.booleans(), TYPES), min_size=1, max_size=6, unique_by=lambda field: field[0]))
def test_whatever_is_well_formed_comes_to_a_valid_schema_with_these_fields(fields: list[tuple[str, bool, str]]) -> None:
    text = ", ".join(f"{name}{'?' * optional} {kind}" for name, optional, kind in fields)

    schema = parse_shorthand(text)

    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == [name for name, _, _ in fields]
    for name, optional, _ in fields:
        assert Draft202012Validator(schema["properties"][name]).is_valid(None) == optional


@given(st.text(st.sampled_from("ab1,|?[]{}()\"' \n-é"), max_size=40) | st.text(max_size=40))
def test_any_text_is_a_schema_or_a_usage_error(text: str) -> None:
    try:
        schema = parse_shorthand(text)
    except UsageError:
        return
    Draft202012Validator.check_schema(schema)
