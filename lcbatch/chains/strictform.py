"""A JSON schema as OpenAI's strict structured output takes it: every field required, no others, a part of the words alone.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas (July 2026). The answers that the strict form lets
through are held against the user's own schema all the same, so words that only narrow a value may be left out of it.
"""

from __future__ import annotations

from lcbatch.records import Json

_TAKEN = frozenset(
    {
        "type",
        "enum",
        "const",
        "description",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
    }
)
_LEFT_OUT = frozenset(
    {
        "title",
        "default",
        "examples",
        "$schema",
        "$id",
        "$comment",
        "deprecated",
        "readOnly",
        "writeOnly",
        "minLength",
        "maxLength",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    }
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_SAYS_A_TYPE = frozenset({"type", "enum", "const", "anyOf", "oneOf", "$ref"})


class _NotStrict(Exception):
    """The schema says something that the strict form cannot say."""


def strict_form(schema: dict[str, Json]) -> dict[str, Json] | None:
    """The schema in its strict form; None where it has none."""
    if schema.get("type") != "object":  # a reference, or alternatives, cannot stand at the top
        return None
    try:
        return _strict(schema)
    except _NotStrict:
        return None


def _strict(schema: Json) -> dict[str, Json]:
    if not isinstance(schema, dict) or _SAYS_A_TYPE.isdisjoint(schema):
        raise _NotStrict  # anything at all
    if "$ref" in schema:
        if schema.keys() - {"$ref", "description"} - _LEFT_OUT:
            raise _NotStrict
        return {"$ref": schema["$ref"]}
    strict: dict[str, Json] = {}
    for word, value in schema.items():
        strict |= _said(word, value)
    return _closed(schema, strict)


def _said(word: str, value: Json) -> dict[str, Json]:
    """One word of a schema, as the strict form says it."""
    if word in _TAKEN or (word == "format" and value in _FORMATS):
        return {word: value}
    if word in _LEFT_OUT or word in {"required", "additionalProperties", "format"}:
        return {}
    if word in {"anyOf", "oneOf"}:
        return {"anyOf": [_strict(option) for option in value]}
    if word == "items":
        return {word: _strict(value)}
    if word in {"properties", "$defs", "definitions"}:
        return {word: {name: _strict(inner) for name, inner in value.items()}}
    raise _NotStrict


def _closed(schema: dict[str, Json], strict: dict[str, Json]) -> dict[str, Json]:
    """Of an object: all fields required, and no others. A field that may be left out has to be one that may be null."""
    kind = schema.get("type")
    if kind != "object" and "properties" not in schema and not (isinstance(kind, list) and "object" in kind):
        if kind == "array" and "items" not in schema:
            raise _NotStrict
        return strict
    properties = schema.get("properties")
    if not properties or schema.get("additionalProperties") not in (None, False):
        raise _NotStrict
    required = schema.get("required", [])
    if not set(required) <= properties.keys():
        raise _NotStrict
    if not all(name in required or _may_be_null(inner) for name, inner in properties.items()):
        raise _NotStrict
    return {**strict, "required": list(properties), "additionalProperties": False}


def _may_be_null(schema: dict[str, Json]) -> bool:
    kind = schema.get("type")
    if kind == "null" or (isinstance(kind, list) and "null" in kind):
        return "enum" not in schema or None in schema["enum"]
    options = schema.get("anyOf") or schema.get("oneOf") or []
    return any(isinstance(option, dict) and _may_be_null(option) for option in options)
