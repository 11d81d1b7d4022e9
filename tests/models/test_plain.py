"""The shortcut for plain text against LangChain's own way over the same model: the same body sent, the same answer or error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, SecretStr

from lcbatch.calls.asking import invoking
from lcbatch.messages import answer_of, message_of
from lcbatch.models.lane import Lane
from lcbatch.models.openai import FastChatOpenAI
from lcbatch.models.wire import Response, Wire
from lcbatch.ports import Ask
from lcbatch.records import Answer, Request


class _CannedWire(Wire):
    """Sends nothing; says what it would have sent, and gives the body that a test put there."""

    def __init__(self, body: Any) -> None:
        super().__init__("http://127.0.0.1:9/v1/chat/completions", {}, connections=1)
        self.sent: list[tuple[Any, Mapping[str, str]]] = []
        self._body = orjson.dumps(body)

    async def post(self, data: bytes, headers: Mapping[str, str]) -> Response:
        self.sent.append((orjson.loads(data), dict(headers)))
        return Response(200, {"Content-Type": "text/plain"}, self._body)


def _chat(model: str = "sim", **arguments: Any) -> FastChatOpenAI:
    return FastChatOpenAI(model=model, base_url="http://127.0.0.1:9/v1", api_key=SecretStr("x"), **arguments)


def _completion(message: Any, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": more.pop("finish_reason", "stop"), "logprobs": None}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "sim-1",
        "choices": [choice],
        "usage": usage,
        **more,
    }


async def _outcome(ask: Ask, request: Request) -> Any:
    try:
        answer = await ask(request)
    except Exception as error:  # noqa: BLE001 - whatever the long way raises is what the short one has to raise
        return type(error), str(error)
    return answer


def _both(chat: FastChatOpenAI, body: Any, request: Request) -> tuple[Any, Any, _CannedWire]:
    """What the long way and the short one make of a body, and what was sent for it."""
    wire = _CannedWire(body)

    async def main() -> tuple[Any, Any]:
        lane = Lane(chat.outline(None), lambda: chat, wire)
        long = invoking(lane.chat)
        return await _outcome(long, request), await _outcome(lane.shortcut(long), request)

    return *asyncio.run(main()), wire


def _equal(long: Any, short: Any) -> None:
    if not isinstance(long, Answer):
        assert short == long
        return
    assert isinstance(short, Answer)
    assert (short.text, short.model, short.finish_reason, short.usage) == (
        long.text,
        long.model,
        long.finish_reason,
        long.usage,
    )
    assert short.message["content"] == long.message["content"]
    for name in ("tool_calls", "invalid_tool_calls"):
        assert short.message.get(name) == long.message.get(name)
    refusal = [one.message.get("additional_kwargs", {}).get("refusal") for one in (short, long)]
    assert refusal[0] == refusal[1]
    kept = [one.message["response_metadata"] for one in (short, long)]
    for name in ("id", "model_name", "finish_reason", "logprobs", "service_tier"):
        assert kept[0].get(name) == kept[1].get(name), name


_PLAIN = {"role": "assistant", "content": "yes"}
_TOOL = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
_BAD_TOOL = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}

_BODIES: dict[str, Any] = {
    "plain": _completion(_PLAIN),
    "empty": _completion({"role": "assistant", "content": ""}),
    "null": _completion({"role": "assistant", "content": None}),
    "no content": _completion({"role": "assistant"}),
    "refused": _completion({"role": "assistant", "content": None, "refusal": "I cannot"}),
    "refused with text": _completion({**_PLAIN, "refusal": "I cannot"}),
    "filtered": _completion(_PLAIN, finish_reason="content_filter"),
    "cut": _completion(_PLAIN, finish_reason="length"),
    "no finish reason": _completion(_PLAIN, finish_reason=None),
    "tools": _completion({"role": "assistant", "content": None, "tool_calls": [_TOOL]}),
    "tools and text": _completion({**_PLAIN, "tool_calls": [_TOOL, _BAD_TOOL]}),
    "no tools": _completion({**_PLAIN, "tool_calls": [], "function_call": None, "annotations": [], "audio": None}),
    "function": _completion({**_PLAIN, "function_call": {"name": "f", "arguments": "{}"}}),
    "parts": _completion(
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ),
    "reasoning": _completion({**_PLAIN, "reasoning_content": "hm"}),
    "role of a user": _completion({"role": "user", "content": "yes"}),
    "role of a stranger": _completion({"role": "oracle", "content": "yes"}),
    "annotated": _completion({**_PLAIN, "annotations": [{"type": "url_citation"}]}),
    "no usage": _completion(_PLAIN, usage=None),
    "usage of details": _completion(
        _PLAIN,
        usage={
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": None,
        },
    ),
    "usage of nulls": _completion(
        _PLAIN, usage={"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    ),
    "service tier": _completion(_PLAIN, service_tier="flex", system_fingerprint="fp"),
    "no model": {**_completion(_PLAIN), "model": None},
    "no id": {name: value for name, value in _completion(_PLAIN).items() if name != "id"},
    "logprobs": _completion(_PLAIN)
    | {"choices": [{"message": _PLAIN, "finish_reason": "stop", "logprobs": {"content": []}}]},
    "two choices": _completion(_PLAIN) | {"choices": [{"message": _PLAIN}, {"message": {**_PLAIN, "content": "no"}}]},
    "no choices": _completion(_PLAIN) | {"choices": []},
    "null choices": _completion(_PLAIN) | {"choices": None},
    "no choice's message": _completion(_PLAIN) | {"choices": [{}]},
    "choices of text": _completion(_PLAIN) | {"choices": ["yes"]},
    "an error": {"error": {"message": "broken", "code": 429}},
    "an error of text": {"error": "broken"},
    "an error and an answer": _completion(_PLAIN, error={"message": "broken"}),
    "text": "<html>",
    "a list": [],
    "nothing": None,
    "surrogates": _completion({"role": "assistant", "content": "\\ud800"}),
}


@pytest.mark.parametrize("name", sorted(_BODIES))
def test_the_same_answer_or_error(name: str) -> None:
    long, short, _ = _both(_chat(), _BODIES[name], Request([{"role": "user", "content": "hello"}]))
    _equal(long, short)


def _straight(chat: FastChatOpenAI, body: Any, messages: list[BaseMessage]) -> tuple[Any, Any, _CannedWire]:
    """What LangChain's own step and the way past it make of a body, and what was sent for it."""
    wire = _CannedWire(body)
    chat.over(wire)
    chat.frame = chat.framed()

    async def long(_: Request) -> Answer:
        return answer_of(message_of(await chat._agenerate(messages)))

    async def short(_: Request) -> Answer:
        answer = chat.plainly(messages)
        return await answer if answer is not None else await long(_)

    async def main() -> tuple[Any, Any]:
        asked = Request([])
        return await _outcome(long, asked), await _outcome(short, asked)

    return *asyncio.run(main()), wire


@pytest.mark.parametrize("name", sorted(_BODIES))
def test_the_same_message_for_a_user_s_chain(name: str) -> None:
    long, short, wire = _straight(_chat(), _BODIES[name], [SystemMessage("be brief"), HumanMessage("hello")])

    assert long == short
    assert isinstance(long, tuple) or long.native == short.native
    assert wire.sent[0] == wire.sent[1]


_SAID: list[Callable[[str], BaseMessage]] = [
    SystemMessage,
    HumanMessage,
    AIMessage,
    lambda text: HumanMessage(text, name="ada"),
    lambda text: HumanMessage([{"type": "text", "text": text}]),
    lambda text: SystemMessage(text, additional_kwargs={"__openai_role__": "developer"}),
    lambda text: AIMessage(text, tool_calls=[{"name": "f", "args": {"x": text}, "id": "t"}]),
    lambda text: AIMessage(text, response_metadata={"output_version": "v1"}),
    lambda text: ToolMessage(text, tool_call_id="t"),
]


@pytest.mark.parametrize("arguments", ["extra", "form", "headers", "none", "usual"])
@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.tuples(st.sampled_from(_SAID), st.text(max_size=30)), min_size=1, max_size=4))
def test_the_same_body_is_sent_for_a_user_s_chain(
    arguments: str, said: list[tuple[Callable[[str], BaseMessage], str]]
) -> None:
    messages = [make(text) for make, text in said]
    long, short, wire = _straight(_chat(**_ARGUMENTS[arguments]), _BODIES["plain"], messages)

    assert long == short
    assert len(wire.sent) == 2
    assert wire.sent[0] == wire.sent[1]


def test_a_model_that_streams_is_asked_by_langchain() -> None:
    chat = _chat(streaming=True)
    chat.frame = chat.framed()

    assert chat.plainly([HumanMessage("hello")]) is None


def test_a_message_without_a_role_is_the_assistants() -> None:
    long, short, _ = _both(_chat(), _completion({"content": "yes"}), Request([{"role": "user", "content": "hello"}]))
    assert (long.text, short.text) == ("yes", "yes")


_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=30)},
        optional={"name": st.sampled_from(["ada", "bob"])},
    ),
    min_size=1,
    max_size=4,
)
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "none": {},
    "usual": {"temperature": 0.2, "max_tokens": 9, "seed": 3},
    "reasoning": {"reasoning_effort": "low"},
    "extra": {"extra_body": {"top_k": 3}, "model_kwargs": {"user": "u"}, "stop_sequences": ["END"]},
    "headers": {"model_kwargs": {"extra_headers": {"X-A": "b"}}},
    "form": {"model_kwargs": {"response_format": {"type": "json_object"}}},
}


@pytest.mark.parametrize("arguments", sorted(_ARGUMENTS))
@settings(max_examples=40, deadline=None)
@given(messages=_MESSAGES)
def test_the_same_body_is_sent(arguments: str, messages: list[dict[str, str]]) -> None:
    long, short, wire = _both(_chat(**_ARGUMENTS[arguments]), _BODIES["plain"], Request(list(messages)))
    _equal(long, short)
    assert len(wire.sent) == 2
    assert wire.sent[0] == wire.sent[1]


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-mini", "o1", "o3-mini"])
def test_roles_are_what_the_model_wants_them_to_be(model: str) -> None:
    asked = Request([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    long, short, wire = _both(_chat(model), _BODIES["plain"], asked)
    _equal(long, short)
    assert wire.sent[0] == wire.sent[1]


class _Schema(BaseModel):
    name: str


@pytest.mark.parametrize(
    "request_",
    [
        Request([{"role": "human", "content": "hello"}]),
        Request([{"role": "user", "content": [{"type": "text", "text": "hello"}]}]),
        Request([{"role": "user", "content": "hello"}], {"max_tokens": 3}),
        Request([{"role": "tool", "content": "hello", "tool_call_id": "t"}]),
    ],
)
def test_what_is_not_plain_goes_the_long_way(request_: Request) -> None:
    long, short, wire = _both(_chat(), _BODIES["plain"], request_)
    _equal(long, short)
    assert isinstance(short, Answer)
    assert short.native is not None
    assert wire.sent[0] == wire.sent[1]
