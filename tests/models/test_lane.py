"""Built-in chains' way past LangChain: the same verdicts on what goes wrong, and LangChain loaded only for what needs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from lcbatch import jsontext
from lcbatch.calls.asking import invoking
from lcbatch.calls.direct import direct
from lcbatch.calls.failures import failure_of
from lcbatch.errors import Failure
from lcbatch.models.lane import Lane
from lcbatch.models.openai import FastChatOpenAI
from lcbatch.models.outline import Memory, Outline, memory_of
from lcbatch.models.plain import Frame
from lcbatch.models.wire import Response, Wire
from lcbatch.ports import Ask
from lcbatch.records import Answer, Json, Reply, Request
from lcbatch.simulator.process import SimulatorProcess

_KEY = "sk-canary"
_FAULTS_OF_THE_WIRE = {"cut", "badlength", "reset", "nobody"}
"""The SDK puts words of its own before what the connection says."""
_SETUP = {"model": "m"}
_OUTLINE = Outline(
    "http://127.0.0.1:9/v1/chat/completions",
    {"Authorization": f"Bearer {_KEY}", "User-Agent": "x"},
    Frame(b'{"model":"m"', {"X-A": "b"}, {"system": "developer", "user": "user"}),
    128,
)


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


def _chat(base_url: str) -> FastChatOpenAI:
    return FastChatOpenAI(model="sim", base_url=base_url, api_key=SecretStr(_KEY), max_retries=0)


async def _verdict(ask: Ask, text: str) -> Failure:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever is raised, the verdict on it counts
        await ask(Request([{"role": "user", "content": text}]))
    return failure_of(raised.value)


@pytest.mark.parametrize(
    "fault",
    [
        *("500", "503", "503-slow-down", "529", "429", "quota", "auth", "forbidden", "notfound", "context"),
        *("html", "errbody", "cut", "badlength", "badjson", "reset", "nobody"),
    ],
)
def test_the_verdict_is_the_one_on_what_langchain_raises(simulator: SimulatorProcess, fault: str) -> None:
    base_url = "http://127.0.0.1:9/v1" if fault == "nobody" else simulator.base_url

    async def both() -> list[Failure]:
        chat = _chat(base_url)
        lane = Lane(chat.outline(None), lambda: chat, Wire(chat.address, chat.headers, connections=1))
        long = invoking(lane.chat)
        try:
            return [await _verdict(ask, f"[[fault:{fault}]]") for ask in (long, lane.shortcut(long))]
        finally:
            await lane.aclose()

    long, short = asyncio.run(both())

    assert short == replace(long, message=short.message)
    assert short.message == long.message or fault in _FAULTS_OF_THE_WIRE


def test_langchain_is_asked_for_only_when_something_is_not_plain(simulator: SimulatorProcess) -> None:
    loaded: list[FastChatOpenAI] = []

    def load() -> FastChatOpenAI:
        loaded.append(_chat(simulator.base_url))
        return loaded[-1]

    async def ask(*requests: Request) -> tuple[list[Answer], int]:
        chat = _chat(simulator.base_url)
        lane = Lane(chat.outline(None), load, Wire(chat.address, chat.headers, connections=2))
        asked = lane.shortcut(invoking(lane.chat))
        try:
            return list(await asyncio.gather(*map(asked, requests))), len(loaded)
        finally:
            await lane.aclose()

    plain = Request([{"role": "user", "content": "hello"}])
    refused = Request([{"role": "user", "content": "[[fault:refusal]]"}])

    assert asyncio.run(ask(plain))[1] == 0
    answers, times = asyncio.run(ask(refused, refused, replace(plain, params={"max_tokens": 3})))
    assert times == 1
    assert [answer.native is not None for answer in answers] == [True, True, True]


def test_an_answer_that_is_there_is_not_given_up_while_langchain_loads(simulator: SimulatorProcess) -> None:
    running: list[asyncio.Timeout] = []
    left: list[float | None] = []

    def within(seconds: float) -> asyncio.Timeout:
        running.append(asyncio.timeout(seconds))
        return running[-1]

    def load() -> FastChatOpenAI:
        left.append(running[-1].when())
        return _chat(simulator.base_url)

    async def ask() -> Reply:
        chat = _chat(simulator.base_url)
        lane = Lane(chat.outline(None), load, Wire(chat.address, chat.headers, connections=2))
        call = direct(
            lane.shortcut(invoking(lane.chat)), label="x", timeout_s=60.0, price=lambda *_: None, clock=time.monotonic,
            emit=lambda _: None, within=within,
        )  # fmt: skip
        try:
            await call(Request([{"role": "user", "content": "hello"}]))
            left.append(running[-1].when())
            return await call(Request([{"role": "user", "content": "[[fault:refusal]]"}]))
        finally:
            await lane.aclose()

    assert asyncio.run(ask()).text == ""
    assert left[0] is not None, "as long as it has not come, the time counts"
    assert left[1:] == [None]


def test_what_is_remembered_is_what_was_made_but_for_the_key(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "cache")

    memory.keep(_SETUP, _KEY, _OUTLINE)

    assert memory.recall(_SETUP, None, _KEY) == _OUTLINE
    other = memory.recall(_SETUP, None, "sk-other")
    assert other is not None
    assert other.headers["Authorization"] == "Bearer sk-other"
    assert memory.recall({"model": "n"}, None, _KEY) is None
    (file,) = (tmp_path / "cache").iterdir()
    assert _KEY not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/", "https://x.test"])
def test_what_is_remembered_goes_to_the_address_of_now(tmp_path: Path, base_url: str) -> None:
    memory = Memory(tmp_path)
    memory.keep(_SETUP, _KEY, _OUTLINE)

    outline = memory.recall(_SETUP, base_url, _KEY)

    assert outline is not None
    assert outline.address == _chat(base_url).address


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"address": 1}', "\x00", '{"address": "x", "head": 3}'])
def test_what_is_damaged_is_as_if_it_were_not_there(tmp_path: Path, text: str) -> None:
    memory = Memory(tmp_path)
    memory.keep(_SETUP, _KEY, _OUTLINE)
    (file,) = tmp_path.iterdir()

    file.write_text(text)

    assert memory.recall(_SETUP, None, _KEY) is None


def test_an_outline_with_the_key_in_another_place_is_not_kept(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    for headers in ({"api-key": _KEY}, {**_OUTLINE.headers, "X-Also": _KEY}, {"Authorization": "Basic x"}):
        memory.keep(_SETUP, _KEY, replace(_OUTLINE, headers=headers))

    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_remembered_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    Memory(tmp_path / "file" / "cache").keep(_SETUP, _KEY, _OUTLINE)

    assert memory_of({}) is None
    assert memory_of({"HOME": "/x", "OPENAI_ORG_ID": "o"}) is None
    assert memory_of({"HOME": "/x", "OPENAI_API_KEY": "k"}) is not None


class _Sent:
    """What a Wire is asked to send."""

    heard = None

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    async def post(self, data: bytes, headers: Mapping[str, str]) -> Response:  # noqa: ARG002 - a Wire's
        self.bodies.append(jsontext.loads(data))
        answer = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
        return Response(200, {"Content-Type": "application/json"}, jsontext.dumps(answer).encode())


def test_a_parameter_that_langchain_has_a_name_of_its_own_for_is_sent() -> None:
    """OpenAI's `metadata`, which stands in the bodies of Batch files, is also a keyword of LangChain's methods."""
    chat, wire = _chat("http://127.0.0.1:9/v1"), _Sent()
    chat.extra_body = {"top_k": 3}
    chat.over(wire)  # type: ignore[arg-type]  # what of a Wire is used
    params: dict[str, Json] = {"metadata": {"a": "b"}, "tags": ["x"], "seed": 7}

    asyncio.run(_asked(invoking(lambda: chat), Request([{"role": "user", "content": "x"}], params)))

    assert wire.bodies[0].items() >= {**params, "top_k": 3}.items()


async def _asked(ask: Ask, request: Request) -> Answer:
    return await ask(request)
