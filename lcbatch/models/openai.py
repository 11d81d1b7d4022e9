"""The fast lane: a ChatOpenAI whose requests go over aiohttp and whose answers are parsed by orjson.

LangChain still builds the request and the message; only the way between them is shorter than the SDK's (which costs about
2 ms of CPU a call, most of it in its connection pool and its walk over the body). What this way does not cover takes the
stock one by itself: the responses API, response formats that the SDK parses, and a user's own HTTP client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import openai
import orjson
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import _handle_openai_api_error, _handle_openai_bad_request
from pydantic import PrivateAttr

if TYPE_CHECKING:
    import aiohttp
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
    from langchain_core.messages import BaseMessage

_CONNECT_TIMEOUT_S = 30.0
_KEEPALIVE_S = 60.0


class FastChatOpenAI(ChatOpenAI):
    """ChatOpenAI over one aiohttp session of its own.

    `connections` bounds the session's pool and should be no less than the calls in flight. The session opens with the first
    call; `aclose` closes it. Timeouts are the caller's affair. Raises what ChatOpenAI raises.
    """

    connections: int = 1000
    _session: aiohttp.ClientSession | None = PrivateAttr(default=None)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        payload = self._get_request_payload(messages, stop=stop, **kwargs)
        if "response_format" in payload or self._use_responses_api(payload) or self.http_async_client is not None:
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        try:
            body = await self._post("/chat/completions", payload)
        except openai.BadRequestError as error:
            _handle_openai_bad_request(error)
        except openai.APIError as error:
            _handle_openai_api_error(error)
        return self._create_chat_result(body)

    async def _post(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Send one request. Raises the SDK's own exceptions, and JSONDecodeError for a 200 that is no JSON."""
        import aiohttp  # noqa: PLC0415 - 100 ms that only a run pays

        client = self.root_async_client
        url = str(client.base_url).rstrip("/") + path
        request = httpx2.Request("POST", url)
        extra = payload.pop("extra_body", None) or {}
        headers = payload.pop("extra_headers", None) or {}
        data = orjson.dumps({**payload, **extra}, default=_plain)
        try:
            async with self._open_session().post(url, data=data, headers=headers, allow_redirects=False) as response:
                content = await response.read()
        except TimeoutError as error:
            raise openai.APITimeoutError(request) from error
        except aiohttp.ClientError as error:
            raise openai.APIConnectionError(request=request) from error
        if response.status >= 300:  # noqa: PLR2004 - all that is no success, redirects too: a key must not follow them
            answer = httpx2.Response(
                response.status, headers=list(response.headers.items()), content=content, request=request
            )
            raise client._make_status_error_from_response(answer)  # noqa: SLF001 - the SDK's own mapping
        return _json_object(content)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp  # noqa: PLC0415

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.connections, keepalive_timeout=_KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
                headers=self._session_headers(),
                trust_env=True,
            )
        return self._session

    def _session_headers(self) -> dict[str, str]:
        client = self.root_async_client
        named = {**client.default_headers, **client.auth_headers}
        return {name: value for name, value in named.items() if isinstance(value, str)}

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _json_object(content: bytes) -> dict[str, Any]:
    """The body as an object. A lone surrogate in it passes, as it does in the SDK."""
    from lcbatch import jsontext  # noqa: PLC0415

    body = jsontext.loads(content)
    if not isinstance(body, dict):
        raise ValueError(f"unexpected response type: {content[:200]!r}")  # noqa: TRY004 - as the stock class raises it
    return body


def _plain(value: object) -> Any:
    """What LangChain leaves in a payload besides plain JSON: pydantic models."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} is no JSON")
    return dump(mode="json")
