"""One pool of connections to one address: a request's bytes go out, a response's bytes come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from json import JSONDecodeError
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from lcbatch import jsontext
from lcbatch.models.proxies import is_loopback, with_scheme
from lcbatch.models.received import UnreadableAnswer, secrets_of, without
from lcbatch.models.straight import SHORT_BYTES, TIMEOUT, Reply, Straight, read

_KEEPALIVE_S = 60.0
_MOST_KINDS = 16
"""Of headers beside the wire's own, whose requests go straight."""

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
            content_type = self.headers.get("Content-Type", "").partition(";")[0]
            if not content_type.strip().lower().endswith("json"):
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
    back. aiohttp's session makes the first request, and those after it go straight.
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
        self._straight: dict[tuple[tuple[str, str], ...], Straight] = {}

    async def post(self, data: bytes, headers: Mapping[str, str]) -> Response:
        """Send one request and read the whole answer. Raises TimeoutError and FAULTS, and UnreadableAnswer for what is none."""
        session = self._session or self._open()
        straight = self._straight.get(tuple(headers.items())) if len(data) <= SHORT_BYTES else None
        try:
            if straight is not None:
                status, said, content = await straight.post(data)
            else:
                status, said, content = await self._introduce(session, data, headers)
        except aiohttp.ClientHttpProxyError:
            raise
        except (aiohttp.ClientResponseError, HttpProcessingError) as error:
            # No HTTP that can be read; a status in it is aiohttp's own.
            raise UnreadableAnswer(without(error.message.encode(), self._secrets).decode()) from None
        if self.heard is not None:
            self.heard(said)
        return Response(status, said, without(content, self._secrets))

    async def _introduce(self, session: aiohttp.ClientSession, data: bytes, headers: Mapping[str, str]) -> Reply:
        """By the session. What it makes of a short request goes for all later ones with the same headers."""

        async def seen(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            if len(data) <= SHORT_BYTES and len(self._straight) < _MOST_KINDS:
                straight = Straight.of(request)
                if straight is not None:
                    self._straight[tuple(headers.items())] = straight
            return await send(request)

        # As a file, a body of any length is sent piece by piece.
        async with session.post(
            self._url, data=BytesIO(data), headers=headers, allow_redirects=False, middlewares=(seen,)
        ) as answer:
            return answer.status, answer.headers, await read(answer.content)

    def _open(self) -> aiohttp.ClientSession:
        proxy, proxy_auth = _proxy_for(self._url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEPALIVE_S),
            timeout=TIMEOUT,
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
            self._straight.clear()


def _proxy_for(url: URL) -> tuple[Any, Any]:
    """The environment's proxy for this address, found once: aiohttp's own `trust_env` asks a thread for it twice a request.

    None for loopback: a proxy's localhost is another machine, and a key would travel there in the clear.
    """
    from urllib.request import getproxies  # noqa: PLC0415 - only who opens a connection needs it

    from aiohttp.helpers import get_env_proxy_for_url, strip_auth_from_url  # noqa: PLC0415

    if url.host is None or is_loopback(url.host):
        return None, None
    try:
        proxy, proxy_auth = get_env_proxy_for_url(url)
    except LookupError:
        return None, None
    if proxy.host is None:  # `host:port` alone
        proxy, proxy_auth = strip_auth_from_url(URL(with_scheme(getproxies()[url.scheme])))
    return proxy, proxy_auth
