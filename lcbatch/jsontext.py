"""JSON as text: orjson for speed, the standard library where orjson would refuse or change a value.

orjson refuses lone surrogates and integers beyond 64 bits on the way out, and turns such integers into floats on the way in;
a model may send the first, and an input may hold the second as an id.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import BinaryIO

import orjson

from lcbatch.records import Json

_DIGITS_AS_ZEROS = bytes(48 if chr(code).isdigit() else 32 for code in range(128)).ljust(256)
_LONG_INTEGER = b"0" * 19

_AS_IT_IS = orjson.OPT_NON_STR_KEYS
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS

_STEP = 1024 * 1024
"""Longer texts are gone through in steps of so many bytes or characters. orjson leaves a whole text's UTF-8 with the text for as
long as that lives, where it is not plain ASCII, and a translated or a hashed copy of 50 MB is 50 MB more at the worst moment."""

_MOST_LOOKED_AT = 64
"""Members of an object or array among which a long text is looked for: vectors have more, and hold none."""

_LEVELS_LOOKED_AT = 3

_SHOWN_DIGITS = 20

DIGEST_BYTES = 16

MOST_DEPTH = 200
"""Deeper values are refused where they come in: what writes them later gives up at 254 (orjson) or at Python's own limit."""


def dumps(value: Json) -> str:
    """Compact JSON text that UTF-8 can encode; NaN and infinity are null in it. Raises TypeError for what is no JSON."""
    try:
        return orjson.dumps(value, option=_AS_IT_IS).decode()
    except orjson.JSONEncodeError:
        return json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=True)


def encoded(value: Json) -> bytes:
    """`dumps` as UTF-8, at the price of its own size alone, whatever the text's characters."""
    try:
        if not holds_long_text(value):
            return orjson.dumps(value, option=_AS_IT_IS)
        out = io.BytesIO()
        write(value, out)
        return out.getvalue()
    except orjson.JSONEncodeError:
        return dumps(value).encode()


def write(value: Json, out: BinaryIO) -> None:
    """Write the value as JSON, a long text in steps. Raises orjson.JSONEncodeError for what `dumps` writes another way."""
    out.writelines(_pieces(value, _AS_IT_IS))


class NoSuchNumber(ValueError):
    """A number that cannot be kept: NaN, an infinity, or one beyond what a float or 4300 digits hold."""


def loads(text: bytes | str, *, finite: bool = False) -> Json:
    """Parse one JSON value, integers of any length. Raises ValueError, also for more than 200 levels of nesting.

    With `finite` it raises NoSuchNumber for NaN and infinities, which `dumps` would write as null.
    """
    if isinstance(text, str) and len(text) > _STEP and text.isascii():
        # As it is: its bytes would be one copy more at the worst moment.
        value, levels = _parsed(text, finite), text.count("[") + text.count("{")
    else:
        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        value, levels = _parsed(raw, finite), raw.count(b"[") + raw.count(b"{")
    if levels > MOST_DEPTH and _is_too_deep(value):
        raise ValueError("nested too deep")
    return value


def _parsed(raw: bytes | str, finite: bool) -> Json:  # noqa: FBT001 - no second call with a keyword on each row's way
    if not _may_hold_long_integer(raw):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # the standard library reads NaN and lone surrogates, and names the column of real errors
    try:
        if finite:
            return json.loads(raw, parse_int=_integer, parse_float=_finite_float, parse_constant=_no_constant)
        return json.loads(raw, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's own words would have the user change a setting of the interpreter
        raise NoSuchNumber(f"a number of {len(digits)} digits is too large") from None


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        shown = digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}..."
        raise NoSuchNumber(f"{shown} is too large a number")
    return value


def _no_constant(name: str) -> None:
    raise NoSuchNumber(f"{name} is no JSON")


def _may_hold_long_integer(raw: bytes | str) -> bool:
    if isinstance(raw, bytes) and len(raw) <= _STEP:
        return _LONG_INTEGER in raw.translate(_DIGITS_AS_ZEROS)
    steps = (raw[at : at + _STEP + len(_LONG_INTEGER)] for at in range(0, len(raw), _STEP))
    as_bytes = (step.encode() if isinstance(step, str) else step for step in steps)
    return any(_LONG_INTEGER in step.translate(_DIGITS_AS_ZEROS) for step in as_bytes)


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
        return orjson.dumps(value, option=_SORTED)
    except orjson.JSONEncodeError:
        return json.dumps(_finite(value), separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode()


def digest_of(value: Json, *parts: bytes) -> bytes:
    """`digest` of the value's canonical JSON and the parts, without those bytes ever being there as a whole."""
    if not holds_long_text(value):
        return digest(canonical(value), *parts)
    state = blake2b(digest_size=DIGEST_BYTES)
    try:
        state.update(sum(map(len, _pieces(value, _SORTED))).to_bytes(8, "little"))
        for piece in _pieces(value, _SORTED):
            state.update(piece)
    except orjson.JSONEncodeError:
        return digest(canonical(value), *parts)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def holds_long_text(value: Json, levels: int = _LEVELS_LOOKED_AT) -> bool:
    """Whether a text of more than a million characters is in it, near its top."""
    if type(value) is str:
        return len(value) > _STEP
    if not levels or type(value) not in {dict, list} or len(value) > _MOST_LOOKED_AT:
        return False
    for inner in _parts(value):
        # Texts here, and not by a call of their own: every row is looked through.
        if type(inner) is str:
            if len(inner) > _STEP:
                return True
        elif holds_long_text(inner, levels - 1):
            return True
    return False


def _pieces(value: Json, option: int) -> Iterator[bytes]:
    """What orjson writes, a long text in steps. Raises JSONEncodeError."""
    if not holds_long_text(value) or (type(value) is dict and not all(type(name) is str for name in value)):
        yield orjson.dumps(value, option=option)
    elif type(value) is str:
        yield b'"'
        for at in range(0, len(value), _STEP):
            yield orjson.dumps(value[at : at + _STEP])[1:-1]
        yield b'"'
    elif type(value) is dict:
        before = b"{"
        for name in sorted(value) if option == _SORTED else value:
            yield before + orjson.dumps(name) + b":"
            yield from _pieces(value[name], option)
            before = b","
        yield b"}"
    else:
        before = b"["
        for inner in value:
            yield before
            yield from _pieces(inner, option)
            before = b","
        yield b"]"


def digest(*parts: bytes) -> bytes:
    """128-bit BLAKE2b over the parts, each framed by its length so that ("ab", "c") and ("a", "bc") differ."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
