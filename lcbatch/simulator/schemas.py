"""A value that is valid for a JSON schema, drawn from a hash. Pure and deterministic.

Known: type (also lists of types), enum, const, object, array, string, number, integer, boolean, null, $ref into the
schema itself, anyOf and oneOf (the first), allOf (merged), the usual bounds, and the formats that pydantic writes.
`pattern`, `not` and conditionals are not looked at.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]
# `true` is a schema too, that of anything.
SchemaOrTrue = Schema | bool

# A recursive schema would never end: from this depth on, optional properties and array items are left out and null is
# preferred.
_DEEP: Final = 5
# A schema that requires itself has no finite value; giving up beats exhausting the stack.
_TOO_DEEP: Final = 40

_FORMATS: Final = {
    "date": "2024-02-29",
    "date-time": "2024-02-29T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "echo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/echo",
    "uuid": "12345678-1234-4234-8234-123456789abc",
}


def value_for(schema: SchemaOrTrue, digest: bytes) -> Any:
    """A JSON value for the schema. Raises ValueError for one that is unresolvable or has only infinite values."""
    return _Maker(schema if isinstance(schema, Mapping) else {}, digest).make(schema, "$", 0)


class _Maker:
    def __init__(self, root: Schema, digest: bytes) -> None:
        self._root = root
        self._digest = digest

    def make(self, schema: SchemaOrTrue, path: str, depth: int) -> Any:
        if depth > _TOO_DEEP:
            raise ValueError("the schema has no finite value")
        if isinstance(schema, bool):
            return {}
        schema = self._flat(schema, path, depth)
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if choices:
            return choices[self._draw(path) % len(choices)]
        match self._type(schema, depth):
            case "object":
                return self._object(schema, path, depth)
            case "array":
                return self._array(schema, path, depth)
            case kind:
                return self._scalar(kind, schema, path)

    def _scalar(self, kind: str, schema: Schema, path: str) -> str | float | bool | None:
        match kind:
            case "string":
                return self._string(schema, path)
            case "integer":
                return self._integer(schema, path)
            case "number":
                return self._number(schema, path)
            case "boolean":
                return self._draw(path) % 2 == 0
            case _:
                return None

    def _draw(self, path: str) -> int:
        return int.from_bytes(hashlib.sha256(self._digest + path.encode()).digest()[:6], "big")

    def _flat(self, schema: Schema, path: str, depth: int) -> Schema:
        """The schema without $ref, allOf, anyOf and oneOf at its top."""
        for _ in range(_TOO_DEEP):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged(self._resolve(schema["$ref"]), rest)
            elif schema.get("allOf"):
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                for part in schema["allOf"]:
                    rest = _merged(self._flat(part, path, depth), rest)
                schema = rest
            elif schema.get("anyOf") or schema.get("oneOf"):
                word = "anyOf" if schema.get("anyOf") else "oneOf"
                rest = {key: value for key, value in schema.items() if key != word}
                schema = _merged(self._option(schema[word], depth), rest)
            else:
                return schema
        raise ValueError(f"the schema at {path} refers to itself")

    def _option(self, options: list[Schema], depth: int) -> Schema:
        if depth >= _DEEP:
            for option in options:
                if option.get("type") == "null":
                    return option
            # Among recursive alternatives, one that refers to nothing ends the recursion.
            for option in options:
                if "$ref" not in option and option.get("type") not in {"object", "array"}:
                    return option
        return options[0]

    def _resolve(self, reference: str) -> Schema:
        if not reference.startswith("#"):
            raise ValueError(f"the schema refers to {reference}, outside itself")
        node: Any = self._root
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(key)] if isinstance(node, list) else node[key]
            except (KeyError, IndexError, ValueError, TypeError) as exc:
                raise ValueError(f"the schema has no {reference}") from exc
        return node if isinstance(node, Mapping) else {}

    def _type(self, schema: Schema, depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            return "null" if depth >= _DEEP and "null" in kind else str(kind[0])
        if kind:
            return str(kind)
        for word, implied in (
            ("properties", "object"),
            ("required", "object"),
            ("items", "array"),
            ("minimum", "number"),
        ):
            if word in schema:
                return implied
        return "string"

    def _object(self, schema: Schema, path: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        wanted = [name for name in properties if depth < _DEEP or name in required]
        made = {name: self.make(properties[name], f"{path}.{name}", depth + 1) for name in wanted}
        extra = schema.get("additionalProperties")
        extra_schema = extra if isinstance(extra, Mapping) else {"type": "string"}
        missing = [name for name in required if name not in made]
        missing += [f"key{number}" for number in range(schema.get("minProperties", 0) - len(made) - len(missing))]
        return made | {name: self.make(extra_schema, f"{path}.{name}", depth + 1) for name in missing}

    def _array(self, schema: Schema, path: str, depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, 3))
        fixed = schema.get("prefixItems") or []
        count = least if depth >= _DEEP else max(least, min(most, 1 + self._draw(path) % 3))
        items = schema.get("items", {"type": "string"})
        schemas = [*fixed, *([items] * max(0, count - len(fixed)))][: max(count, min(len(fixed), most))]
        made: list[Any] = []
        for index, item in enumerate(schemas):
            value = self.make(item, f"{path}[{index}]", depth + 1)
            if not schema.get("uniqueItems") or value not in made:
                made.append(value)
                continue
            tries = (self.make(item, f"{path}[{index}]{again}", depth + 1) for again in range(64))
            made.extend([next((value for value in tries if value not in made), None)] if len(made) < least else [])
        return made

    def _string(self, schema: Schema, path: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = f"echo {self._digest.hex()[:16]} {self._draw(path):012x}"
        text = text.ljust(schema.get("minLength", 0), ".")
        if schema.get("maxLength", len(text)) < len(text):
            # The end differs from path to path, the beginning does not.
            return text[len(text) - schema["maxLength"] :]
        return text

    def _integer(self, schema: Schema, path: str) -> int:
        low, high = _bounds(schema)
        step = int(schema.get("multipleOf", 1)) or 1
        first = math.ceil(low / step)
        if "exclusiveMinimum" in schema and first * step <= schema["exclusiveMinimum"]:
            first += 1
        last = math.floor(high / step)
        if "exclusiveMaximum" in schema and last * step >= schema["exclusiveMaximum"]:
            last -= 1
        return (first + self._draw(path) % max(1, last - first + 1)) * step

    def _number(self, schema: Schema, path: str) -> float:
        if "multipleOf" in schema:
            step = schema["multipleOf"]
            low, high = _bounds(schema)
            first, last = math.ceil(low / step), math.floor(high / step)
            return float((first + self._draw(path) % max(1, last - first + 1)) * step)
        low, high = _bounds(schema)
        if low == high:
            return low
        # Strictly between the bounds, so that exclusive ones hold too.
        return float(low + (high - low) * (1 + self._draw(path) % 999) / 1000)


def _bounds(schema: Schema) -> tuple[float, float]:
    lows = [schema[word] for word in ("minimum", "exclusiveMinimum") if word in schema]
    highs = [schema[word] for word in ("maximum", "exclusiveMaximum") if word in schema]
    low = max(lows) if lows else (min(highs) - 100 if highs else 0)
    high = min(highs) if highs else max(100, low + 100)
    return low, high


def _merged(below: Schema, above: Schema) -> dict[str, Any]:
    merged = {**below, **above}
    for word in ("properties", "$defs"):
        if word in below and word in above:
            merged[word] = {**below[word], **above[word]}
    if "required" in below and "required" in above:
        merged["required"] = [*below["required"], *above["required"]]
    return merged
