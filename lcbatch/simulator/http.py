"""HTTP/1.1 by hand on asyncio.Protocol: as little work for each request as Python allows, since it stands between a
measurement and its object.

Keep-alive, pipelining, Content-Length and chunked request bodies, Expect: 100-continue. One request of a connection is
worked on at a time; what the client sends ahead waits unparsed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final, NamedTuple, Protocol, cast

from lcbatch.simulator.replies import ApiError, Reply, error_reply

MAX_HEAD_BYTES: Final = 65_536
MAX_BODY_BYTES: Final = 200_000_000
# Beyond this much sent ahead of its turn a client is not read from, so that it cannot fill our memory.
_MAX_AHEAD_BYTES: Final = 262_144
# Keep-alive clients send the same head again and again, so a parsed one is kept. Heads with a changing id in them
# would pile up.
_MAX_HEADS: Final = 4096
_CLOSE_WITH_RST: Final = struct.pack("ii", 1, 0)


class Head(NamedTuple):
    """A parsed request head. `length` is the body's, None when it is chunked."""

    method: str
    path: str
    query: str
    length: int | None
    keep_alive: bool
    expects_continue: bool
    authorization: str


class Request(NamedTuple):
    """A whole request."""

    head: Head
    body: bytes


class BadRequestError(Exception):
    """What came is no HTTP that can be answered; the reply says why and the connection closes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = error_reply(status, ApiError(message))._replace(ending="close")


class App(Protocol):
    """What a connection talks to. All calls are synchronous and on the loop."""

    def on_request(self, connection: Connection, request: Request) -> None:
        """Answer it, now or later, by exactly one `connection.send`, unless the connection is lost before."""

    def on_settled(self, number: int, *, delivered: bool) -> None:
        """The answer of this billed call went out whole, or did not."""

    def on_unread(self, number: int) -> None:
        """An answer settled as delivered was not read: the client reset the connection with it in its buffer."""

    def on_opened(self, connection: Connection) -> None:
        """A client connected."""

    def on_lost(self, connection: Connection) -> None:
        """It is gone."""


def parse_head(raw: bytes) -> Head:
    """Parse a request head without its closing empty line. Raises BadRequestError."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
        fields = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        length = int(fields.get("content-length", "0"))
    except ValueError as exc:
        raise BadRequestError(400, "malformed request head") from exc
    if length < 0 or not version.startswith("HTTP/1."):
        raise BadRequestError(400, "malformed request head")
    if length > MAX_BODY_BYTES:
        raise BadRequestError(413, "the request body is too large")
    path, _, query = target.partition("?")
    connection = fields.get("connection", "").lower()
    return Head(
        method,
        path,
        query,
        None if "chunked" in fields.get("transfer-encoding", "").lower() else length,
        keep_alive=connection == "keep-alive" if version == "HTTP/1.0" else connection != "close",
        expects_continue=fields.get("expect", "").lower() == "100-continue",
        authorization=fields.get("authorization", ""),
    )


def read_chunked(buffer: bytes | bytearray, start: int) -> tuple[bytes, int] | None:
    """The body that stands chunked in `buffer` from `start`, and where it ends; None while it is not all there.

    Raises BadRequestError.
    """
    parts: list[bytes] = []
    at = start
    while True:
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return None
        try:
            size = int(bytes(buffer[at:end]).split(b";")[0], 16)
        except ValueError as exc:
            raise BadRequestError(400, "malformed chunk") from exc
        if size == 0:
            break
        if size < 0 or end + 2 + size - start > MAX_BODY_BYTES:
            raise BadRequestError(413, "the request body is too large")
        at = end + 2 + size + 2
        if len(buffer) < at:
            return None
        parts.append(bytes(buffer[end + 2 : at - 2]))
    # Trailers, if any, end with an empty line as a head does; without any it is the line break after the zero.
    stop = buffer.find(b"\r\n\r\n", end)
    return (b"".join(parts), stop + 4) if stop >= 0 else None


class Connection(asyncio.Protocol):
    """One client. `heads` is the server's memory of parsed heads, shared by its connections."""

    __slots__ = (
        "_app",
        "_awaiting",
        "_buffer",
        "_busy",
        "_continued",
        "_heads",
        "_keep_alive",
        "_last_number",
        "_loop",
        "_paused",
        "_piece",
        "_pumping",
        "_reading",
        "_reply",
        "_transport",
        "lost",
    )

    def __init__(self, app: App, heads: dict[bytes, Head], loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._heads = heads
        self._loop = loop
        self._transport: asyncio.Transport = cast(
            "asyncio.Transport", None
        )  # set by connection_made, before anything else
        self._buffer: bytes | bytearray = b""
        self._awaiting = 1
        self._continued = False
        self._busy = False
        self._pumping = False
        self._reading = True
        self._paused = False
        self._keep_alive = True
        self._reply: Reply | None = None
        self._piece: bytes | None = None
        self._last_number = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Pausing at once makes an empty buffer mean: all handed to the kernel. Delivery is judged by that.
        self._transport.set_write_buffer_limits(high=0)
        self._app.on_opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        reply, self._reply = self._reply, None
        if reply is not None and reply.number:
            self._app.on_settled(reply.number, delivered=False)
        elif exc is not None and self._last_number:
            # The kernel resets a connection that is closed with unread bytes in it: the last answer never reached the
            # program.
            self._app.on_unread(self._last_number)
        self._app.on_lost(self)

    def eof_received(self) -> None:
        # Clients of a provider close both ways at once; a transport that closes drops what is written to it in silence.
        self.lost = True
        raw: Any = self._transport.get_extra_info("socket")
        # A client that left before our answer came shows as an ordinary end of file; only the pending error tells that
        # our bytes were reset.
        if self._last_number and raw is not None and raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._app.on_unread(self._last_number)
            self._last_number = 0

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer) + data
        if not self._busy:
            self._pump()
        elif len(self._buffer) > _MAX_AHEAD_BYTES and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _pump(self) -> None:
        self._pumping = True
        try:
            while not self._busy and len(self._buffer) >= self._awaiting and not self.lost:
                request = self._next_request()
                if request is None:
                    break
                self._busy = True
                # Whoever asks again has read the answer before.
                self._last_number = 0
                self._keep_alive = request.head.keep_alive
                self._app.on_request(self, request)
        except BadRequestError as exc:
            self._buffer = b""
            self._keep_alive = False
            self.send(exc.reply)
        finally:
            self._pumping = False

    def _next_request(self) -> Request | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise BadRequestError(431, "the request head is too large")
            self._awaiting = len(buffer) + 1
            return None
        raw = bytes(buffer[:end])
        head = self._heads.get(raw)
        if head is None:
            head = parse_head(raw)
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[raw] = head
        start = end + 4
        if head.length is None:
            found = read_chunked(buffer, start)
            if found is None:
                self._more(head, len(buffer) + 1)
                return None
            body, stop = found
        else:
            stop = start + head.length
            if len(buffer) < stop:
                self._more(head, stop)
                return None
            body = bytes(buffer[start:stop])
        self._buffer = buffer[stop:]
        self._awaiting = 1
        self._continued = False
        return Request(head, body)

    def _more(self, head: Head, needed: int) -> None:
        self._awaiting = needed
        if head.expects_continue and not self._continued:
            self._continued = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send(self, reply: Reply) -> None:
        """Send the answer to the request being worked on. May be called after the client went away."""
        if self.lost or self._transport.is_closing():
            if reply.number:
                self._app.on_settled(reply.number, delivered=False)
            return
        if reply.ending == "reset":
            self._reset()
            return
        self._reply = reply
        if reply.payload:
            self._transport.write(reply.payload)
        if reply.ending == "hang":
            return
        if reply.pieces is not None:
            self._piece = next(reply.pieces, None)
            self._loop.call_later(reply.interval_s, self._send_piece)
        elif not self._paused:
            self._sent()

    def abort(self) -> None:
        """Drop the client; `on_lost` follows in a later round of the loop."""
        self._transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        reply = self._reply
        if reply is None or reply.ending == "hang":
            return
        if reply.pieces is None:
            self._sent()
        elif not reply.interval_s:
            self._loop.call_soon(self._send_piece)

    def _send_piece(self) -> None:
        reply = self._reply
        if reply is None or reply.pieces is None or self.lost or (self._paused and not reply.interval_s):
            return
        if self._piece is not None:
            self._transport.write(self._piece)
            # One ahead, so that the last one is known for the last as soon as it is written.
            self._piece = next(reply.pieces, None)
        if self._piece is None:
            self._reply = reply._replace(pieces=None)
            if not self._paused:
                self._sent()
        elif reply.interval_s or not self._paused:
            self._loop.call_later(reply.interval_s, self._send_piece)

    def _sent(self) -> None:
        """All of the answer is in the kernel's hands."""
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if reply.number:
            self._app.on_settled(reply.number, delivered=reply.whole)
            self._last_number = reply.number if reply.whole else 0
        self._busy = False
        if reply.ending == "close" or not self._keep_alive:
            # Nothing more is answered; what the client sent ahead is dropped.
            self._buffer = b""
            self._busy = True
            self._transport.close()
            return
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if self._buffer and not self._pumping:
            self._pump()

    def _reset(self) -> None:
        raw: Any = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_WITH_RST)
        self._transport.abort()
