"""What comes in an answer's place, and what is odd in one, on every way to a provider of OpenAI's protocol."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from langchain_openai.chat_models.base import ChatOpenAI

from lcbatch.calls.failures import failure_of
from lcbatch.errors import Failure, Kind
from lcbatch.records import Answer, Request, Usage
from tests.models.test_fast_lane import Loopback, answer
from tests.models.test_received import by_every_way

_PYTHONS_WORDS = re.compile(r"NoneType|object has no|indices|validation error|subscriptable|iterable|'choices'")
_FUNCTION = {"name": "f", "arguments": "{}"}


def _said(**message: Any) -> dict[str, Any]:
    return answer(message=message)


_ODD: dict[str, tuple[Any, str]] = {
    "no choices": (answer(choices=...), "it has no choices"),
    "null choices": (answer(choices=None), "it has no choices"),
    "choices that are an object": (answer(choices={}), "its choices are an object"),
    "choices that are a number": (answer(choices=5), "its choices are a number"),
    "choices that are a text": (answer(choices="abc"), "its choices are a text"),
    "empty choices": (answer(choices=[]), "its list of choices is empty"),
    "a choice that is null": (answer(choices=[None]), "a choice in it is null"),
    "a message that is null": (answer(choice={"message": None}), "its message is null"),
    "content that is a number": (_said(content=5), "its content is a number"),
    "content that is an object": (_said(content={"a": 1}), "its content is an object"),
    "content that is a truth": (_said(content=True), "its content is true or false"),
    "parts that are none": (_said(content=[None]), "a part of its content"),
    "the user's words": (_said(role="user"), "is said by 'user'"),
    "a tool's words": (_said(role="tool"), "is said by 'tool'"),
    "a role that is none": (_said(role=["assistant"]), "is said by"),
    "a tool call that is null": (_said(content=None, tool_calls=[None]), "a tool call in it is none"),
    "a tool call without a function": (_said(content=None, tool_calls=[{"id": "a"}]), "a tool call in it is none"),
    "a function call that is a text": (_said(content=None, function_call="x"), "its function call is a text"),
    "an id that is none": (answer(choice={"message": {**_said()["choices"][0]["message"], "tool_calls": [
        {"id": 5, "type": "function", "function": _FUNCTION}]}}), "cannot read a part of it"),
    "an error that says nothing": (answer(error=5), "it is an error"),
    "a list": ([], "the answer is a list"),
    "a number": (5, "the answer is a number"),
    "a page": ("<html>no</html>", "the answer is a web page"),
}  # fmt: skip
"""By name: the body, and what is said of it past the SDK."""
_THE_SDKS_WORDS = {"an id that is none", "an error that says nothing"}


def _answers(body: Any) -> dict[str, Answer | Failure]:
    """What each way makes of a body."""
    request = Request([{"role": "user", "content": "hello"}])

    async def main() -> dict[str, Answer | Failure]:
        found: dict[str, Answer | Failure] = {}
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = "text/html" if isinstance(body, str) else "application/json"
        served = Loopback(headers={"content-type": kind}, body=content)
        async with asyncio.timeout(60), served.listening() as url, by_every_way(url) as asked:
            for name, ask in asked.items():
                try:
                    found[name] = await ask(request)
                except Exception as error:  # noqa: BLE001 - whatever it is, the verdict on it counts
                    found[name] = failure_of(error)
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("name", sorted(_ODD))
def test_what_has_a_wrong_shape_is_a_bad_body_in_our_words(name: str) -> None:
    body, said = _ODD[name]
    for way, failure in _answers(body).items():
        assert isinstance(failure, Failure), way
        assert (failure.kind, failure.maybe_paid) == (Kind.BAD_BODY, True), (way, failure)
        assert failure.page == (name == "a page"), way
        assert not _PYTHONS_WORDS.search(failure.message), (way, failure)
        assert said in failure.message or (way in {"stock", "own"} and name in _THE_SDKS_WORDS), (way, failure)


@pytest.mark.parametrize(
    "body",
    [
        answer(usage="many"),
        answer(usage=[1]),
        answer(usage={"prompt_tokens_details": "none", "completion_tokens_details": {"audio_tokens": "many"}}),
        answer(service_tier=["flex"]),
        answer(message={"role": None}),
        answer(message={"reasoning": "hm"}, choice={"finish_reason": ["stop"]}),
    ],
)
def test_a_paid_answer_is_kept_whatever_is_odd_beside_it(body: Any) -> None:
    for way, found in _answers(body).items():
        assert isinstance(found, Answer), (way, found)
        assert (found.text, found.usage) == ("hi", Usage()), way


def test_arguments_of_a_tool_call_may_come_as_an_object() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    for way, found in _answers(_said(content=None, tool_calls=[call])).items():
        assert isinstance(found, Answer), (way, found)
        assert found.message["tool_calls"][0]["args"] == {"a": 1}, way


def test_what_langchain_falls_over_by_a_client_of_the_users_own_is_a_bad_body() -> None:
    chat = ChatOpenAI(model="m", api_key=lambda: "x")
    with pytest.raises(AttributeError) as raised:
        chat._create_chat_result({"choices": [{"message": None}]})
    failure = failure_of(raised.value)
    assert (failure.kind, failure.maybe_paid) == (Kind.BAD_BODY, True)
    assert not _PYTHONS_WORDS.search(failure.message)
    assert failure_of(AttributeError("'NoneType' object has no attribute 'get'")).kind is Kind.UNKNOWN
