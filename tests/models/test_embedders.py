"""Embedding models: the fast lane gives what LangChain's own class gives, and every other provider is asked through LangChain."""

from __future__ import annotations

import asyncio
import re
import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from aiohttp import web
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from lcbatch.calls.failures import failure_of
from lcbatch.errors import CallFailed, ConfigError, Kind, UsageError
from lcbatch.job import ModelOptions
from lcbatch.models import LoadedModel
from lcbatch.models.embedders import embedding, load_embedder
from lcbatch.models.received import UnreadableAnswer
from lcbatch.records import Answer, Request, Usage
from lcbatch.simulator.process import SimulatorProcess
from lcbatch.vectors import packed, unpacked

_TEXTS = ["one", "two words", "Zwölf Boxkämpfer", "日本語", "two\nlines"]


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(embedding_dimensions=32) as running:
        yield running


def load(base_url: str | None = None, model: str = "openai:sim-embedding", **options: Any) -> LoadedModel:
    given = ModelOptions(model=model, base_url=base_url, **options)
    return load_embedder(given, env={"OPENAI_API_KEY": "sk-canary"}, connections=4)


async def asked(model: LoadedModel, *texts: str) -> Answer:
    assert model.ask is not None
    try:
        return await model.ask(Request(list(texts)))
    finally:
        await model.aclose()


def vectors_of(answer: Answer) -> list[list[float]]:
    return [[float(number) for number in unpacked(vector)] for vector in answer.message["vectors"]]


async def stock(base_url: str, *texts: str, **arguments: Any) -> list[list[float]]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        embeddings = OpenAIEmbeddings(
            model="sim-embedding",
            base_url=base_url,
            api_key=SecretStr("sk-canary"),
            max_retries=0,
            check_embedding_ctx_length=False,
            http_async_client=client,
            **arguments,
        )
        return await embeddings.aembed_documents(list(texts))


@pytest.mark.parametrize("arguments", [{}, {"dimensions": 7}])
def test_the_vectors_are_those_of_langchain(simulator: SimulatorProcess, arguments: dict[str, Any]) -> None:
    answer = asyncio.run(asked(load(simulator.base_url, **arguments), *_TEXTS))
    assert vectors_of(answer) == asyncio.run(stock(simulator.base_url, *_TEXTS, **arguments))
    assert len(vectors_of(answer)[0]) == arguments.get("dimensions", 32)
    assert (answer.model, answer.usage.completion_tokens) == ("sim-embedding", 0)
    assert answer.usage.prompt_tokens == simulator.ledger()[-1]["prompt_tokens"]


def test_model_arguments_travel_and_are_told_in_the_identity(simulator: SimulatorProcess) -> None:
    model = load(simulator.base_url, dimensions=5, model_arg=("user=me", 'default_headers={"x-team": "a"}'))
    assert model.identity == {"model": "openai:sim-embedding", "arguments": {"dimensions": 5, "user": "me"}}
    assert len(vectors_of(asyncio.run(asked(model, "a")))[0]) == 5


@pytest.mark.parametrize("fault", ["500", "503-slow-down", "429-ms", "quota", "auth", "notfound", "context", "cut"])
def test_what_goes_wrong_is_judged_as_langchains_way_is(simulator: SimulatorProcess, fault: str) -> None:
    text = f"[[fault:{fault}]] {fault}"
    verdicts = []
    for work in (asked(load(simulator.base_url), text), stock(simulator.base_url, text)):
        with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever the two raise is compared
            asyncio.run(work)
        verdict = failure_of(raised.value)
        verdicts.append((verdict.kind, verdict.status, verdict.retry_after_s, verdict.maybe_paid))
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("badjson", Kind.BAD_BODY),
        ("html", Kind.BAD_BODY),
        ("errbody", Kind.SERVER),
        ("badlength", Kind.TRUNCATED),
        ("reset", Kind.CONNECTION),
    ],
)
def test_a_spoilt_answer_is_tried_again(simulator: SimulatorProcess, fault: str, kind: Kind) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - judged by its verdict
        asyncio.run(asked(load(simulator.base_url), f"[[fault:{fault}]]"))
    assert failure_of(raised.value).kind is kind


def test_headers_are_overheard(simulator: SimulatorProcess) -> None:
    heard: list[Any] = []
    model = load(simulator.base_url)
    assert model.listen is not None
    model.listen(heard.append)
    asyncio.run(asked(model, "a"))
    assert heard[0]["x-request-id"].startswith("req_")


async def answered(body: Any, *texts: str) -> Answer:
    """What the lane makes of a server that answers so."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body)

    app = web.Application()
    app.router.add_post("/v1/embeddings", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        return await asked(load(f"http://127.0.0.1:{port}/v1"), *texts)
    finally:
        await runner.cleanup()


def test_vectors_come_in_the_order_of_the_texts_also_as_numbers() -> None:
    one = b64encode(struct.pack("<2f", 1.0, 0.5)).decode()
    data = [{"index": 1, "embedding": [0.25, 2]}, {"index": 0, "embedding": one}]
    answer = asyncio.run(answered({"data": data, "usage": {"total_tokens": 3}}, "a", "b"))
    assert vectors_of(answer) == [[1.0, 0.5], [0.25, 2.0]]
    assert answer.usage == Usage(3)


_PYTHONS_WORDS = re.compile(r"NoneType|object has no|indices|validation error|subscriptable")


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"index": 0, "embedding": [1.0]}]},
        {"data": [{"embedding": "no base64!"}, {"embedding": "AAAA"}]},
        {"data": [{"embedding": None}, {"embedding": []}]},
        {"object": "list"},
        {"data": [None, 5]},
        {"data": "abc"},
        ["nothing"],
        "<html>",
    ],
)
def test_an_answer_without_a_vector_for_each_text_is_a_bad_body(body: Any) -> None:
    with pytest.raises((CallFailed, UnreadableAnswer)) as raised:
        asyncio.run(answered(body, "a", "b"))
    failure = failure_of(raised.value)
    assert (failure.kind, failure.maybe_paid) == (Kind.BAD_BODY, True)
    assert not _PYTHONS_WORDS.search(failure.message)


def test_other_providers_are_asked_through_aembed_documents() -> None:
    fake = DeterministicFakeEmbedding(size=4)

    async def ask() -> Answer:
        return await embedding(fake)(Request(["a", "b"]))

    answer = asyncio.run(ask())
    assert answer.message["vectors"] == [packed(vector) for vector in fake.embed_documents(["a", "b"])]


def test_prices_are_of_the_input_alone() -> None:
    known = load(model="openai:text-embedding-3-small").price("text-embedding-3-small", Usage(1_000_000))
    given = load(model="openai:x", price="in=0.5").price("x", Usage(1_000_000))
    assert known == pytest.approx(0.02)
    assert given == pytest.approx(0.5)
    assert load(model="openai:x").price("x", Usage(1)) is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("lcbatch:extractive", "makes no vectors"),
        ("opanai:x", "no provider 'opanai'"),
        ("mistralai:mistral-embed", "needs"),
        ("text-embedding-3-small", "has no provider"),
    ],
)
def test_a_model_that_cannot_be_is_refused_with_a_hint(model: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        load_embedder(ModelOptions(model=model), env={"OPENAI_API_KEY": "x", "MISTRAL_API_KEY": "x"}, connections=1)
    assert raised.value.hint


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(UsageError):
        load(model_arg=("user",))


def test_the_key_travels() -> None:
    with SimulatorProcess(require_key="sk-canary") as strict:
        assert len(vectors_of(asyncio.run(asked(load(strict.base_url), "a")))) == 1
