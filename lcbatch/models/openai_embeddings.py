"""The fast lane for embeddings: what OpenAIEmbeddings would send, over aiohttp, and vectors that stay packed.

LangChain says what goes into the request and where to; between that and the vectors its own way parses each number, packs it into
a list and checks it against a model. The parity tests hold the vectors to what `aembed_documents` gives.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import orjson

from lcbatch import jsontext
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.models.embedders import vectors_answer
from lcbatch.records import Answer, Request, Usage
from lcbatch.vectors import is_packed, packed

if TYPE_CHECKING:
    import aiohttp
    from langchain_openai import OpenAIEmbeddings

_CONNECT_TIMEOUT_S = 30.0
_KEEPALIVE_S = 60.0
_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of the body as it travelled; aiohttp has unpacked it."""


class OpenAILane:
    """Asks an OpenAI-shaped provider for vectors over one aiohttp session, which the first request opens.

    `connections` should be no less than the requests in flight. Timeouts are the caller's affair. Raises the SDK's own
    exceptions, and CallFailed for a success that holds no vectors.
    """

    def __init__(self, embeddings: OpenAIEmbeddings, connections: int) -> None:
        self._sdk: openai.AsyncOpenAI = embeddings.async_client._client  # noqa: SLF001 - its one way to the client
        self._parameters = {"encoding_format": "base64", **embeddings._invocation_params}  # noqa: SLF001 - LangChain's own
        self._proxy = embeddings.openai_proxy
        self._connections = connections
        self._address = str(self._sdk.base_url).rstrip("/") + "/embeddings"
        self._heard: Callable[[Mapping[str, str]], None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._faults: type[Exception] = OSError

    def listen(self, heard: Callable[[Mapping[str, str]], None]) -> None:
        """`heard` is told the headers of every response."""
        self._heard = heard

    def ask(self, request: Request) -> Awaitable[Answer]:
        """ports.Ask: the messages are texts."""
        return self._asked(list(request.messages), request.params)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _asked(self, texts: list[str], more: Mapping[str, Any]) -> Answer:
        body = await self._post(_body({**self._parameters, **more, "input": texts}))
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            raise ValueError(body["error"])  # noqa: TRY004 - inside a 200, as OpenRouter does; told as LangChain tells it
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise _no_vectors("no embeddings in the answer")
        usage = body.get("usage") or {}
        tokens = usage.get("prompt_tokens") or usage.get("total_tokens") or 0
        return vectors_answer(_in_order(data), texts, str(body.get("model") or ""), Usage(tokens))

    async def _post(self, data: bytes) -> Any:
        """Send one request; the answer's JSON. Raises JSONDecodeError for a success that is none."""
        session = self._session or self._open()
        request = httpx2.Request("POST", self._address)
        try:
            async with session.post(self._address, data=data, proxy=self._proxy, allow_redirects=False) as response:
                content = await response.read()
        except TimeoutError as error:
            raise openai.APITimeoutError(request) from error
        except (self._faults, OSError) as error:
            raise openai.APIConnectionError(request=request) from error
        if self._heard is not None:
            self._heard(response.headers)
        if response.status >= 300:  # noqa: PLR2004 - all that is no success, redirects too: a key must not follow them
            kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_THE_WIRE]
            answer = httpx2.Response(response.status, headers=kept, content=content, request=request)
            raise self._sdk._make_status_error_from_response(answer)  # noqa: SLF001 - the SDK's own mapping
        return jsontext.loads(content)

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415 - 100 ms that only a run pays
        from aiohttp.helpers import get_env_proxy_for_url  # noqa: PLC0415
        from yarl import URL  # noqa: PLC0415

        headers = {**self._sdk.default_headers, **self._sdk.auth_headers}
        query: Any = self._sdk.default_query
        address, credentials = URL(self._address).extend_query(query), None
        if self._proxy is None:
            try:
                proxy, credentials = get_env_proxy_for_url(address)
                self._proxy = str(proxy)
            except LookupError:
                pass
        self._faults, self._address = aiohttp.ClientError, str(address)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
            headers={name: value for name, value in headers.items() if isinstance(value, str)},
            proxy_auth=credentials,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session


def _body(payload: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:  # a lone surrogate: escaped, it is for the provider to judge
        return json.dumps(payload).encode()


def _in_order(data: list[Any]) -> list[str]:
    """The vectors, packed, in the order of the texts. Some servers answer in lists of numbers, whatever they are asked for."""
    try:
        ordered = sorted(data, key=lambda one: one.get("index") or 0)
        vectors = [one["embedding"] for one in ordered]
        whole = [vector if isinstance(vector, str) else packed(vector) for vector in vectors]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_vectors(f"an embedding in the answer is none ({error})") from error
    if not all(map(is_packed, whole)):
        raise _no_vectors("an embedding in the answer is no base64 of 32-bit floats")
    return whole


def _no_vectors(what: str) -> CallFailed:
    return CallFailed(Failure(Kind.BAD_BODY, what, maybe_paid=True))
