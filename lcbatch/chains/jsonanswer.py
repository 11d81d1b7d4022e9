"""JSON objects in what a model wrote: as they are, in a fence, amid prose, or with slips that leave no doubt what is meant.

Mended are: what stands around the object, trailing commas, comments, line breaks inside strings, and objects as Python writes
them. Nothing is completed or guessed: an answer that was cut off is not an answer, however well it could be closed.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator
from functools import partial
from typing import NoReturn

from lcbatch import jsontext
from lcbatch.records import Json

_MOST_PIECES = 64
"""So many objects are looked at in one answer, so that no answer takes seconds to read."""

_MOST_SEARCHED_CHARS = 16_000_000
"""In a longer answer no object is looked for; one that is JSON as a whole is read all the same."""

_MOST_LENIENT_CHARS = 200_000
"""Longer pieces are read as JSON or not at all: Python's parser takes a hundred times the memory."""

_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*+'
"""A string up to its end. Possessive, as a loop that may go back keeps a hundred bytes for each character of an answer."""
_STRING_OR_BRACE = re.compile(_QUOTED + r'"|"|[{}]', re.DOTALL)
_STRING = rf'(?P<string>{_QUOTED}(?:"|\\?\Z))'
"""One that does not end takes all that is left, or each quote in it would be tried as the beginning of another."""
_STRING_OR_COMMENT = re.compile(_STRING + r"|//[^\n]*", re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(_STRING + r"|,(?=\s*[}\]])", re.DOTALL)


def objects_in(text: str) -> Iterator[dict[str, Json]]:
    """The JSON objects that stand in a text one after another, never one inside another.

    After one that does not end nothing more is looked for: what stands inside it is a part of an answer, and none.
    """
    text = text.removeprefix("\ufeff").strip()
    whole = (_as_json(text) or _mended(text)) if text.startswith("{") and text.endswith("}") else None
    if whole is not None:
        yield whole
        return
    if len(text) > _MOST_SEARCHED_CHARS:
        return
    at = 0
    for _ in range(_MOST_PIECES):
        start = text.find("{", at)
        end = _end_of(text, start) if start >= 0 else -1
        if end < 0:
            return
        piece = text[start:end]
        value = _as_json(piece) or _mended(piece)
        if value is not None:
            yield value
        at = end


def _end_of(text: str, start: int) -> int:
    """Where the object that begins at `start` ends; -1 where it does not, or only deeper than is read."""
    depth = 0
    for match in _STRING_OR_BRACE.finditer(text, start):
        sign = match[0]
        if sign == '"':
            return -1  # a string that does not end
        if sign == "{":
            depth += 1
            if depth > jsontext.MOST_DEPTH:
                return -1
        elif sign == "}":
            depth -= 1
            if not depth:
                return match.end()
    return -1


def _as_json(text: str) -> dict[str, Json] | None:
    """The object that this text is; line breaks and tabs may stand inside strings. None for anything else."""
    for read in (jsontext.loads, partial(json.loads, strict=False, parse_constant=_refuse)):
        try:
            return _object(read(text))
        except (ValueError, RecursionError):
            continue
    return None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _object(value: Json) -> dict[str, Json] | None:
    return value if isinstance(value, dict) and _is_kept_whole(value) else None


def _is_kept_whole(value: Json, depth: int = 0) -> bool:
    """Whether it can be written and read back: a number like 1e999 is infinite, and would be null; deeper values are refused."""
    if depth > jsontext.MOST_DEPTH:
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_is_kept_whole(one, depth + 1) for one in inner)


def _mended(piece: str) -> dict[str, Json] | None:
    if len(piece) > _MOST_LENIENT_CHARS:
        return None
    plainer = piece
    for slip in (_STRING_OR_COMMENT, _STRING_OR_LAST_COMMA):
        plainer = slip.sub(lambda match: match["string"] or "", plainer)
    found = _as_json(plainer)
    # A backslash means one thing in JSON and another in Python.
    return found if found is not None or "\\" in piece else _as_python(piece)


def _as_python(piece: str) -> dict[str, Json] | None:
    """An object of Python's literals, with JSON's names for true, false and null allowed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python has opinions on what stands in there
            tree = ast.parse(piece.strip(), mode="eval")
        return _object(_literal(tree.body))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


_NAMES: dict[str, Json] = {"true": True, "false": False, "null": None}


def _literal(node: ast.expr) -> Json:
    match node:
        case ast.Dict(keys, values):
            return {_key(key): _literal(value) for key, value in zip(keys, values, strict=True)}
        case ast.List(items) | ast.Tuple(items):
            return [_literal(item) for item in items]
        case ast.Constant(value) if value is None or isinstance(value, str | int | float):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(value)) if isinstance(value, int | float):
            return -value
        case ast.Name(name) if name in _NAMES:
            return _NAMES[name]
    raise ValueError("no literal")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("a key that is no text")
