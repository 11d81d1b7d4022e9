"""What an option was given, brought to the form that its declaration asks for: text, TOML and Python bring all sorts."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

from lcbatch.credentials import check_key_variable, check_model_argument
from lcbatch.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address that serves the model. Its limits are its own; what is not said counts as for --rpm, --tpm, --api-key-env."""

    base_url: str
    api_key_env: str | None = None
    rpm: float | None = None
    tpm: float | None = None


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """A hint that names the nearest known word, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def checked(spec: Field[Any], value: Any) -> Any:
    """The value in the field's own form: text forms parsed, lists as tuples; its type, sign and choices held."""
    label = "--" + spec.name.replace("_", "-")
    parse = spec.metadata["parse"]
    if parse == "endpoints":
        return _endpoints(value)
    if parse and isinstance(value, str):
        value = PARSERS[parse](value, label)
    if isinstance(spec.default, tuple):
        value = (value,) if isinstance(value, str) else value
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
            hint = _LIST_HINTS.get(spec.name)
            # A table of arguments may hold a key, which is not to be shown.
            shown = repr(value) if hint is None else f"a {type(value).__name__}"
            raise UsageError(f"{label} cannot be {shown}", hint=hint or "a text, or a list of texts")
        for part in value if spec.name == "model_arg" else ():
            check_model_argument(part)
        return tuple(value)
    kind, _, optional = str(spec.type).partition(" | ")
    if value is None and optional:
        return None
    if spec.name == "api_key_env":
        check_key_variable(value, label)
    value = _typed(kind, value, label, least=1 if parse == "count" else 0)
    choices = spec.metadata["choices"]
    if choices and value not in choices:
        raise UsageError(f"{label} cannot be {value!r}", hint=f"one of {', '.join(choices)}")
    return value


def _typed(kind: str, value: Any, label: str, *, least: int = 0) -> Any:
    """A config file and Python bring values of any type; a wrong one is said here, and not by what stumbles over it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "str":
        value = str(value) if is_number else value  # so that `concurrency = 8` may stand in a config file
    elif kind == "float" and is_number:
        value = float(value)
    found: type = type(value)
    if found is not _TYPES[kind]:
        raise UsageError(f"{label} cannot be {value!r}", hint=_TYPE_HINTS[kind])
    if kind in {"int", "float"} and not least <= value < math.inf:
        raise UsageError(f"{label} cannot be {value!r}", hint=f"{least} or more")
    return value


def _endpoints(tables: Any) -> tuple[Endpoint, ...]:
    """`[[endpoints]]` of a config file, or Endpoints as they are."""
    hint = 'as in: [[endpoints]] base_url = "https://..." api_key_env = "NAME"'
    known = {spec.name: spec for spec in fields(Endpoint)}
    found = []
    for table in tables if isinstance(tables, list | tuple) else [tables]:
        if isinstance(table, Endpoint):
            check_key_variable(table.api_key_env, "endpoints: api_key_env")
            found.append(table)
            continue
        if not isinstance(table, Mapping) or not isinstance(table.get("base_url"), str):
            raise UsageError("each of endpoints is a table with a base_url", hint=hint)
        if unknown := sorted(set(table) - set(known)):
            raise UsageError(f"endpoints: {unknown[0]!r} is no key of theirs", hint=suggestion(unknown[0], known))
        check_key_variable(table.get("api_key_env"), "endpoints: api_key_env")
        given = {name: value for name, value in table.items() if value is not None}
        typed = {
            name: _typed(known[name].type.partition(" | ")[0], given[name], f"endpoints: {name}") for name in given
        }
        found.append(Endpoint(**typed))
    return tuple(found)


_LIST_HINTS: Mapping[str, str] = {
    "model_arg": 'a text or a list of texts, as in model_arg = ["top_p=0.9"]; keys come from the environment only'
}
_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_TYPE_HINTS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def parse_duration(text: str, label: str = "a duration") -> float:
    """Seconds from `90s`, `15m`, `8h`, `1h30m` or a plain number of seconds. Raises UsageError."""
    cleaned = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", cleaned):
        return float(cleaned)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", cleaned)
    if not parts or "".join(number + unit for number, unit in parts) != cleaned:
        raise UsageError(f"{label} cannot be {text!r}", hint="write it like 90s, 15m, 8h or 1h30m")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def parse_bytes(text: str, label: str = "a size") -> int:
    """Bytes from `500k`, `64m`, `2g` (powers of 1024) or a plain number. Raises UsageError."""
    match = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"{label} cannot be {text!r}", hint="write it like 500k, 64m or 2g")
    return int(match[1]) * _UNITS_BYTES[match[2]]


def parse_count(text: str, label: str = "a count") -> int:
    """A whole number from its digits. Raises UsageError."""
    if not re.fullmatch(r"\d+", text.strip()):
        raise UsageError(f"{label} cannot be {text!r}", hint="a whole number, 1 or more")
    return int(text)


PARSERS = {"duration": parse_duration, "bytes": parse_bytes, "count": parse_count}
