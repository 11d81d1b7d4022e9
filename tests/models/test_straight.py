"""Requests past aiohttp's session, held to what the session sends, reads and raises."""

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from lcbatch.models.received import UnreadableAnswer
from lcbatch.models.wire import FAULTS, Wire

_HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-canary-1234", "X-Own": "a, b"}
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Left: 7\r\nContent-Length: 2\r\n\r\n{}"

Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


class _Server:
    """Answers each request by what `speak` writes, and keeps what it was asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.conversations: list[asyncio.Future[None]] = []
        self.speak: Speak = saying(_OK)
        self.instead: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ended = asyncio.get_running_loop().create_future()
        self.conversations.append(ended)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                if self.instead is not None:
                    await self.instead(reader, writer)
                    break
                length = next(
                    int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
                )
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                await self.speak(writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set_result(None)


def saying(*pieces: bytes, close: bool = False) -> Speak:
    async def speak(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    return speak


async def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[_Server, Wire]]:
    server = _Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 22)
    port = listening.sockets[0].getsockname()[1]
    wire = Wire(f"http://127.0.0.1:{port}/v1/chat/completions", _HEADERS, connections=4)
    try:
        yield server, wire
    finally:
        await wire.aclose()
        listening.close()
        await asyncio.gather(*server.conversations)


async def _outcome(wire: Wire) -> tuple[object, ...]:
    try:
        response = await wire.post(b"{}", {})
    except (*FAULTS, UnreadableAnswer) as error:
        return type(error), str(error), type(error.__cause__)
    return response.status_code, sorted(response.headers.items()), response.content


def test_what_goes_out_is_what_the_session_sends() -> None:
    async def main() -> None:
        async with _served() as (server, wire):
            for body, own in [(b"{}", {}), (b'{"a":1}', {}), (b"{}", {"X-A": "1"}), (b"{}", {"X-A": "1"})]:
                response = await wire.post(body, own)
                assert (response.status_code, response.content, response.headers["x-left"]) == (200, b"{}", "7")
        first, second, own_first, own_second = [_lines(head) for head in server.heads]
        assert first - second == {b"Content-Length: 2"}
        assert second - first == {b"Content-Length: 7"}
        assert own_first == own_second == first | {b"X-A: 1"}
        assert server.bodies == [b"{}", b'{"a":1}', b"{}", b"{}"]
        assert server.connections == 1

    asyncio.run(main())


def _lines(head: bytes) -> set[bytes]:
    return set(head.split(b"\r\n"))


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_PACKED = gzip.compress(b'{"a":' + b"1" * 5000 + b"}")
_GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"

SPOKEN: dict[str, Speak] = {
    "whole": saying(_OK),
    "in two pieces": saying(_OK[:30], _OK[30:]),
    "chunked": saying(_CHUNKED, b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n"),
    "gzip": saying(_GZIP % len(_PACKED), _PACKED),
    "a word before the answer": saying(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", _OK),
    "nothing to say": saying(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "a redirect": saying(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:1/\r\nContent-Length: 0\r\n\r\n"),
    "a refusal": saying(b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\nno"),
    "until it closes": saying(b"HTTP/1.1 200 OK\r\n\r\n{}", close=True),
    "closes afterwards": saying(_OK.replace(b"X-Left: 7", b"Connection: close"), close=True),
    "more than it said": saying(_OK + b"and more"),
    "no answer": saying(close=True),
    "half a head": saying(_OK[:20], close=True),
    "half a body": saying(_OK[:-1], close=True),
    "half a chunk": saying(_CHUNKED, b"5\r\nab", close=True),
    "no chunk": saying(_CHUNKED, b"zz\r\nab\r\n", close=True),
    "no gzip": saying(_GZIP % 3, b"abc", close=True),
    "half a gzip": saying(_GZIP % 20, _PACKED[:20], close=True),
    "no HTTP": saying(b"SSH-2.0-OpenSSH\r\n\r\n", close=True),
    "no length": saying(b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc", close=True),
    "a head without end": saying(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n", close=True),
    "reset": _reset,
}


@pytest.mark.parametrize("name", sorted(SPOKEN))
def test_what_comes_back_is_read_as_the_session_reads_it(name: str) -> None:
    async def main() -> None:
        async with _served() as (server, wire):
            server.speak = SPOKEN[name]
            by_session = await _outcome(wire)
        async with _served() as (server, wire):
            await _outcome(wire)
            server.speak = SPOKEN[name]
            straight = await _outcome(wire)
            assert len(server.heads) == 2, "asked once"
        assert straight == by_session

    asyncio.run(main())


def test_a_connection_that_broke_is_not_taken_again() -> None:
    async def main() -> None:
        async with _served() as (server, wire):
            await wire.post(b"{}", {})
            for name in ("half a body", "more than it said", "no HTTP"):
                server.speak = SPOKEN[name]
                await _outcome(wire)
                server.speak = SPOKEN["whole"]
                assert (await wire.post(b"{}", {})).content == b"{}"
        assert server.connections == 4

    asyncio.run(main())


def test_a_call_that_is_given_up_takes_its_connection_with_it() -> None:
    async def main() -> None:
        async with _served() as (server, wire):
            await wire.post(b"{}", {})
            asked, given_up = asyncio.Event(), asyncio.Event()

            async def silence(_: asyncio.StreamWriter) -> None:
                asked.set()
                await given_up.wait()

            server.speak = silence
            call = asyncio.create_task(wire.post(b"{}", {}))
            await asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            given_up.set()
            server.speak = saying(_OK)
            assert (await wire.post(b"{}", {})).content == b"{}"
        assert server.connections == 2

    asyncio.run(main())


def test_no_more_connections_are_opened_than_were_said() -> None:
    async def main() -> None:
        async with _served() as (server, wire):
            await asyncio.gather(*(wire.post(b"{}", {}) for _ in range(50)))
        assert server.connections == 4
        assert len(server.bodies) == 50

    asyncio.run(main())


def test_a_long_body_arrives_whole() -> None:
    body = b'"%b"' % (b"a" * 3_000_000)

    async def main() -> None:
        async with _served() as (server, wire):
            await wire.post(body, {})
            await wire.post(body, {})
        assert server.bodies == [body, body]

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\nno", b""], ids=["answered", "given up"]
)
def test_what_is_left_of_a_question_goes_to_nobody(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """It would stand before the next question, or be billed without anybody who listens."""
    monkeypatch.setattr("lcbatch.models.wire.SHORT_BYTES", 1 << 26)
    asked, go_on, question = asyncio.Event(), asyncio.Event(), b"a" * 30_000_000

    async def main() -> None:
        async with _served() as (server, wire):
            unread = asyncio.get_running_loop().create_future()

            async def reads_no_further(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(answer)
                asked.set()
                await go_on.wait()
                with suppress(ConnectionError):
                    unread.set_result(len(await reader.read(-1)))
                writer.close()

            await wire.post(b"{}", {})
            server.instead = reads_no_further
            call = asyncio.create_task(wire.post(question, {}))
            await asked.wait()
            if answer:
                assert (await call).status_code == 429
            else:
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            server.instead = None
            assert (await wire.post(b"{}", {})).content == b"{}"
            go_on.set()
        assert server.connections == 2
        assert not unread.done() or unread.result() < len(question)

    asyncio.run(main())


def test_a_header_with_a_line_break_is_sent_by_nobody() -> None:
    async def main() -> None:
        async with _served() as (server, wire):
            for _ in range(2):
                with pytest.raises(ValueError, match="control character"):
                    await wire.post(b"{}", {"X-A": "b\r\nX-Evil: 1"})
        assert not server.heads

    asyncio.run(main())


def test_who_does_not_listen_is_named_alike() -> None:
    async def main() -> None:
        async with _served() as (_, wire):
            await wire.post(b"{}", {})
            address = wire.address
        async with _served() as (server, _):
            pass
        del server
        gone = Wire(address, _HEADERS, connections=4)
        by_session, straight = await _outcome(gone), await _outcome(gone)
        await gone.aclose()
        assert straight == by_session
        assert "Connect call failed" in str(straight[1])

    asyncio.run(main())
