"""A raw HTTP client for the tests: it shows what is on the wire, and mends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import uvloop

from lcbatch.simulator.server import Running, serve
from lcbatch.simulator.settings import Settings

T = TypeVar("T")
Loop = Callable[[], asyncio.AbstractEventLoop] | None
both_loops = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
# Long enough for a busy machine; a test that waits this long has failed.
PATIENCE_S = 5


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def response(self) -> Response:
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            return Response(status, headers, b"".join([chunk async for chunk in self.chunks()]))
        return Response(status, headers, await self.reader.readexactly(int(headers.get("content-length", "0"))))

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            piece = (await self.reader.readexactly(size + 2))[:-2]
            if not piece:
                return
            yield piece

    async def ask(self, request: bytes) -> Response:
        self.writer.write(request)
        return await self.response()

    async def closed(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield wire
    finally:
        await wire.closed()


def request(path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n{lines}\r\n".encode() + data


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "sim", "messages": [{"role": "user", "content": text}], **more}


def chat_request(text: str = "hello", **more: Any) -> bytes:
    return request("/v1/chat/completions", chat(text, **more))


async def ask(port: int, data: bytes) -> Response:
    async with connected(port) as wire:
        return await wire.ask(data)


async def until(condition: Callable[[], bool]) -> None:
    """Give the server rounds of the shared loop until it has seen what happened."""
    while not condition():  # noqa: ASYNC110  the server tells nobody; a round of the loop is no waiting
        await asyncio.sleep(0)


def run(scenario: Callable[[Running], Awaitable[T]], settings: Settings | None = None, loop: Loop = None) -> T:
    """Run a scenario beside a simulator in one loop."""

    async def both() -> T:
        async with asyncio.timeout(PATIENCE_S), serve(settings or Settings()) as running:
            return await scenario(running)

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(both())


async def ledger(running: Running) -> list[dict[str, Any]]:
    lines = (await ask(running.port, request("/ledger"))).body.splitlines()
    return [json.loads(line) for line in lines]


def faulty(fault: str, **more: Any) -> bytes:
    return chat_request(f"[[fault:{fault}]]", **more)


def answer_to(data: bytes, settings: Settings | None = None) -> tuple[Response, list[dict[str, Any]]]:
    async def scenario(running: Running) -> tuple[Response, list[dict[str, Any]]]:
        return await ask(running.port, data), await ledger(running)

    return run(scenario, settings)
