"""What a provider sends to hurt: the same verdict on every way, a bound on its size, and no key in what is said of it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from lcbatch.calls.asking import invoking
from lcbatch.calls.failures import failure_of
from lcbatch.errors import Failure, Kind
from lcbatch.models import received, straight
from lcbatch.models.lane import Lane
from lcbatch.models.openai import FastChatOpenAI
from lcbatch.models.quiet import QuietClients
from lcbatch.models.wire import Response, Wire
from lcbatch.ports import Ask
from lcbatch.records import Request
from lcbatch.simulator.process import SimulatorProcess

_KEY = "sk-canary-0123456789/abcdef"
_HOSTILE = {
    **dict.fromkeys(("gzipbomb", "deflatebomb", "endless"), "longer than"),
    **dict.fromkeys(("endless-head", "nested", "badgzip", "shortlength", "zstdbomb"), ""),
    "echo-html": "",
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(gzipbomb_bytes=70_000_000) as running:
        yield running


class _Own(ChatOpenAI):
    """A subclass is asked as it is, over the SDK."""


@asynccontextmanager
async def by_every_way(base_url: str) -> Any:
    """By name: past LangChain, LangChain over the wire, the SDK because of an option, a user's own model."""
    set_up: dict[str, Any] = {"model": "sim", "base_url": base_url, "api_key": SecretStr(_KEY), "max_retries": 0}
    chat, clients = FastChatOpenAI(**set_up), QuietClients(10)
    stock = FastChatOpenAI(**set_up, default_query={"a": "b"})
    lane = Lane(chat.outline(None), lambda: chat, Wire(chat.address, chat.headers, connections=10))
    long = invoking(lane.chat)
    own = clients.quiet(_Own(**set_up))
    try:
        yield {
            "shortcut": lane.shortcut(long),
            "lane": long,
            "stock": invoking(lambda: stock),
            "own": invoking(lambda: own),
        }
    finally:
        await lane.aclose()
        await stock.aclose()
        await clients.aclose()


async def _verdict(ask: Ask, text: str) -> tuple[Failure, str]:
    """The verdict, and what a traceback would show."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever is raised, the verdict on it counts
        await ask(Request([{"role": "user", "content": text}]))
    return failure_of(raised.value), "".join(traceback.format_exception(raised.value))


def _verdicts(base_url: str, text: str) -> dict[str, tuple[Failure, str]]:
    async def main() -> dict[str, tuple[Failure, str]]:
        async with asyncio.timeout(60), by_every_way(base_url) as ways:
            return {name: await _verdict(ask, text) for name, ask in ways.items()}

    return asyncio.run(main())


@pytest.mark.parametrize("fault", sorted(_HOSTILE))
def test_what_is_no_answer_is_a_bad_body_on_every_way(simulator: SimulatorProcess, fault: str) -> None:
    for way, (failure, shown) in _verdicts(simulator.base_url, f"[[fault:{fault}]]").items():
        # h11 tells a head that never ends, or more body than declared, only as a broken connection.
        expected = {Kind.BAD_BODY} | ({Kind.TRUNCATED} if fault in {"endless-head", "shortlength"} else set())
        assert failure.kind in expected, (way, failure)
        assert failure.maybe_paid, way
        assert _HOSTILE[fault] in failure.message, (way, failure)
        assert _KEY not in shown, way


@pytest.mark.parametrize("fault", ["echo", "echo-400", "echo-html"])
def test_a_key_that_comes_back_is_not_shown(simulator: SimulatorProcess, fault: str) -> None:
    before = simulator.stats()["rejected"].get(fault, 0)
    for way, (failure, shown) in _verdicts(simulator.base_url, f"[[fault:{fault}]]").items():
        assert _KEY not in failure.message + shown, way
        assert "[the key]" in shown, way
    assert simulator.stats()["rejected"][fault] - before == 4, "each way has asked"


@pytest.mark.parametrize(
    "body", [b'{"a": "\xff"}', b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"", b"{", b"\0"]
)
def test_what_is_no_json_is_a_bad_body(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S") as raised:
        Response(200, {"Content-Type": "application/json"}, body).parsed()
    failure = failure_of(raised.value)
    assert (failure.kind, failure.maybe_paid) == (Kind.BAD_BODY, True)


def test_an_answer_is_read_up_to_the_bound_and_no_further(
    simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.control(big_bytes=3_000_000)
    for most, is_taken in ((3_010_000, True), (2_990_000, False)):
        monkeypatch.setattr(straight, "MOST_BYTES", most)
        monkeypatch.setattr(received, "MOST_BYTES", most)
        for way, came in asyncio.run(_lengths(simulator.base_url)).items():
            assert came == (3_000_000 if is_taken else "bad_body"), (way, most)


async def _lengths(base_url: str) -> dict[str, int | str]:
    """How long the answer was on each way, or why there is none."""
    came: dict[str, int | str] = {}
    async with by_every_way(base_url) as ways:
        for name, ask in ways.items():
            try:
                came[name] = len((await ask(Request([{"role": "user", "content": "[[fault:big]]"}]))).text)
            except Exception as error:  # noqa: BLE001 - judged by its verdict
                came[name] = failure_of(error).kind
    return came
