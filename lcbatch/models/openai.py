"""The fast lane: a ChatOpenAI whose requests go over aiohttp and whose answers are parsed by orjson.

LangChain still builds the request and the message; only the way between them is shorter than the SDK's (which costs about
2 ms of CPU a call, most of it in its connection pool and its walk over the body). What this way does not cover takes the
stock one by itself: the responses API, response formats that the SDK parses, options of the SDK's own transport.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import orjson
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import _handle_openai_api_error, _handle_openai_bad_request
from pydantic import Field, PrivateAttr, SecretStr

from lcbatch import jsontext
from lcbatch.messages import answer_of, message_of
from lcbatch.models.plain import Frame, plain_answer
from lcbatch.ports import Ask
from lcbatch.records import Answer, Request

if TYPE_CHECKING:
    import aiohttp
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
    from langchain_core.messages import BaseMessage
    from yarl import URL

_CONNECT_TIMEOUT_S = 30.0
_KEEPALIVE_S = 60.0
_CHAT = "/chat/completions"
_STOCK_PAYLOAD = frozenset({"response_format", "timeout", "extra_query"})
"""Parameters that the SDK does not put into the body as they are."""
_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of the body as it travelled; aiohttp has unpacked it."""


class FastChatOpenAI(ChatOpenAI):
    """ChatOpenAI over one aiohttp session of its own.

    `connections` bounds the session's pool and should be no less than the calls in flight. `heard` is told the headers of every
    response. The session opens with the first
    call; `aclose` closes it. Timeouts are the caller's affair. Raises what ChatOpenAI raises.

    What goes the stock way goes over an HTTP client of its own, too: LangChain's is shared by all models of the process and is
    never closed, so that it outlives its event loop.
    """

    connections: int = 1000
    heard: Callable[[Mapping[str, str]], None] | None = Field(default=None, exclude=True)
    _session: aiohttp.ClientSession | None = PrivateAttr(default=None)
    _stock: httpx2.AsyncClient | None = PrivateAttr(default=None)
    _stock_sdk: openai.AsyncOpenAI | None = PrivateAttr(default=None)
    _faults: type[Exception] = PrivateAttr(default=OSError)
    _address: Any = PrivateAttr(default=None)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        payload = self._get_request_payload(messages, stop=stop, **kwargs)
        if self._needs_stock(payload):
            self._open_stock()
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        extra = payload.pop("extra_body", None) or {}
        headers = payload.pop("extra_headers", None) or {}
        return self._result(await self._send(_body({**payload, **extra}), headers))

    def shortcut(self, otherwise: Ask) -> Ask:
        """ports.Ask for plain messages, without building LangChain's own on the way; all else is asked as `otherwise` does.

        Raises what ChatOpenAI raises.
        """
        frame: Frame | None = None

        async def plain(data: bytes, headers: Mapping[str, str]) -> Answer:
            body = await self._send(data, headers)
            return plain_answer(body) or answer_of(message_of(self._result(body)))

        def ask(request: Request) -> Awaitable[Answer]:
            nonlocal frame
            if frame is None:
                frame = Frame.of(self, usable=not self._needs_stock(self._get_request_payload("x")))
            data = frame.body(request)
            return otherwise(request) if data is None else plain(data, frame.headers)

        return ask

    def _result(self, body: Any) -> ChatResult:
        result = self._create_chat_result(_as_the_sdk_reads_it(body))
        _note_refusal(result, body)
        return result

    async def _send(self, data: bytes, headers: Mapping[str, str]) -> Any:
        """One chat completion's body; raises what ChatOpenAI raises."""
        try:
            return await self._post(data, headers)
        except openai.BadRequestError as error:
            _handle_openai_bad_request(error)
        except openai.APIError as error:
            _handle_openai_api_error(error)
        raise AssertionError("both raise")

    def _needs_stock(self, payload: Mapping[str, Any]) -> bool:
        transport = self.http_async_client or self.openai_proxy or self.default_query or self.include_response_headers
        return bool(transport) or not _STOCK_PAYLOAD.isdisjoint(payload) or self._use_responses_api(dict(payload))

    async def _post(self, data: bytes, headers: Mapping[str, str]) -> Any:
        """Send one request; the answer's JSON, or its text where that is none and does not claim to be.

        Raises the SDK's own exceptions, and JSONDecodeError for broken JSON under a JSON content type.
        """
        session = self._session or self._open_session()
        try:
            async with session.post(self._address, data=data, headers=headers, allow_redirects=False) as response:
                content = await response.read()
        except TimeoutError as error:
            raise openai.APITimeoutError(self._request()) from error
        except (self._faults, OSError) as error:
            raise openai.APIConnectionError(request=self._request()) from error
        if self.heard is not None:
            self.heard(response.headers)
        if response.status >= 300:  # noqa: PLR2004 - all that is no success, redirects too: a key must not follow them
            kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_THE_WIRE]
            answer = httpx2.Response(response.status, headers=kept, content=content, request=self._request())
            raise self.root_async_client._make_status_error_from_response(answer)  # noqa: SLF001 - the SDK's own mapping
        return _parsed(content, response.content_type)

    def _request(self) -> httpx2.Request:
        """As errors want to have it."""
        return httpx2.Request("POST", str(self._address))

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415 - 100 ms that only a run pays
        from yarl import URL  # noqa: PLC0415

        if self._session is None:
            self._faults = aiohttp.ClientError
            self._address = URL(str(self.root_async_client.base_url).rstrip("/") + _CHAT)
            proxy, proxy_auth = _proxy_for(self._address)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.connections, keepalive_timeout=_KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
                headers=self._session_headers(),
                proxy=proxy,
                proxy_auth=proxy_auth,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _open_stock(self) -> None:
        if self._stock is None and self.http_async_client is None:
            limits = httpx2.Limits(max_connections=self.connections, keepalive_expiry=_KEEPALIVE_S)
            self._stock = openai.DefaultAsyncHttpxClient(
                limits=limits,
                proxy=self.openai_proxy or None,
                follow_redirects=False,
                event_hooks={"response": [self._overhear]},
            )
            self._stock_sdk = self.root_async_client.with_options(http_client=self._stock, max_retries=0)
        if self._stock_sdk is not None:
            self.root_async_client = self._stock_sdk
            self.async_client = self.root_async_client.chat.completions

    async def _overhear(self, response: httpx2.Response) -> None:
        if self.heard is not None:
            self.heard(response.headers)

    def _session_headers(self) -> dict[str, str]:
        client = self.root_async_client
        named = {**client.default_headers, **client.auth_headers}
        return {name: value for name, value in named.items() if isinstance(value, str)}

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._stock is not None:
            await self._stock.aclose()


def lane_for(model: Any, *, connections: int, heard: Callable[[Mapping[str, str]], None]) -> FastChatOpenAI | None:
    """A fast lane that goes where this stock ChatOpenAI goes, with its key and headers.

    None for a subclass, and for a model with a way of its own: an HTTP client, a timeout, a key that a function gives.
    """
    if type(model) is not ChatOpenAI or not isinstance(model.openai_api_key, SecretStr):
        return None
    if model.request_timeout is not None or model.http_client is not None or model.http_async_client is not None:
        return None
    own = {name: private.get_default() for name, private in FastChatOpenAI.__private_attributes__.items()}
    lane = _as(model, {**own, **(model.__pydantic_private__ or {})}, connections=connections, heard=heard)
    return None if lane._needs_stock({"messages": []}) else lane  # noqa: SLF001 - the class's own


def twin_of(model: Any, lane: FastChatOpenAI) -> FastChatOpenAI:
    """The same model over the lane, whose connections it shares."""
    private: Any = lane.__pydantic_private__
    return _as(model, private, connections=lane.connections, heard=lane.heard)


def _as(model: ChatOpenAI, private: dict[str, Any], **more: Any) -> FastChatOpenAI:
    """The model's fields in the fast class, unchecked: they were checked when the model was made."""
    copy = FastChatOpenAI.__new__(FastChatOpenAI)
    object.__setattr__(copy, "__dict__", {**model.__dict__, **more})
    object.__setattr__(copy, "__pydantic_fields_set__", model.__pydantic_fields_set__)
    object.__setattr__(copy, "__pydantic_extra__", model.__pydantic_extra__)
    object.__setattr__(copy, "__pydantic_private__", private)
    return copy


def _proxy_for(url: URL) -> tuple[Any, Any]:
    """The environment's proxy for this address, found once: aiohttp's own `trust_env` asks a thread for it twice a request."""
    from aiohttp.helpers import get_env_proxy_for_url  # noqa: PLC0415

    try:
        return get_env_proxy_for_url(url)
    except LookupError:
        return None, None


def _body(payload: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(payload, default=_plain)
    except orjson.JSONEncodeError:  # a lone surrogate or a long integer: escaped, it is for the provider to judge
        return json.dumps(payload, default=_plain).encode()


def _parsed(content: bytes, content_type: str) -> Any:
    """The JSON in a success. The SDK goes by the content type; a server that mislabels its JSON is understood here."""
    try:
        return jsontext.loads(content)
    except ValueError:
        if content_type.endswith("json"):
            raise
        return content.decode("utf-8", "replace")


def _as_the_sdk_reads_it(body: Any) -> Any:
    """Fill in what the SDK's response types default to None, where LangChain passes it on to the message.

    One thing is better than there: an error of mere text becomes an error object, so that it is known as a provider's.
    """
    if not isinstance(body, dict):
        return body
    if isinstance(error := body.get("error"), str) and error:
        body["error"] = {"message": error}
    _filled(body, ("id", "model", "choices", "system_fingerprint", "usage"))
    usage = body["usage"]
    if isinstance(usage, dict):
        _filled(usage, _DETAILS)
        for name, known in _DETAILS.items():
            _filled(usage[name], known)
    choices = body["choices"]
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            _filled(choice.setdefault("logprobs", None), ("content", "refusal"))
    return body


_DETAILS = {
    "completion_tokens_details": (
        "accepted_prediction_tokens",
        "audio_tokens",
        "reasoning_tokens",
        "rejected_prediction_tokens",
        "text_tokens",
    ),
    "prompt_tokens_details": ("audio_tokens", "cache_write_tokens", "cached_tokens", "image_tokens", "text_tokens"),
}
"""openai.types.CompletionUsage. The parity test compares with the installed SDK, so that a new field there is noticed."""


def _filled(part: Any, names: Mapping[str, Any] | tuple[str, ...]) -> None:
    if isinstance(part, dict):
        for name in names:
            part.setdefault(name, None)


def _note_refusal(result: ChatResult, body: Any) -> None:
    """As the stock class does for the first choice, None included."""
    if result.generations:
        said = body["choices"][0]["message"]
        result.generations[0].message.additional_kwargs["refusal"] = said.get("refusal")


def _plain(value: object) -> Any:
    """What LangChain leaves in a payload besides plain JSON: pydantic models."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} is no JSON")
    return dump(mode="json")
