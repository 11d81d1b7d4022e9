"""What others write, made up: bytes, texts and JSON values that lie between what a parser expects and nonsense."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lcbatch.records import Json
from tests.torture.scale import cases

_MOST_S = 5.0
"""Of one core, for one example: none needs a tenth of it. What the clock on the wall shows depends on who else works here."""

BITS = (
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    ";",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "'",
    "//",
    "{{",
    "}}",
    "{x}",
    "{x.__class__}",
    "%s",
    "%(x)s",
    "true",
    "None",
    "null",
    "NaN",
    "-Infinity",
    "1e999",
    "0",
    "-1",
    "9" * 30,
    "9" * 5000,
    '{"a":1}',
    '{"lc":1,"type":"constructor"}',
    '""',
    "=cmd()",
    "\0",
    "\x1b[2J",
    "\x9b31m",
    "\u202e",
    "\ud800",
    "\ufeff",
    "é",
    "\U0001f600",
    "`" * 3,
    "x" * 300,
    "[" * 300,
    '{"a":' * 300,
    "-" * 400,
    "Retry after 5s",
    "try again in 9h",
    "2147483648",
    "1969-12-31T23:59:60Z",
    "Wed, 21 Oct 2015 07:28:00 GMT",
)

TEXTS = st.lists(st.sampled_from(BITS) | st.text(max_size=6), max_size=14).map("".join)
"""Pieces of what parsers look for, in no order."""

BYTES = st.one_of(
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.builds(lambda text, code: text.encode(code, "replace"), TEXTS, st.sampled_from(["utf-16", "utf-32", "latin-1"])),
    st.lists(st.binary(max_size=12) | TEXTS.map(lambda text: text.encode("utf-8", "replace")), max_size=6).map(
        b"".join
    ),
)

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**30, -(10**30), 10**400, -1, 2**63, 1e308, math.inf, -math.inf, math.nan]),
)
JSON: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def deep(value: Json, levels: int) -> Json:
    """The value inside so many lists and objects."""
    for level in range(levels):
        value = [value] if level % 2 else {"error": value}
    return value


def with_members(names: str, value: st.SearchStrategy[Json] = JSON) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of these members, each with any value."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names.split(), value))


def tries(part: int, whole: int) -> Callable[[Any], Any]:
    """Hypothesis' settings for so many examples. Deterministic within `make test`: a fault is found by the whole, or by all."""
    return settings(
        max_examples=cases(part, whole),
        deadline=None,
        derandomize=cases(1, 0) == 1,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


@contextmanager
def in_time() -> Iterator[None]:
    """Fails what takes longer than no input may make it take."""
    began_s = time.thread_time()
    yield
    took_s = time.thread_time() - began_s
    assert took_s < _MOST_S, f"it took {took_s:.1f} s"
