"""JSON as text: orjson for speed, the standard library where orjson would refuse or change a value.

orjson refuses lone surrogates and integers beyond 64 bits on the way out, and turns such integers into floats on the way in;
a model may send the first, and an input may hold the second as an id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from hashlib import blake2b

import orjson

from lcbatch.records import Json

_DIGITS_AS_ZEROS = bytes(48 if chr(code).isdigit() else 32 for code in range(128)).ljust(256)
_LONG_INTEGER = b"0" * 19

DIGEST_BYTES = 16

MOST_DEPTH = 200
"""Deeper values are refused where they come in: what writes them later gives up at 254 (orjson) or at Python's own limit."""


def dumps(value: Json) -> str:
    """Compact JSON text that UTF-8 can encode; NaN and infinity are null in it. Raises TypeError for what is no JSON."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        return json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=True)


def loads(text: bytes | str) -> Json:
    """Parse one JSON value, integers of any length. Raises ValueError, also for more than 200 levels of nesting."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    value = _parsed(raw)
    if raw.count(b"[") + raw.count(b"{") > MOST_DEPTH and _is_too_deep(value):
        raise ValueError("nested too deep")
    return value


def _parsed(raw: bytes) -> Json:
    if _LONG_INTEGER not in raw.translate(_DIGITS_AS_ZEROS):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # the standard library reads NaN and lone surrogates, and names the column of real errors
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _is_too_deep(value: Json) -> bool:
    """Level by level, and no further than it has to: itself it must not recurse."""
    level = [value]
    for _ in range(MOST_DEPTH + 1):
        level = [inner for outer in level for inner in _parts(outer)]
        if not level:
            return False
    return True


def _parts(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _finite(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def canonical(value: Json) -> bytes:
    """The same bytes for equal values, whatever the order of keys: what identities are hashed over."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        return json.dumps(_finite(value), separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode()


def digest(*parts: bytes) -> bytes:
    """128-bit BLAKE2b over the parts, each framed by its length so that ("ab", "c") and ("a", "bc") differ."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
