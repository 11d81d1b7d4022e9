"""One pool of connections to one address: a request's bytes go out, a response's bytes come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

import aiohttp
from yarl import URL

from lcbatch import jsontext
from lcbatch.models.received import MOST_BYTES, UnreadableAnswer, secrets_of, too_long, without

_CONNECT_TIMEOUT_S = 30.0
_KEEPALIVE_S = 60.0

Heard = Callable[[Mapping[str, str]], None]
"""Is told the headers of a response."""

FAULTS = (aiohttp.ClientError, OSError)
"""What `Wire.post` raises besides TimeoutError (which is an OSError, too)."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response, its body unpacked."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    content_type: str

    @property
    def is_success(self) -> bool:
        """A redirect is none: a key must not follow it."""
        return self.status_code < 300  # noqa: PLR2004

    def parsed(self) -> Any:
        """The JSON in a success, else its text. The SDK goes by the content type; a server that mislabels its JSON is understood.

        For broken JSON that claims to be JSON, raises JSONDecodeError as the SDK does; UnreadableAnswer for what nests too deep.
        """
        try:
            return jsontext.loads(self.content)
        except ValueError as error:
            if not self.content_type.endswith("json"):
                return self.content.decode("utf-8", "replace")
            if isinstance(error, JSONDecodeError):
                raise
            raise UnreadableAnswer(str(error)) from error


class StatusError(Exception):
    """An answer with a status that is no success; carries what the SDK's errors carry."""

    def __init__(self, response: Response) -> None:
        try:
            self.body: Any = jsontext.loads(response.content)
        except ValueError:
            self.body = response.content.decode("utf-8", "replace")
        self.status_code = response.status_code
        self.response = response
        super().__init__(f"Error code: {response.status_code} - {self.body}")


class Wire:
    """Posts to one address, over at most `connections` connections, which should be no less than the calls in flight.

    `headers` go with every request; `heard` is told those of every response. The connections open as they are needed; `aclose`
    closes them. Timeouts are the caller's affair, but for that of a connection. The key that went out is taken out of what comes
    back.
    """

    def __init__(
        self, address: str, headers: Mapping[str, str], *, connections: int, heard: Heard | None = None
    ) -> None:
        self.address = address
        self._headers = headers
        self._connections = connections
        self.heard = heard
        self._url = URL(address)
        self._secrets = secrets_of(headers)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, data: bytes, headers: Mapping[str, str]) -> Response:
        """Send one request and read the whole answer. Raises TimeoutError and FAULTS, and UnreadableAnswer for what is none."""
        session = self._session or self._open()
        try:
            async with session.post(self._url, data=data, headers=headers, allow_redirects=False) as answer:
                content = await _read(answer.content)
        except aiohttp.ClientHttpProxyError:
            raise
        except aiohttp.ClientResponseError as error:  # no HTTP that can be read; its status is aiohttp's own
            raise UnreadableAnswer(without(error.message.encode(), self._secrets).decode()) from None
        if self.heard is not None:
            self.heard(answer.headers)
        return Response(answer.status, answer.headers, without(content, self._secrets), answer.content_type)

    def _open(self) -> aiohttp.ClientSession:
        proxy, proxy_auth = _proxy_for(self._url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
            headers=self._headers,
            proxy=proxy,
            proxy_auth=proxy_auth,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The whole body. Not by `content.read()`, which takes as much as comes, and unpacks all of it at one go."""
    blocks, size = [], 0
    while block := await content.readany():
        size += len(block)
        if size > MOST_BYTES:
            raise too_long()
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _proxy_for(url: URL) -> tuple[Any, Any]:
    """The environment's proxy for this address, found once: aiohttp's own `trust_env` asks a thread for it twice a request."""
    from aiohttp.helpers import get_env_proxy_for_url  # noqa: PLC0415

    try:
        return get_env_proxy_for_url(url)
    except LookupError:
        return None, None
