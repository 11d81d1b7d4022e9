"""A user's own ChatOpenAI over the fast lane: the same answers, no retries, overheard, closed, and the model itself untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import openai
import pytest
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import BaseModel, SecretStr

from lcbatch.models.openai import FastChatOpenAI
from lcbatch.models.quiet import QuietClients, overheard
from lcbatch.simulator.process import SimulatorProcess


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(rpm=6000, tpm=600_000) as running:
        yield running


class _Own(ChatOpenAI):
    """A subclass, which may do anything."""


class _Person(BaseModel):
    name: str


def _model(provider: SimulatorProcess, kind: type[ChatOpenAI] = ChatOpenAI, **options: Any) -> ChatOpenAI:
    return kind(model="sim", base_url=provider.base_url, api_key=SecretStr("sk-canary"), **options)


@pytest.mark.parametrize(
    ("options", "is_fast"),
    [
        ({}, True),
        ({"temperature": 0.1, "default_headers": {"X-A": "b"}, "streaming": True}, True),
        ({"timeout": 5.0}, False),
        ({"http_async_client": httpx2.AsyncClient()}, False),
        ({"openai_proxy": "http://127.0.0.1:9"}, False),
        ({"use_responses_api": True}, False),
        ({"kind": _Own}, False),
    ],
)
def test_which_models_have_a_fast_twin(provider: SimulatorProcess, options: dict[str, Any], is_fast: bool) -> None:  # noqa: FBT001 - a table
    async def run() -> bool:
        clients = QuietClients(4)
        try:
            return isinstance(clients.quiet(_model(provider, **options)), FastChatOpenAI)
        finally:
            await clients.aclose()

    assert asyncio.run(run()) is is_fast


def test_azure_s_has_none() -> None:
    model = AzureChatOpenAI(
        azure_endpoint="http://127.0.0.1:9", azure_deployment="d", api_version="1", api_key=SecretStr("x")
    )
    assert not isinstance(QuietClients(4).quiet(model), FastChatOpenAI)


def test_it_says_what_the_model_says(provider: SimulatorProcess) -> None:
    given: dict[str, Any] = {"temperature": 0.3, "seed": 5}
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    asked: list[tuple[str, Mapping[str, Any]]] = [
        ("hello", {}),
        ("hello", {"stop": ["x"]}),
        ("what time is it", {"tools": [tool]}),
        ("who", {"response_format": _Person}),
    ]

    async def run() -> None:
        clients, model = QuietClients(4), _model(provider, **given)
        client = httpx2.AsyncClient(trust_env=False)
        own = _model(provider, **given, http_async_client=client)
        try:
            for text, options in asked:
                stock: Any = await own.ainvoke(text, **options)
                for _ in range(2):
                    twin: Any = await clients.quiet(model).ainvoke(text, **options)
                    assert twin.content == stock.content
                    assert [call["args"] for call in twin.tool_calls] == [call["args"] for call in stock.tool_calls]
                    assert twin.usage_metadata == stock.usage_metadata
                    assert twin.response_metadata["model_name"] == stock.response_metadata["model_name"]
                    assert twin.additional_kwargs.get("parsed") == stock.additional_kwargs.get("parsed")
        finally:
            await client.aclose()
            await clients.aclose()

    asyncio.run(run())


def test_what_is_known_of_a_model_holds_for_as_long_as_it_is_the_same(provider: SimulatorProcess) -> None:
    clients, model = QuietClients(4), _model(provider, temperature=0.3, model_kwargs={"user": "a"})

    def head() -> bytes | None:
        twin = clients.quiet(model)
        assert isinstance(twin, FastChatOpenAI)
        return None if twin.frame is None else twin.frame.head

    heads = [head(), head(), head()]
    model.temperature = 0.7
    heads.append(head())
    model.model_kwargs["user"] = "b"
    heads.append(head())

    assert heads[0] is None, "it may be one that is built anew for every row"
    assert heads[1] == heads[2]
    assert [head and (b"0.3" in head, b"0.7" in head, b'"user":"b"' in head) for head in heads[1:]] == [
        (True, False, False),
        (True, False, False),
        (False, True, False),
        (False, True, True),
    ]


@pytest.mark.parametrize("options", [{}, {"response_format": _Person}], ids=["fast", "stock"])
def test_a_fault_is_not_retried_and_headers_are_heard(provider: SimulatorProcess, options: Mapping[str, Any]) -> None:
    heard: list[Mapping[str, str]] = []

    async def run() -> None:
        clients = QuietClients(4)
        twin = clients.quiet(_model(provider))

        async def ask(text: str) -> Any:
            return await twin.ainvoke(text, **options)

        asking, listen = overheard(ask)
        listen(heard.append)
        try:
            for _ in range(2):
                with pytest.raises(openai.InternalServerError):
                    await asking("[[fault:500:9]] again")
        finally:
            await clients.aclose()

    before = provider.stats()["requests"]
    asyncio.run(run())
    assert provider.stats()["requests"] - before == 2
    assert len(heard) == 2
    assert all("x-ratelimit-limit-requests" in headers for headers in heard)


def test_the_user_s_model_is_untouched_and_twins_share_connections(provider: SimulatorProcess) -> None:
    model = _model(provider)
    before = dict(model.__dict__)

    async def run() -> None:
        clients = QuietClients(4)
        try:
            twins = [clients.quiet(model) for _ in range(3)]
            for twin in twins:
                await twin.ainvoke("hello")
            assert len({id(twin._wire) for twin in twins if isinstance(twin, FastChatOpenAI)}) == 1
        finally:
            await clients.aclose()

    asyncio.run(run())
    assert {name: value for name, value in model.__dict__.items() if name in before} == before
    assert model.root_async_client.max_retries == 2
