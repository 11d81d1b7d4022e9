"""The protocol over real sockets, on asyncio's own loop."""

from __future__ import annotations

import asyncio
import json

import pytest

from lcbatch.simulator.answers import answer_for
from lcbatch.simulator.http import BadRequestError, Head, parse_head, read_chunked
from lcbatch.simulator.server import Running
from lcbatch.simulator.settings import Settings

from .wire import ask, chat, chat_request, connected, request, run


def content(body: bytes) -> str:
    return str(json.loads(body)["choices"][0]["message"]["content"])


def test_a_head_is_parsed() -> None:
    raw = b"POST /v1/x?since=3 HTTP/1.1\r\nContent-LENGTH:  12 \r\nauthorization: Bearer k\r\nExpect: 100-Continue"
    assert parse_head(raw) == Head("POST", "/v1/x", "since=3", 12, True, True, "Bearer k")  # noqa: FBT003  a tuple's fields


@pytest.mark.parametrize(
    ("raw", "keep"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nConnection: close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", True),
    ],
)
def test_keep_alive_follows_version_and_header(raw: bytes, keep: bool) -> None:  # noqa: FBT001  a table's column
    assert parse_head(raw).keep_alive is keep


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET /",
        b"GET / SPDY/3",
        b"GET / HTTP/1.1\r\nno colon",
        b"GET / HTTP/1.1\r\ncontent-length: x",
        b"GET / HTTP/1.1\r\ncontent-length: -1",
        b"GET / HTTP/1.1\r\ncontent-length: 99999999999",
    ],
)
def test_a_broken_head_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_head(raw)


def test_a_chunked_body_is_read_only_when_whole() -> None:
    whole = b"head4\r\nWiki\r\n6;name=x\r\npedia \r\n0\r\nTrailer: x\r\n\r\nnext"
    assert read_chunked(whole, 4) == (b"Wikipedia ", len(whole) - 4)
    assert all(read_chunked(whole[:end], 4) is None for end in range(4, len(whole) - 4))


def test_a_bad_chunk_is_refused() -> None:
    with pytest.raises(BadRequestError):
        read_chunked(b"zz\r\n", 0)


def test_a_request_that_comes_byte_by_byte_is_answered_once() -> None:
    async def scenario(running: Running) -> tuple[bytes, int]:
        async with connected(running.port) as wire:
            for byte in chat_request():
                wire.writer.write(bytes([byte]))
                await asyncio.sleep(0)
            return (await wire.response()).body, running.provider.ledger.billed

    body, billed = run(scenario)
    assert (content(body), billed) == (answer_for(chat()), 1)


def test_pipelined_requests_are_answered_in_order() -> None:
    texts = [str(number) for number in range(50)]

    async def scenario(running: Running) -> list[bytes]:
        async with connected(running.port) as wire:
            wire.writer.write(b"".join(map(chat_request, texts)))
            return [(await wire.response()).body for _ in texts]

    for settings in (Settings(), Settings(latency_s=0.001)):
        assert [content(body) for body in run(scenario, settings)] == [answer_for(chat(text)) for text in texts]


def test_a_client_that_sends_far_ahead_is_read_again_in_its_turn() -> None:
    texts = [f"{number} " + "x" * 100_000 for number in range(10)]

    async def scenario(running: Running) -> list[bytes]:
        async with connected(running.port) as wire:
            wire.writer.write(b"".join(map(chat_request, texts)))
            return [(await wire.response()).body for _ in texts]

    assert [content(body) for body in run(scenario, Settings(latency_s=0.001))] == [
        answer_for(chat(text)) for text in texts
    ]


def test_a_chunked_request_is_answered() -> None:
    async def scenario(running: Running) -> bytes:
        data = json.dumps(chat()).encode()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (data[:10], data[10:])) + b"0\r\n\r\n"
        return (
            await ask(
                running.port, b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
            )
        ).body

    assert content(run(scenario)) == answer_for(chat())


def test_a_client_that_expects_100_continue_gets_it_once() -> None:
    async def scenario(running: Running) -> tuple[bytes, bytes]:
        async with connected(running.port) as wire:
            data = json.dumps(chat()).encode()
            wire.writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(data)
            )
            first = await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.write(data[:5])
            await asyncio.sleep(0)
            wire.writer.write(data[5:])
            return first, (await wire.response()).body

    first, body = run(scenario)
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert content(body) == answer_for(chat())


def test_connection_close_is_honoured() -> None:
    async def scenario(running: Running) -> bytes:
        async with connected(running.port) as wire:
            await wire.ask(request("/v1/models", headers={"Connection": "close"}))
            return await wire.reader.read()

    assert run(scenario) == b""


def test_garbage_is_400_and_a_close() -> None:
    async def scenario(running: Running) -> tuple[int, bytes]:
        async with connected(running.port) as wire:
            return (await wire.ask(b"nonsense\r\n\r\nmore nonsense")).status, await wire.reader.read()

    assert run(scenario) == (400, b"")


def test_a_head_without_end_is_431() -> None:
    async def scenario(running: Running) -> int:
        return (await ask(running.port, b"x" * 70_000)).status

    assert run(scenario) == 431
