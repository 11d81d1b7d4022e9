"""The fast lane: a ChatOpenAI whose requests go over aiohttp and whose answers are parsed by orjson.

LangChain still builds the request and the message; only the way between them is shorter than the SDK's (which costs about
2 ms of CPU a call, most of it in its connection pool and its walk over the body). What this way does not cover takes the
stock one by itself: the responses API, tools beside a response format, options of the SDK's own transport.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import orjson
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import (
    _create_usage_metadata,
    _handle_openai_api_error,
    _handle_openai_bad_request,
)
from openai.lib._parsing import parse_chat_completion, type_to_response_format_param
from openai.types.chat import ChatCompletion
from pydantic import Field, PrivateAttr, SecretStr, ValidationError

from lcbatch.messages import answer_of, message_of, recast
from lcbatch.models.completions import read_completion, understood
from lcbatch.models.outline import CHAT, Outline
from lcbatch.models.plain import Frame, plain_choice, usage_of
from lcbatch.models.proxies import around_proxies
from lcbatch.models.received import UnreadableAnswer, read_within_bounds
from lcbatch.models.wire import FAULTS, Heard, Wire
from lcbatch.records import Answer, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun

_KEEPALIVE_S = 60.0
_STOCK_PAYLOAD = frozenset({"timeout", "extra_query"})
"""Parameters that the SDK does not put into the body as they are."""
_CUT_OFF = frozenset({"length", "content_filter"})
"""Reasons to finish that are errors where a form was asked for."""
_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of the body as it travelled; aiohttp has unpacked it."""
_ROLES = {SystemMessage: "system", HumanMessage: "user", AIMessage: "assistant"}
_OF_AN_ANSWER = ("tool_calls", "invalid_tool_calls", "response_metadata")
"""What an answer that is said again may have beside its text."""


class FastChatOpenAI(ChatOpenAI):
    """ChatOpenAI over one wire of its own.

    `connections` bounds the wire's pool and should be no less than the calls in flight. `heard` is told the headers of every
    response, `told` once of each reason for which a call goes the stock way. `frame`, where there is one, is that of this model
    as it is: what is plain goes past LangChain with it. The connections open as they are needed; `aclose` closes them. Timeouts
    are the caller's affair. Raises what ChatOpenAI raises.

    What goes the stock way goes over an HTTP client of its own, too: LangChain's is shared by all models of the process and is
    never closed, so that it outlives its event loop.
    """

    connections: int = 1000
    heard: Heard | None = Field(default=None, exclude=True)
    told: Callable[[str], None] | None = Field(default=None, exclude=True)
    frame: Frame | None = Field(default=None, exclude=True)
    _wire: Wire | None = PrivateAttr(default=None)
    _stock: httpx2.AsyncClient | None = PrivateAttr(default=None)
    _stock_sdk: openai.AsyncOpenAI | None = PrivateAttr(default=None)
    _detours: set[str] = PrivateAttr(default_factory=set)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        payload = self._get_request_payload(messages, stop=stop, **kwargs)
        if (why := self.stock_way(payload)) is not None:
            self._tell(why)
            self._open_stock()
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        extra = payload.pop("extra_body", None) or {}
        headers = payload.pop("extra_headers", None) or {}
        form = payload.get("response_format")
        if form is not None:
            payload["response_format"] = type_to_response_format_param(form)
            payload.pop("stream", None)
        body = await self._send(_body({**payload, **extra}), headers)
        return self.result(body) if form is None else self._formed(body, form)

    def plainly(self, messages: Sequence[BaseMessage]) -> Awaitable[Answer] | None:
        """What `_agenerate` comes to for messages of mere text, in a tenth of the time; None for others.

        Raises what ChatOpenAI raises.
        """
        frame = self.frame
        if frame is None or frame.roles is None:
            return None
        said = []
        for message in messages:
            role = _ROLES.get(type(message))
            if (
                role is None
                or type(message.content) is not str
                or message.additional_kwargs
                or message.name is not None
            ):
                return None
            if role == "assistant" and any(getattr(message, name) for name in _OF_AN_ANSWER):
                return None
            said.append({"role": frame.roles[role], "content": message.content})
        data = frame.around(said, {})
        return None if data is None else self._ask_plainly(data, frame.headers)

    async def _ask_plainly(self, data: bytes, headers: Mapping[str, str]) -> Answer:
        body = await self._send(data, headers)
        return _plain_answer(body) or answer_of(message_of(self.result(body)))

    def framed(self) -> Frame:
        """What plain requests to this model as it is now have in common."""
        payload = self._get_request_payload("x")
        is_plain = not payload.get("stream") and payload.get("response_format") is None
        return Frame.of(self, usable=is_plain and self.stock_way(payload) is None)

    def _formed(self, body: Any, form: Any) -> ChatResult:
        """An answer that was asked for in a form. Raises what the SDK raises for one that was cut off, or is not in that form."""
        understood(body)
        if body.get("error"):
            return self.result(body)
        is_cut = any(one.get("finish_reason") in _CUT_OFF for one in body["choices"])
        if is_cut or not isinstance(form, dict):
            completion = ChatCompletion.construct(**_as_the_sdk_reads_it(body))
            parsed = parse_chat_completion(response_format=form, input_tools=(), chat_completion=completion)
            return self._create_chat_result(parsed)
        result = self.result(body)
        for generation in result.generations[:1]:
            generation.message.additional_kwargs = {"parsed": None, **generation.message.additional_kwargs}
        return result

    def result(self, body: Any) -> ChatResult:
        """LangChain's own result for a completion's body. Raises UnreadableAnswer for one that is none; for an error in it, what
        ChatOpenAI raises.
        """
        understood(body)
        try:
            result = self._create_chat_result(_as_the_sdk_reads_it(body))
        except (AttributeError, LookupError, TypeError, ValidationError) as error:
            what = f"LangChain cannot read a part of it ({type(error).__name__})"
            raise UnreadableAnswer(f"the answer is no chat completion: {what}") from None
        _note_refusal(result, body)
        return result

    def stock_way(self, payload: Mapping[str, Any]) -> str | None:
        """Why this request is not the fast lane's, None where it is."""
        if self.http_async_client or self.openai_proxy:
            return "an HTTP client of its own"
        if self.default_query or self.include_response_headers:
            return "default_query or include_response_headers"
        if named := sorted(_STOCK_PAYLOAD.intersection(payload)):
            return named[0]
        if payload.get("response_format") is not None and payload.get("tools"):
            return "tools beside a response format"
        return "the responses API" if self._use_responses_api(dict(payload)) else None

    def outline(self, longest: int | None) -> Outline:
        """What a plain request to this model needs; an answer can have `longest` tokens."""
        return Outline(self.address, self.headers, self.framed(), longest)

    def over(self, wire: Wire) -> None:
        """Send over this wire, which somebody else closes."""
        self._wire = wire

    @property
    def address(self) -> str:
        """Where chat completions are asked for."""
        return str(self.root_async_client.base_url).rstrip("/") + CHAT

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request: the SDK's own headers, the user's and the key."""
        client = self.root_async_client
        named = {**client.default_headers, **client.auth_headers}
        return {name: value for name, value in named.items() if isinstance(value, str)}

    def _tell(self, why: str) -> None:
        if self.told is not None and why not in self._detours:
            self._detours.add(why)
            self.told(f"{self.model_name} goes LangChain's own way, which takes more CPU: {why}")

    async def _send(self, data: bytes, headers: Mapping[str, str]) -> Any:
        """One chat completion's body; raises what ChatOpenAI raises."""
        try:
            return await self._post(data, headers)
        except openai.BadRequestError as error:
            _handle_openai_bad_request(error)
        except openai.APIError as error:
            _handle_openai_api_error(error)
        raise AssertionError("both raise")

    async def _post(self, data: bytes, headers: Mapping[str, str]) -> Any:
        """Send one request; the answer's JSON, or its text where that is none and does not claim to be.

        Raises the SDK's own exceptions, and JSONDecodeError for broken JSON under a JSON content type.
        """
        try:
            response = await self._opened().post(data, headers)
        except TimeoutError as error:
            raise openai.APITimeoutError(self._request()) from error
        except FAULTS as error:
            raise openai.APIConnectionError(request=self._request()) from error
        if not response.is_success:
            kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_THE_WIRE]
            answer = httpx2.Response(
                response.status_code, headers=kept, content=response.content, request=self._request()
            )
            raise self.root_async_client._make_status_error_from_response(answer)  # noqa: SLF001 - the SDK's own mapping
        return response.parsed()

    def _request(self) -> httpx2.Request:
        """As errors want to have it."""
        return httpx2.Request("POST", self.address)

    def _opened(self) -> Wire:
        wire = self._wire
        if wire is None:
            wire = self._wire = Wire(self.address, self.headers, connections=self.connections, heard=self.heard)
        return wire

    def _open_stock(self) -> None:
        if self._stock is None and self.http_async_client is None:
            limits = httpx2.Limits(max_connections=self.connections, keepalive_expiry=_KEEPALIVE_S)
            self._stock = openai.DefaultAsyncHttpxClient(
                limits=limits,
                proxy=self.openai_proxy or None,
                mounts={} if self.openai_proxy else around_proxies(self.root_async_client.base_url.host),
                follow_redirects=False,
                event_hooks={"response": [self._overhear, read_within_bounds, read_completion]},
            )
            self._stock_sdk = self.root_async_client.with_options(http_client=self._stock, max_retries=0)
        if self._stock_sdk is not None:
            self.root_async_client = self._stock_sdk
            self.async_client = self.root_async_client.chat.completions

    async def _overhear(self, response: httpx2.Response) -> None:
        if self.heard is not None:
            self.heard(response.headers)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._wire is not None:
            await self._wire.aclose()
        if self._stock is not None:
            await self._stock.aclose()


def lane_for(
    model: Any, *, connections: int, heard: Heard, told: Callable[[str], None] | None = None
) -> FastChatOpenAI | None:
    """A fast lane that goes where this stock ChatOpenAI goes, with its key and headers.

    None for a subclass, and for a model with a way of its own: an HTTP client, a timeout, a key that a function gives.
    """
    why = _own_way(model)
    if why is None:
        own = {name: private.get_default() for name, private in FastChatOpenAI.__private_attributes__.items()}
        private = {**own, **(model.__pydantic_private__ or {})}
        lane = recast(model, FastChatOpenAI, private, connections=connections, heard=heard, told=told, frame=None)
        if (why := lane.stock_way({"messages": []})) is None:
            return lane
    if told is not None:
        told(f"{getattr(model, 'model_name', 'a model')} goes LangChain's own way, which takes more CPU: {why}")
    return None


def _own_way(model: Any) -> str | None:
    """Why a user's model has to be asked as it is, None where a fast twin does all that it would do."""
    if type(model) is not ChatOpenAI:
        return f"it is a {type(model).__name__}"
    if not isinstance(model.openai_api_key, SecretStr):
        return "a function gives its key"
    if model.request_timeout is not None:
        return "a timeout of its own"
    if model.http_client is not None or model.http_async_client is not None:
        return "an HTTP client of its own"
    return None


def twin_of(model: Any, lane: FastChatOpenAI) -> FastChatOpenAI:
    """The same model over the lane, whose connections it shares."""
    private: Any = lane.__pydantic_private__
    own = {"connections": lane.connections, "heard": lane.heard, "told": lane.told, "frame": None}
    return recast(model, FastChatOpenAI, private, **own)


def _body(payload: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(payload, default=_plain)
    except orjson.JSONEncodeError:  # a lone surrogate or a long integer: escaped, it is for the provider to judge
        return json.dumps(payload, default=_plain).encode()


def _plain_answer(body: Any) -> Answer | None:
    """The answer that LangChain's message would be, None for whatever LangChain has to look at."""
    choice = plain_choice(body)
    if choice is None:
        return None
    text, refusal = choice["message"]["content"], choice["message"].get("refusal")
    said = _as_the_sdk_reads_it(body)
    counted, tier = said["usage"], said.get("service_tier")
    metadata = {
        "token_usage": counted,
        "model_provider": "openai",
        "model_name": said["model"],
        "system_fingerprint": said["system_fingerprint"],
        "id": said["id"],
        "finish_reason": choice.get("finish_reason"),
        "logprobs": None,
    }
    if tier:
        metadata["service_tier"] = tier
    message = {"content": text, "additional_kwargs": {"refusal": refusal}, "response_metadata": metadata}
    try:
        if counted:
            message["usage_metadata"] = _create_usage_metadata(counted, tier)
        native = AIMessage(**message)
    except (TypeError, ValidationError):  # figures that are none
        return None
    finish_reason = metadata["finish_reason"]
    return Answer(
        text=text,
        message=message,
        model=str(said["model"] or ""),
        finish_reason=finish_reason if finish_reason is None else str(finish_reason),
        usage=usage_of(counted),
        native=native,
    )


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
        for name in _COUNTS:
            # LangChain adds these up: a text among them would be an error in place of a paid answer.
            if (told := usage.get(name)) is not None and type(told) is not int:
                usage[name] = Usage.told(told).prompt_tokens
        _filled(usage, _DETAILS)
        for name, known in _DETAILS.items():
            _filled(usage[name], known)
    choices = body["choices"]
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            _filled(choice.setdefault("logprobs", None), ("content", "refusal"))
    return body


_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
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
