"""Models inside a chain are hooked for a run, in its rows only, and are put back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import SecretStr

from lcbatch.calls.governed import governed
from lcbatch.errors import CallFailed, ConfigError, Failure, Kind
from lcbatch.records import RowScope, current_row
from lcbatch.testing import make_row
from tests.calls.governed_fakes import Model, Stacks, astream, in_a_row

_HOOKED = {
    BaseChatModel: (
        "_agenerate_with_cache", "_generate_with_cache", "astream", "stream", "_aiter_v2_events", "_iter_v2_events",
    ),
    BaseLLM: ("agenerate", "generate", "astream", "stream"),
}  # fmt: skip


def _state() -> dict[str, Any]:
    return {f"{owner.__name__}.{name}": owner.__dict__[name] for owner, names in _HOOKED.items() for name in names}


# --- what is put back, and what is left alone


def test_all_is_as_it_was_after_a_run_even_one_that_failed() -> None:
    before, stacks = _state(), Stacks()

    async def fails() -> None:
        assert all(_state()[name] is not whole for name, whole in before.items())
        raise ValueError("the run broke")

    with pytest.raises(ValueError, match="the run broke"):
        in_a_row(stacks, fails)
    assert _state() == before


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in _HOOKED.items() for name in names], ids=str
)
def test_a_langchain_with_other_places_is_refused_and_left_as_it_is(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name)
    before = {key: value for cls in _HOOKED for key, value in cls.__dict__.items()}
    stacks = Stacks()
    with pytest.raises(ConfigError, match=name):
        in_a_row(stacks, lambda: Model().ainvoke("hello"))
    assert {key: value for cls in _HOOKED for key, value in cls.__dict__.items()} == before


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_runs_that_overlap_keep_to_their_own_rows_and_the_last_takes_the_hooks_away(first_to_end: int) -> None:
    before, stacks, models = _state(), [Stacks(), Stacks()], [Model(), Model()]

    async def run(number: int, begun: asyncio.Event, end: asyncio.Event) -> None:
        with governed(stacks[number].of, tell=stacks[number].told.append):
            current_row.set(RowScope(make_row(0), 0.0))
            await models[number].ainvoke("while both run")
            begun.set()
            await end.wait()
            await models[number].ainvoke("at the end")

    async def both() -> None:
        begun, ends = [asyncio.Event(), asyncio.Event()], [asyncio.Event(), asyncio.Event()]
        tasks = [asyncio.create_task(run(number, begun[number], ends[number])) for number in (0, 1)]
        for event in begun:
            await event.wait()
        for number in (first_to_end, 1 - first_to_end):
            ends[number].set()
            await tasks[number]

    asyncio.run(both())
    assert _state() == before
    for number in (0, 1):
        assert len(stacks[number].calls) == 2
        assert all(request.native.model is models[number] for request in stacks[number].calls)
        assert stacks[number].told == []


def test_outside_of_a_row_a_model_streams_as_ever() -> None:
    stacks, model = Stacks(), Model()

    async def run() -> list[str]:
        with governed(stacks.of, tell=stacks.told.append):
            return [str(chunk.text) async for chunk in model.astream("hello")]

    assert asyncio.run(run()) == [*"model?", ""]
    assert model.asked == ["stream"]
    assert stacks.calls == []


def test_a_model_bears_no_trace_of_its_calls() -> None:
    stacks, model = Stacks(), Model(streaming=True)
    _ = model._serialized  # which LangChain keeps on it
    before = dict(model.__dict__)

    async def chain() -> None:
        await model.ainvoke("whole")
        [chunk async for chunk in model.astream("pieces")]

    in_a_row(stacks, chain)
    assert model.__dict__ == before
    assert model.streaming
    assert model.asked == ["whole", "whole"]


# --- streaming


async def _stream(model: Model) -> list[Any]:
    return await asyncio.to_thread(lambda: list(model.stream("hello")))


@pytest.mark.parametrize("way", [astream, _stream])
def test_a_stream_is_one_chunk_the_whole_reply(way: Callable[[Model], Awaitable[list[Any]]]) -> None:
    stacks, model = Stacks(), Model()
    (chunk,) = in_a_row(stacks, lambda: way(model))
    assert isinstance(chunk, AIMessageChunk)
    assert (chunk.content, chunk.chunk_position) == ("model!", "last")
    assert chunk.usage_metadata is not None
    assert model.asked == ["whole"]
    assert len(stacks.calls) == 1
    assert stacks.told == []


class Listener(AsyncCallbackHandler):
    """Keeps what a tracer would see."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    async def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.seen.append(("start", None))

    async def on_llm_new_token(self, token: Any, **__: Any) -> None:
        self.seen.append(("token", token))

    async def on_llm_end(self, response: Any, **__: Any) -> None:
        self.seen.append(("end", response.generations[0][0].text))


def test_callbacks_see_one_start_one_token_and_one_end() -> None:
    stacks, model, listener = Stacks(), Model(streaming=True), Listener()
    said = in_a_row(stacks, lambda: model.ainvoke("hello", config={"callbacks": [listener]}))
    assert listener.seen == [("start", None), ("token", "model!"), ("end", "model!")]
    assert said.id.startswith("lc_run-")


def test_options_of_streaming_do_not_reach_a_call_for_a_whole_reply_nor_its_identity() -> None:
    stacks, model = Stacks(), Model()
    bound = model.bind(stream=True, stream_usage=True, stream_options={"include_usage": True}, seed=7)

    async def chain() -> None:
        await bound.ainvoke("hello")
        await model.bind(seed=7).ainvoke("hello")

    in_a_row(stacks, chain)
    assert model.asked == ["whole{'seed': 7}"] * 2
    assert stacks.calls[0].params == stacks.calls[1].params
    assert stacks.calls[0].messages == stacks.calls[1].messages


# --- stacks


def test_models_of_one_account_share_a_stack_and_others_do_not() -> None:
    stacks = Stacks()

    async def chain() -> None:
        for _ in range(3):
            await Model().ainvoke("built for every row")
        await Model(name_="other").ainvoke("another model")
        await Model(key=SecretStr("other")).ainvoke("another key")

    in_a_row(stacks, chain)
    assert len(stacks.calls) == 5
    assert len(stacks.built) == 3


def test_what_decides_the_reply_is_in_the_request_and_nothing_made_up_by_langchain() -> None:
    stacks, model = Stacks(), Model()
    history: list[Any] = [
        ("user", "one"),
        AIMessage(content=[{"type": "text", "text": "two", "id": "lc_4f1c"}], id="lc_run--1"),
        ("user", [{"type": "text", "text": "three", "id": "users_own"}]),
    ]
    in_a_row(stacks, lambda: model.bind(temperature=0.5).ainvoke(history))
    (request,) = stacks.calls
    assert request.params == {"provider": "fake", "model": "model", "temperature": 0.5}
    assert [message["content"] for message in request.messages] == [
        "one",
        [{"type": "text", "text": "two"}],
        [{"type": "text", "text": "three", "id": "users_own"}],
    ]


class Outer(Model):
    """A chat model that asks another one."""

    inner: Model

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=await self.inner.ainvoke(messages))])


def test_a_model_within_a_model_is_one_call() -> None:
    stacks, inner = Stacks(), Model(name_="inner")
    said = in_a_row(stacks, lambda: Outer(inner=inner).ainvoke("hello"))
    assert said.content == "inner!"
    assert len(stacks.calls) == 1
    assert inner.asked == ["whole"]
    assert stacks.told == []


# --- failures


def _bad_request() -> openai.BadRequestError:
    response = httpx2.Response(400, request=httpx2.Request("POST", "http://127.0.0.1/"))
    return openai.BadRequestError("no such thing", response=response, body={"message": "no such thing"})


def _failed(kind: Kind, cause: Exception, **more: Any) -> CallFailed:
    error = CallFailed(Failure(kind, "said", **more), attempts=3)
    error.__cause__ = CallFailed(error.failure)
    error.__cause__.__cause__ = cause
    return error


def test_a_chain_can_catch_what_its_provider_raises() -> None:
    cause = _bad_request()
    stacks, model = Stacks(lambda _: _failed(Kind.INVALID_REQUEST, cause)), Model()
    scope: list[RowScope] = []

    async def chain() -> None:
        scope.append(current_row.get())
        with pytest.raises(openai.BadRequestError) as raised:
            await model.ainvoke("hello")
        assert raised.value is cause

    in_a_row(stacks, chain)
    assert scope[0].account.attempts == 3


@pytest.mark.parametrize(
    "error",
    [
        _failed(Kind.INVALID_REQUEST, _bad_request(), outage=True),
        _failed(Kind.QUOTA, _bad_request(), budget=True),
        _failed(Kind.SERVER, _bad_request()),
        _failed(Kind.TIMEOUT, TimeoutError()),
        CallFailed(Failure(Kind.INVALID_REQUEST, "too large for any minute")),
    ],
)
def test_a_verdict_that_the_provider_s_exception_does_not_carry_goes_through_the_chain(error: CallFailed) -> None:
    stacks, model = Stacks(lambda _: error), Model()
    with pytest.raises(CallFailed) as raised:
        in_a_row(stacks, lambda: model.ainvoke("hello"))
    assert raised.value is error
