"""Whatever a chain returns, as JSON: text, dicts, pydantic models, dataclasses, messages, documents, lists of them."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import math
import pathlib
import uuid
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from typing import Any

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.records import Json

_MOST_DEPTH = 64


def to_json(value: Any, depth: int = 0) -> Json:
    """The value as plain JSON, nothing lost that JSON can hold. Raises CallFailed (kind `chain`) for what it cannot."""
    if isinstance(value, enum.Enum):
        return to_json(value.value, depth + 1)
    if value is None or isinstance(value, bool | int | str):
        return value
    if depth > _MOST_DEPTH:
        raise CallFailed(Failure(Kind.CHAIN, "the chain's output is nested too deep, or contains itself"))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {_name(key): to_json(inner, depth + 1) for key, inner in value.items()}
    if (plain := _opened(value)) is not None:
        return to_json(plain, depth + 1)
    if (text := _written(value)) is not None:
        return text
    if isinstance(value, Iterable):
        items = sorted(value, key=repr) if isinstance(value, Set) else value
        return [to_json(inner, depth + 1) for inner in items]
    raise CallFailed(
        Failure(
            Kind.CHAIN, f"the chain returned a {type(value).__module__}.{type(value).__qualname__}, which is no JSON"
        )
    )


def _name(key: Any) -> str:
    return key if isinstance(key, str) else str(to_json(key))


def _opened(value: Any) -> Any:
    """What a structured object holds, one level down; None when it is none."""
    if getattr(value, "type", None) in {"ai", "AIMessageChunk"} and hasattr(value, "response_metadata"):
        return _message(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        return tolist()
    return None


def _message(message: Any) -> Json:
    """A chat message is its text, unless it holds more than text."""
    calls = {name: found for name in ("tool_calls", "invalid_tool_calls") if (found := getattr(message, name, None))}
    return {"content": message.content, **calls} if calls else message.content


def _written(value: Any) -> str | float | None:
    """What has a usual way to be written as text."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID | pathlib.PurePath | Decimal | datetime.timedelta):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return None
