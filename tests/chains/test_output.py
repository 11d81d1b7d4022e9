"""Whatever a chain returns, as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import pathlib
import uuid
from collections import OrderedDict
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from pydantic import BaseModel

from lcbatch import jsontext
from lcbatch.chains.output import to_json
from lcbatch.errors import CallFailed, Kind


class Person(BaseModel):
    name: str
    born: datetime.date | None = None


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Point(NamedTuple):
    x: int
    y: int


class Mood(enum.Enum):
    GOOD = "good"
    NUMBER = 3
    NESTED = (1, 2)


class Level(enum.IntEnum):
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


_CALL = {"name": "f", "args": {"a": 1}, "id": "c", "type": "tool_call"}
_WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        (OrderedDict(a=1), {"a": 1}),
        ({1: "a", None: "b", Mood.GOOD: "c"}, {"1": "a", "None": "b", "good": "c"}),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ((number for number in (1, 2)), [1, 2]),
        (range(3), [0, 1, 2]),
        (Point(1, 2), [1, 2]),
        (Person(name="Ada", born=datetime.date(1815, 12, 10)), {"name": "Ada", "born": "1815-12-10"}),
        (Pair(Person(name="Ada"), (1,)), {"left": {"name": "Ada", "born": None}, "right": [1]}),
        ([Mood.GOOD, Mood.NUMBER, Mood.NESTED, Level.HIGH, Word.YES], ["good", 3, [1, 2], 2, "yes"]),
        (AIMessage("hi"), "hi"),
        (AIMessageChunk(content="hi"), "hi"),
        (AIMessage([{"type": "text", "text": "hi"}]), [{"type": "text", "text": "hi"}]),
        (AIMessage("", tool_calls=[_CALL]), {"content": "", "tool_calls": [_CALL]}),
        ([AIMessage("a"), AIMessage("b")], ["a", "b"]),
        (_WHEN, "2026-01-02T03:04:05+00:00"),
        (datetime.timedelta(minutes=1), "0:01:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.Path("a/b"), "a/b"),
        (Decimal("1.10"), "1.10"),
        (b"\xff\x00", "/wA="),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([1.5, np.nan]), [1.5, "nan"]),
        ({"a": np.int64(5), "b": np.float64(0.5), "c": np.bool_(True)}, {"a": 5, "b": 0.5, "c": True}),  # noqa: FBT003
        (np.datetime64("2026-01-02"), "2026-01-02"),
    ],
)
def test_values(value: Any, expected: Any) -> None:
    found = to_json(value)

    assert found == expected
    assert json.loads(jsontext.dumps(found)) == expected


def test_messages_and_documents_keep_all_they_hold() -> None:
    human = to_json(HumanMessage("hi", name="Ada"))
    document = to_json(Document("text", metadata={"source": pathlib.Path("a.md")}))

    assert (human["content"], human["type"], human["name"]) == ("hi", "human", "Ada")
    assert (document["page_content"], document["metadata"]) == ("text", {"source": "a.md"})


def test_a_broken_tool_call_is_not_lost() -> None:
    broken = {"name": "f", "args": "{", "id": "c", "error": "bad", "type": "invalid_tool_call"}

    assert to_json(AIMessage("x", invalid_tool_calls=[broken])) == {"content": "x", "invalid_tool_calls": [broken]}


def test_what_contains_itself_is_the_chain_s_failure() -> None:
    mapping: dict[str, Any] = {}
    mapping["self"] = [mapping, mapping]
    pair = Pair(None, None)
    pair.left = pair
    for value in (mapping, pair):
        with pytest.raises(CallFailed, match="contains itself") as raised:
            to_json(value)
        assert raised.value.failure.kind is Kind.CHAIN


@pytest.mark.parametrize("value", [object(), Person, len, ValueError("returned, not raised"), [1, {"a": object()}], 1j])
def test_what_is_no_json_is_the_chain_s_failure(value: Any) -> None:
    with pytest.raises(CallFailed, match=r"the chain returned a [\w.]+, which is no JSON") as raised:
        to_json(value)
    assert raised.value.failure.kind is Kind.CHAIN


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(_JSON)
def test_json_is_itself(value: Any) -> None:
    assert repr(to_json(value)) == repr(value)
