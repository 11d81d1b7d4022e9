"""Models of the user's own making are asked without their retries, over connections that are closed, and are overheard."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

import openai
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr

from lcbatch.models.quiet import QuietClients, overheard
from lcbatch.simulator.process import SimulatorProcess


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(rpm=6000, tpm=600_000) as running:
        yield running


def _model(provider: SimulatorProcess, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="sim", base_url=provider.base_url, api_key=lambda: "none-needed", **options)


@asynccontextmanager
async def _clients() -> AsyncIterator[QuietClients]:
    clients = QuietClients(4)
    try:
        yield clients
    finally:
        await clients.aclose()


async def _say(model: Any) -> Any:
    return await model.ainvoke("hello")


def test_a_fault_is_not_retried_by_the_sdk(provider: SimulatorProcess) -> None:
    before = provider.stats()["requests"]

    async def run() -> None:
        async with _clients() as clients:
            with pytest.raises(openai.InternalServerError):
                await clients.quiet(_model(provider)).ainvoke("[[fault:500:1]] once")

    asyncio.run(run())
    assert provider.stats()["requests"] - before == 1


def test_the_user_s_model_is_not_touched_and_works_after_the_run(provider: SimulatorProcess) -> None:
    async def run() -> None:
        model = _model(provider, http_async_client=openai.DefaultAsyncHttpxClient())
        untouched = dict(model.__dict__)
        async with _clients() as clients:
            quiet = clients.quiet(model)
            assert quiet.root_async_client.max_retries == 0  # type: ignore[attr-defined]
            await _say(quiet)
        assert model.__dict__ == untouched
        assert model.root_async_client.max_retries == 2
        await _say(model)
        assert model.http_async_client is not None
        await model.http_async_client.aclose()

    asyncio.run(run())


def test_each_model_s_headers_are_told_to_who_listens_to_it_though_they_share_a_client(
    provider: SimulatorProcess,
) -> None:
    heard: dict[str, list[Mapping[str, str]]] = {"one": [], "other": []}

    async def run() -> None:
        async with _clients() as clients:
            first, second = (clients.quiet(_model(provider)) for _ in range(2))
            assert first.root_async_client._client is second.root_async_client._client  # type: ignore[attr-defined]
            asks = []
            for name, model, text in (("one", first, "hello"), ("other", second, "[[fault:500:1]] refused")):
                ask, listen = overheard(model.ainvoke)
                listen(heard[name].append)
                asks.append(ask(text))
            said = await asyncio.gather(*asks, first.ainvoke("nobody listens"), return_exceptions=True)
            assert isinstance(said[1], openai.InternalServerError)

    asyncio.run(run())
    for name, headers in heard.items():
        assert [one["x-ratelimit-limit-requests"] for one in headers] == ["6000"], name


def test_the_user_s_own_http_client_is_kept_overheard_and_left_as_it_was(provider: SimulatorProcess) -> None:
    heard: list[Mapping[str, str]] = []

    async def run() -> None:
        async with openai.DefaultAsyncHttpxClient() as own:
            models = [_model(provider, http_async_client=own) for _ in range(2)]
            async with _clients() as clients:
                for model in models:
                    quiet = clients.quiet(model)
                    assert quiet.root_async_client._client is own  # type: ignore[attr-defined]
                    ask, listen = overheard(quiet.ainvoke)
                    listen(heard.append)
                    await ask("hello")
            assert not own.is_closed
            assert own.event_hooks["response"] == []

    asyncio.run(run())
    assert len(heard) == 2


def test_a_quiet_client_lives_as_long_as_the_one_it_stands_for(provider: SimulatorProcess) -> None:
    async def run() -> None:
        async with _clients() as clients:
            model = _model(provider)
            first, again = clients.quiet(model), clients.quiet(model)
            assert first.root_async_client is again.root_async_client  # type: ignore[attr-defined]
            for _ in range(10):
                await _say(clients.quiet(_model(provider)))
            del model, first, again
            gc.collect()
            assert clients._quiet == {}

    asyncio.run(run())


class _OtherMake(BaseChatModel):
    """As Anthropic's: the SDK client is worked out once, on first use. Counts its calls in private."""

    base_url: str
    _calls: int = PrivateAttr(default=0)

    @property
    def _llm_type(self) -> str:
        return "other"

    @cached_property
    def _async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.base_url, api_key="none-needed")

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self._calls += 1
        content: Any = messages[-1].content
        said = await self._async_client.chat.completions.create(
            model="sim", messages=[{"role": "user", "content": content}]
        )
        message = AIMessage(content=str(said.choices[0].message.content))
        return ChatResult(generations=[ChatGeneration(message=message)])


def test_a_model_of_anthropic_s_make_is_quieted_and_keeps_its_private_state(provider: SimulatorProcess) -> None:
    heard: list[Mapping[str, str]] = []
    before = provider.stats()["requests"]

    async def run() -> None:
        model = _OtherMake(base_url=provider.base_url)
        async with _clients() as clients:
            ask, listen = overheard(clients.quiet(model).ainvoke)
            listen(heard.append)
            with pytest.raises(openai.InternalServerError):
                await ask("[[fault:500:1]] anthropic")
            await ask("[[fault:500:1]] anthropic")
        assert model._calls == 2
        assert model._async_client.max_retries == 2
        await model._async_client.close()

    asyncio.run(run())
    assert provider.stats()["requests"] - before == 2
    assert len(heard) == 2


def test_a_model_of_an_unknown_make_is_asked_itself() -> None:
    from langchain_core.language_models import FakeListChatModel  # noqa: PLC0415

    model = FakeListChatModel(responses=["said"])
    assert QuietClients(4).quiet(model) is model
