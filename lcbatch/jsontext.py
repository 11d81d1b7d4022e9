"""JSON as text: orjson for speed, the standard library where orjson would refuse or change a value.

orjson refuses lone surrogates and integers beyond 64 bits on the way out, and turns such integers into floats on the way in;
a model may send the first, and an input may hold the second as an id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b

import orjson

from lcbatch.records import Json

_DIGITS_AS_ZEROS = bytes(48 if chr(code).isdigit() else 32 for code in range(128)).ljust(256)
_LONG_INTEGER = b"0" * 19

DIGEST_BYTES = 16


def dumps(value: Json) -> str:
    """Compact JSON text that UTF-8 can encode. Raises TypeError for what is no JSON."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=True)


def loads(text: bytes | str) -> Json:
    """Parse one JSON value, integers of any length. Raises ValueError."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if _LONG_INTEGER not in raw.translate(_DIGITS_AS_ZEROS):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # the standard library reads NaN and lone surrogates, and names the column of real errors
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deep") from None


def canonical(value: Json) -> bytes:
    """The same bytes for equal values, whatever the order of keys: what identities are hashed over."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode()


def digest(*parts: bytes) -> bytes:
    """128-bit BLAKE2b over the parts, each framed by its length so that ("ab", "c") and ("a", "bc") differ."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
