"""The practical limit: bytes onto keep-alive sockets and off them, and nothing else.

It reads the rows and sends them as requests, but neither parses an answer nor keeps it: what remains is what asyncio and the
kernel take. Nobody who does more can be faster; how near one comes is the question.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any, Final, cast
from urllib.parse import urlsplit

import orjson
import uvloop

from bench.clients.common import MODEL, Task, messages_for, task_from_argv

_OK: Final = b"HTTP/1.1 200"
_LENGTH: Final = b"content-length: "


class Lane(asyncio.Protocol):
    """One connection, one request at a time. `done` ends when there is nothing left to send, or with what went wrong."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self._requests = requests
        self.done = done
        self._transport = cast("asyncio.Transport", None)
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._seen = data = self._seen + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        at = data[:end].lower().find(_LENGTH)
        length = int(data[at + len(_LENGTH) : data.find(b"\r", at)])
        if len(data) < end + 4 + length:
            return
        if not data.startswith(_OK):
            raise RuntimeError(data[:80].decode("latin-1"))
        self._seen = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
            return
        self.done.set_result(None)
        self._transport.close()


def requests_of(task: Task, host: str, path: str) -> Iterator[bytes]:
    head = (
        f"POST {path}/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {task.api_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    for row in task.rows():
        body = orjson.dumps({"model": MODEL, "messages": messages_for(row)})
        yield b"%s%d\r\n\r\n%s" % (head, len(body), body)


async def main() -> None:
    task = task_from_argv()
    url = urlsplit(task.base_url)
    requests = requests_of(task, url.netloc, url.path)
    loop = asyncio.get_running_loop()
    tls: Any = ssl.create_default_context() if url.scheme == "https" else None

    async def lane() -> None:
        done = loop.create_future()
        await loop.create_connection(lambda: Lane(requests, done), url.hostname or "", url.port or 0, ssl=tls)
        await done

    async with asyncio.TaskGroup() as lanes:
        for _ in range(task.concurrency):
            lanes.create_task(lane())


if __name__ == "__main__":
    uvloop.run(main())
