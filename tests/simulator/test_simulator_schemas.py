from __future__ import annotations

import json
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from lcbatch.simulator.schemas import value_for

DIGEST = bytes(range(32))


def valid(schema: dict[str, Any], value: Any) -> bool:
    """A validator for the schemas that `schemas` below draws."""
    if "enum" in schema:
        return bool(value in schema["enum"])
    if "anyOf" in schema:
        return any(valid(option, value) for option in schema["anyOf"])
    match schema["type"]:
        case "object":
            properties = schema["properties"]
            return set(schema["required"]) <= set(value) <= set(properties) and all(
                valid(properties[name], member) for name, member in value.items()
            )
        case "array":
            return schema["minItems"] <= len(value) <= schema["maxItems"] and all(
                valid(schema["items"], item) for item in value
            )
        case "string":
            return isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
        case "integer":
            return isinstance(value, int) and schema["minimum"] <= value < schema["exclusiveMaximum"]
        case "number":
            return bool(schema["minimum"] <= value <= schema["maximum"])
        case "boolean":
            return isinstance(value, bool)
        case _:
            return value is None


def span(low: str, high: str, start: int = 0, gap: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    pairs = st.tuples(st.integers(start, 40), st.integers(gap, 40))
    return pairs.map(lambda pair: {low: pair[0], high: pair[0] + pair[1]})


scalars = st.one_of(
    span("minLength", "maxLength").map(lambda bounds: {"type": "string", **bounds}),
    span("minimum", "exclusiveMaximum", -40, 1).map(lambda bounds: {"type": "integer", **bounds}),
    span("minimum", "maximum", -40).map(lambda bounds: {"type": "number", **bounds}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}]),
    st.lists(st.text() | st.integers(), min_size=1).map(lambda values: {"enum": values}),
)


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.dictionaries(st.text(), inner, max_size=3).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties)) if properties else st.nothing()).map(
            lambda required: {"type": "object", "properties": properties, "required": sorted(required)}
        )
    )
    arrays = st.builds(
        lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
        inner,
        st.integers(0, 3),
        st.integers(0, 3),
    )
    return st.one_of(objects, arrays, st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}))


schemas = st.recursive(scalars, nested, max_leaves=8)


@settings(deadline=None)  # a busy machine is no failure
@given(schemas, st.binary(min_size=32, max_size=32))
def test_a_value_is_valid_for_its_schema(schema: dict[str, Any], digest: bytes) -> None:
    value = value_for(schema, digest)
    assert valid(schema, json.loads(json.dumps(value)))
    assert value_for(schema, digest) == value


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str = Field(min_length=3, max_length=8)
    colour: Colour
    weight: float = Field(gt=0, le=2)
    children: list[Part] = []


class Ticket(BaseModel):
    kind: Literal["bug", "wish"]
    urgent: bool
    score: int = Field(ge=1, le=5, multiple_of=2)
    note: str | None
    parts: list[Part] = Field(min_length=1, max_length=2)
    pair: tuple[int, str]
    labels: dict[str, int]


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(min_size=32, max_size=32))
def test_pydantic_accepts_what_its_schema_gives(digest: bytes) -> None:
    Ticket.model_validate(value_for(Ticket.model_json_schema(), digest))


def test_equal_schemas_in_different_places_get_different_values() -> None:
    value = value_for({"properties": {"a": {"type": "string"}, "b": {"type": "string"}}}, DIGEST)
    assert value["a"] != value["b"]


def test_a_recursive_schema_ends() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    depth, value = 0, value_for(node, DIGEST)
    while value is not None:
        depth, value = depth + 1, value["next"]
    assert 1 < depth < 10


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_a_schema_without_a_finite_value_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="schema"):
        value_for(schema, DIGEST)


def test_all_of_is_merged() -> None:
    merged = {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"const": 7}}, "required": ["b"]},
        ]
    }
    value = value_for(merged, DIGEST)
    assert isinstance(value["a"], int)
    assert value["b"] == 7


def test_unique_items_are() -> None:
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3}
    assert sorted(value_for(schema, DIGEST)) == [1, 2, 3]
