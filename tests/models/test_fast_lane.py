"""The fast lane against the stock ChatOpenAI over the same sockets: the same message, or the same exception."""

from __future__ import annotations

import asyncio
import gzip
import json
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from lcbatch.calls.failures import failure_of
from lcbatch.errors import Failure, Kind
from lcbatch.models.openai import FastChatOpenAI
from lcbatch.simulator.process import SimulatorProcess

_CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@asynccontextmanager
async def lanes(base_url: str, **arguments: Any) -> AsyncIterator[tuple[ChatOpenAI, FastChatOpenAI]]:
    """The stock class and ours, with the same arguments."""
    given = {"model": "sim", "base_url": base_url, "api_key": SecretStr("sk-canary"), "max_retries": 0, **arguments}
    fast = FastChatOpenAI(**given)
    async with httpx2.AsyncClient(trust_env=False) as client:
        try:
            yield ChatOpenAI(**given, http_async_client=client), fast
        finally:
            await fast.aclose()


async def outcome(chat: ChatOpenAI, asked: Any, **parameters: Any) -> Mapping[str, Any]:
    """What came of one call, as values that two lanes can be compared by."""
    try:
        message = await chat.ainvoke(asked, **parameters)
    except Exception as error:  # noqa: BLE001 - whatever the stock class raises is what ours has to raise
        response = getattr(error, "response", None)
        return {
            "types": [base.__name__ for base in type(error).__mro__],
            "said": str(error).partition("Full response keys")[0],  # the SDK adds keys of its own
            "status": getattr(error, "status_code", None),
            "body": getattr(error, "body", None),
            "retry-after": response.headers.get("retry-after") if hasattr(error, "status_code") and response else None,
        }
    return message.model_dump(exclude={"id"})


def without_number(seen: Mapping[str, Any]) -> Mapping[str, Any]:
    """The simulator numbers its billed calls; a difference in that is none."""
    text = json.dumps(seen, default=str)
    number = str(seen.get("response_metadata", {}).get("id", "chatcmpl-0")).removeprefix("chatcmpl-")
    plain: Mapping[str, Any] = json.loads(text.replace(f"chatcmpl-{number}", "ID").replace(f"call_{number}_", "CALL_"))
    plain.get("response_metadata", {}).pop("created", None)
    return plain


async def both(base_url: str, asked: Any, arguments: Mapping[str, Any], **parameters: Any) -> list[Mapping[str, Any]]:
    """By the stock class and by ours, whose first request goes by another way than those after it."""
    async with lanes(base_url, **arguments) as (stock, fast):
        long, first, later = [without_number(await outcome(chat, asked, **parameters)) for chat in (stock, fast, fast)]
    assert first == later
    return [long, later]


class Person(BaseModel):
    name: str


ASKED = [
    pytest.param("hello", {}, {}, id="plain"),
    pytest.param(
        [SystemMessage("be brief"), HumanMessage("héllo \U0001f600 \x00")], {"temperature": 0.2}, {}, id="system"
    ),
    pytest.param("what time is it", {}, {"tools": [_CLOCK]}, id="tools"),
    pytest.param(
        "what time is it",
        {},
        {"tools": [_CLOCK], "tool_choice": {"type": "function", "function": {"name": "clock"}}},
        id="forced tool",
    ),
    pytest.param("hello", {}, {"response_format": {"type": "json_object"}}, id="json mode"),
    pytest.param("hello", {}, {"response_format": Person}, id="schema"),
    pytest.param("hello", {"max_tokens": 3}, {}, id="length"),
    pytest.param("hello", {"n": 2}, {}, id="n"),
    pytest.param(
        "hello", {}, {"stop": ["END"], "extra_body": {"top_k": 3}, "extra_headers": {"X-A": "1"}}, id="extras"
    ),
    *(
        pytest.param(f"[[fault:{fault}]]", {}, {}, id=fault)
        for fault in ("refusal", "filter", "length", "empty", "surrogate", "nul")
    ),
]


@pytest.mark.parametrize(("asked", "arguments", "parameters"), ASKED)
def test_answers_are_those_of_the_stock_class(
    simulator: SimulatorProcess, asked: Any, arguments: Mapping[str, Any], parameters: Mapping[str, Any]
) -> None:
    stock, fast = asyncio.run(both(simulator.base_url, asked, arguments, **parameters))

    assert "response_metadata" in stock, stock
    assert fast == stock


REFUSED = ["500", "503", "503-slow-down", "529", "429", "quota", "auth", "forbidden", "notfound", "context"]
SPOILT = ["html", "errbody", "cut", "badlength", "badjson", "reset"]


@pytest.mark.parametrize("fault", REFUSED + SPOILT)
def test_errors_are_those_of_the_stock_class(simulator: SimulatorProcess, fault: str) -> None:
    stock, fast = asyncio.run(both(simulator.base_url, f"[[fault:{fault}]]", {}))

    assert "types" in stock, stock
    if fault == "badjson":  # orjson words it differently, and is a subclass
        assert "JSONDecodeError" in stock["types"]
        assert set(stock["types"]) <= set(fast["types"])
        return
    if fault == "html":  # said in our own words
        assert "WebPage" in fast["types"]
        return
    assert fast == stock


@pytest.mark.parametrize("fault", ["cut", "badlength"])
def test_an_answer_that_ends_too_early_is_truncated_and_not_refused(simulator: SimulatorProcess, fault: str) -> None:
    async def ask() -> None:
        async with lanes(simulator.base_url) as (_, fast):
            await fast.ainvoke(f"[[fault:{fault}]]")

    with pytest.raises(Exception) as raised:  # noqa: PT011 - judged by its verdict
        asyncio.run(ask())
    failure = failure_of(raised.value)
    assert (failure.kind, failure.maybe_paid) == (Kind.TRUNCATED, True)


def answer(**changes: Any) -> dict[str, Any]:
    """A chat.completion with `changes`; `message` and `choice` change those parts. A value of ... takes a key away."""
    message = {"role": "assistant", "content": "hi", **changes.pop("message", {})}
    choice = {"index": 0, "finish_reason": "stop", "message": message, **changes.pop("choice", {})}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **changes}
    return {name: value for name, value in body.items() if value is not ...}


TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1'}}
LOGPROBS = {"content": [{"token": "hi", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
BODIES = {
    "least": answer(id=..., model=..., object=..., created=...),
    "ollama": answer(system_fingerprint="fp_ollama", usage=USAGE),
    "openrouter": answer(provider="X", usage={**USAGE, "cost": 0.1, "prompt_tokens_details": {"cached_tokens": 3}}),
    "reasoning": answer(
        usage={**USAGE, "completion_tokens_details": {"reasoning_tokens": 1}},
        service_tier="flex",
        message={"reasoning_content": "hm", "annotations": []},
    ),
    "null usage": answer(usage=None, choice={"logprobs": None}),
    "null details": answer(usage={**USAGE, "prompt_tokens_details": None}),
    "logprobs": answer(choice={"logprobs": LOGPROBS}),
    "broken tool call": answer(
        message={"content": None, "tool_calls": [TOOL_CALL]}, choice={"finish_reason": "tool_calls"}
    ),
    "function call": answer(message={"content": None, "function_call": {"name": "f", "arguments": "{}"}}),
    "refusal": answer(message={"content": None, "refusal": "I cannot"}),
    "content parts": answer(message={"content": [{"type": "text", "text": "hi"}]}),
    "two choices": answer(choices=[answer()["choices"][0], answer(message={"refusal": "no"})["choices"][0]]),
    "finish error": answer(choice={"finish_reason": "error", "error": {"code": 502, "message": "upstream"}}),
    "no choices": answer(choices=...),
    "null choices": answer(choices=None),
    "empty choices": answer(choices=[]),
    "error object": {"error": {"message": "upstream is busy", "code": 429}},
    "list": [1, 2],
    "number": 5,
    "null": None,
}


@dataclass
class Loopback:
    """A server that answers every POST with the same bytes, and keeps what it was sent."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.heads.append(head)
        length = next(line for line in head.splitlines() if line.startswith("content-length:"))
        self.bodies.append(await reader.readexactly(int(length.partition(":")[2])))
        headers = {"content-type": "application/json", "connection": "close", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"HTTP/1.1 {self.status} X\r\n{lines}content-length: {len(self.body)}\r\n\r\n".encode() + self.body
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def answers(self) -> list[Mapping[str, Any]]:
        """What each lane makes of it."""

        async def ask() -> list[Mapping[str, Any]]:
            async with self.listening() as base_url, lanes(base_url) as (stock, fast):
                return [await outcome(stock, "hello"), await outcome(fast, "hello")]

        return asyncio.run(ask())


@pytest.mark.parametrize("name", BODIES)
def test_odd_bodies_are_read_as_the_stock_class_reads_them(name: str) -> None:
    stock, fast = Loopback(body=json.dumps(BODIES[name]).encode()).answers()

    if "UnreadableAnswer" in fast.get("types", ()):
        assert "types" in stock, "what the stock class reads is read"
    else:
        assert fast == stock


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
@pytest.mark.parametrize(
    "body",
    [b'{"error": {"message": "no", "code": "c", "type": "t"}}', b"<html>no</html>", b"", b'{"detail": "Not Found"}'],
    ids=["error", "html", "empty", "detail"],
)
def test_refusals_are_raised_as_the_stock_class_raises_them(status: int, body: bytes) -> None:
    stock, fast = Loopback(status, {"retry-after": "7"}, body).answers()

    assert stock["status"] == status
    assert fast == stock


def test_a_packed_refusal_keeps_its_status_and_body() -> None:
    packed = gzip.compress(b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}')

    stock, fast = Loopback(429, {"content-encoding": "gzip"}, packed).answers()

    assert fast["status"] == 429
    assert fast == stock


def test_json_under_a_wrong_content_type_is_understood() -> None:
    _, fast = Loopback(headers={"content-type": "text/plain"}, body=json.dumps(answer()).encode()).answers()

    assert fast["content"] == "hi"


def test_an_error_of_mere_text_is_known_as_the_provider_s() -> None:
    async def ask() -> Failure:
        async with Loopback(body=b'{"error": "it broke"}').listening() as base_url, lanes(base_url) as (_, fast):
            with pytest.raises(ValueError, match="it broke") as raised:
                await fast.ainvoke("hello")
            return failure_of(raised.value)

    assert asyncio.run(ask()) == Failure(Kind.BAD_BODY, "it broke", maybe_paid=True)


def test_what_the_sdk_cannot_send_is_escaped() -> None:
    loopback = Loopback(body=json.dumps(answer()).encode())

    async def ask() -> AIMessage:
        async with loopback.listening() as base_url, lanes(base_url) as (_, fast):
            return await fast.ainvoke("a lone \ud800 surrogate", extra_body={"id": 2**70})

    assert asyncio.run(ask()).content == "hi"
    sent = json.loads(loopback.bodies[0])
    assert sent["messages"][0]["content"] == "a lone \ud800 surrogate"
    assert sent["id"] == 2**70


def test_both_lanes_send_the_same_request() -> None:
    loopback = Loopback(body=json.dumps(answer()).encode())

    loopback.answers()

    stock, fast = (json.loads(body) for body in loopback.bodies)
    assert fast == stock
    assert all("authorization: bearer sk-canary" in head for head in loopback.heads)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_with_the_key(status: int) -> None:
    elsewhere = Loopback(body=json.dumps(answer()).encode())

    async def ask() -> Mapping[str, Any]:
        async with elsewhere.listening() as target:
            here = Loopback(status, {"location": target + "/chat/completions"})
            async with here.listening() as base_url, lanes(base_url) as (_, fast):
                return await outcome(fast, "hello")

    assert asyncio.run(ask())["status"] == status
    assert elsewhere.heads == []


def test_nobody_listens_is_the_stock_class_connection_error() -> None:
    stock, fast = asyncio.run(both("http://127.0.0.1:9/v1", "hello", {}))

    assert "OpenAIConnectionError" in stock["types"]
    assert fast == stock


def test_closing_twice_leaves_nothing_open(simulator: SimulatorProcess) -> None:
    async def ask() -> None:
        fast = FastChatOpenAI(model="sim", base_url=simulator.base_url, api_key=SecretStr("k"))
        await fast.ainvoke("hello")
        await fast.aclose()
        await fast.aclose()

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        asyncio.run(ask())


def test_the_stock_way_is_taken_for_what_the_fast_lane_does_not_cover(simulator: SimulatorProcess) -> None:
    async def wire_of(**arguments: Any) -> object:
        async with httpx2.AsyncClient(trust_env=False) as client:
            fast = FastChatOpenAI(
                model="sim", base_url=simulator.base_url, api_key=SecretStr("k"), http_async_client=client, **arguments
            )
            await fast.ainvoke("hello")
            return fast._wire

    assert asyncio.run(wire_of()) is None
