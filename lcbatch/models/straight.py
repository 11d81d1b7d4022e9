"""One request after another to one address, past aiohttp's session: the same pool of connections, the same parser.

The session builds three dozen objects for each request, which took half as much CPU as all the rest of a row. The requests of a
run differ in their bodies alone, so that they are built once, by the session itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import aiohttp

from lcbatch.errors import ConfigError
from lcbatch.models.received import MOST_BYTES, too_long

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30.0)
"""Of a connection. How long an answer may take is for who asks."""

Reply: TypeAlias = tuple[int, Mapping[str, str], bytes]
"""(status, headers, the body unpacked)"""

_KNOWN = ("3.14.",)
"""Releases of aiohttp whose connections are known from below. With another each request takes the session."""
SHORT_BYTES = 256 * 1024
"""Of a body that goes out at once. A longer one is the session's to send, which waits for the peer between its pieces."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SWITCHING = 101
_HINTS = range(100, 200)


class Straight:
    """What the session has made of a request: the bytes before its body, and what its connection is looked up by."""

    def __init__(self, request: aiohttp.ClientRequest, connector: aiohttp.BaseConnector) -> None:
        self._request = request
        self._connector = connector
        lines = [f"{name}: {value}\r\n" for name, value in request.headers.items() if name.lower() != "content-length"]
        self._head = f"POST {request.url.raw_path_qs} HTTP/1.1\r\n{''.join(lines)}".encode()

    @classmethod
    def of(cls, request: aiohttp.ClientRequest) -> Straight | None:
        """None where only the session knows the way: by a proxy, and in releases of aiohttp that nobody has looked at.

        Nor where a header has a line break or the like in it, which the session refuses as it sends.
        """
        connector = request.session.connector
        if any(_CONTROL.search(text) for header in request.headers.items() for text in header):
            return None
        if request.proxy is not None or connector is None or not aiohttp.__version__.startswith(_KNOWN):
            return None
        return cls(request, connector)

    async def post(self, body: bytes) -> Reply:
        """Send a request with this body, read the whole answer.

        Raises what the session raises, but for HttpProcessingError, which is ClientResponseError there.
        """
        try:
            connection = await self._connector.connect(self._request, [], TIMEOUT)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._request.url}") from error
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:  # it broke just now
            connection.close()
            raise aiohttp.ServerDisconnectedError
        is_clean = False
        try:
            protocol.set_response_params(read_until_eof=True)
            transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))
            while True:
                message, content = await protocol.read()
                if message.code not in _HINTS or message.code == _SWITCHING:
                    break
            whole = await read(content)
            # Answered before all of the question was sent: the rest of it would come before the next one.
            is_clean = not transport.get_write_buffer_size()
        finally:
            if is_clean:
                connection.release()
            else:
                transport.abort()  # closing alone would send the rest, which somebody might bill
                connection.close()
        return message.code, message.headers, whole


def refuse_unsendable(headers: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Raise ConfigError for a header with a line break or the like in it, naming what gave it: each row would fail for it."""
    for name, value in headers.items():
        if _CONTROL.search(name) or _CONTROL.search(value):
            given = [variable for variable in sorted(env) if variable.startswith("OPENAI_") and env[variable] == value]
            raise ConfigError(
                f"{given[0] if given else f'the header {name!r}'} has a character that no request can carry",
                hint="look for a line break in it" if given else "look at --model-arg default_headers",
            )


async def read(content: aiohttp.StreamReader) -> bytes:
    """The whole body. Not by `content.read()`, which takes as much as comes, and unpacks all of it at one go."""
    blocks, size = [], 0
    while block := await content.readany():
        size += len(block)
        if size > MOST_BYTES:
            raise too_long()
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)
