"""The short way to OpenAI's chat completions for what is plain text.

LangChain builds a dozen objects for each call on both ways. What they come to is the same for all calls of a run that differ
in their texts alone, so it is built once; the parity tests hold this to what LangChain makes of each.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from lcbatch import jsontext
from lcbatch.records import Answer, Json, Request, Usage

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

_PLAIN_KEYS = {"role", "content"}
_IN_THE_BODY = {"response_format"}
"""Parameters that LangChain puts into the body as they are."""
_BODYS_OWN = ("id", "model", "choices", "object", "created", "usage")


@dataclass(frozen=True, slots=True)
class Frame:
    """A request's body but for its messages, as LangChain makes it. `roles` None: this model's requests are no such thing."""

    head: bytes
    headers: Mapping[str, str]
    roles: Mapping[str, str] | None

    @classmethod
    def of(cls, chat: ChatOpenAI, *, usable: bool) -> Frame:
        """What all plain requests to this model have in common. Not `usable`: it is none of ours to send."""
        if not usable:
            return cls(b"", {}, None)
        from langchain_core.messages import AIMessage, HumanMessage, SystemMessage  # noqa: PLC0415 - loads with ChatOpenAI

        probe = [SystemMessage("s"), HumanMessage("u"), AIMessage("a")]
        payload = chat._get_request_payload(probe)  # noqa: SLF001 - the subclass's own
        said = payload.pop("messages", None)
        extra = payload.pop("extra_body", None) or {}
        headers = payload.pop("extra_headers", None) or {}
        if not isinstance(said, list) or [_content(message) for message in said] != ["s", "u", "a"]:
            return cls(b"", {}, None)
        try:
            head = orjson.dumps({**payload, **extra})[:-1]
        except orjson.JSONEncodeError:
            return cls(b"", {}, None)
        roles = dict(zip(("system", "user", "assistant"), (message["role"] for message in said), strict=True))
        return cls(head, headers, roles)

    def body(self, request: Request) -> bytes | None:
        """The whole body, None for a request that is not plain."""
        roles = self.roles
        if roles is None or request.native is not None or request.params.keys() - _IN_THE_BODY:
            return None
        if request.params and b'"response_format":' in self.head:
            return None
        messages = []
        for message in request.messages:
            if message.keys() != _PLAIN_KEYS or type(message["content"]) is not str or type(message["role"]) is not str:
                return None
            if message["role"] not in roles:
                return None
            messages.append({"role": roles[message["role"]], "content": message["content"]})
        return self.around(messages, request.params)

    def around(self, messages: Sequence[Mapping[str, str]], params: Mapping[str, Json]) -> bytes | None:
        """The whole body, for messages in the model's own roles; None for what is no Unicode."""
        try:
            form = b"," + orjson.dumps(params)[1:-1] if params else b""
            if jsontext.holds_long_text(messages):
                return self._around_long(messages, form)
            said = orjson.dumps(messages)
        except orjson.JSONEncodeError:  # a lone surrogate
            return None
        return b"%b%b%b}" % (self._opening(), said, form)

    def _around_long(self, messages: Sequence[Mapping[str, str]], form: bytes) -> bytes:
        """The same without a second copy of what is said. Raises JSONEncodeError."""
        out = io.BytesIO()
        out.write(self._opening())
        jsontext.write(messages, out)
        out.write(form + b"}")
        return out.getvalue()

    def _opening(self) -> bytes:
        return b'%b%b"messages":' % (self.head, b"," if len(self.head) > 1 else b"")


def _content(message: Any) -> Any:
    return message.get("content") if isinstance(message, dict) and message.keys() == _PLAIN_KEYS else None


def plain_choice(body: Any) -> dict[str, Any] | None:
    """A chat completion's one choice, None for whatever LangChain has to look at: errors in it, no choice, tools, parts.

    More tolerant than LangChain in one thing: a message without a role, as some servers send it, is the assistant's.
    """
    if type(body) is not dict or body.get("error") is not None:
        return None
    choices = body.get("choices")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
        return None
    choice = choices[0]
    message = choice.get("message")
    if type(message) is not dict or message.keys() - _PLAIN_MESSAGE or type(message.get("content")) is not str:
        return None
    if any(message.get(name) for name in _NOT_PLAIN) or message.get("role", "assistant") != "assistant":
        return None
    if choice.get("logprobs") is not None:
        return None
    counted = body.get("usage")
    if counted is not None and type(counted) is not dict:
        return None
    return choice


def plain_answer(body: Any) -> Answer | None:
    """The answer in a chat completion that is one plain choice, None for any other."""
    choice = plain_choice(body)
    if choice is None:
        return None
    message, counted, finish_reason = choice["message"], body.get("usage"), choice.get("finish_reason")
    metadata: dict[str, Json] = {name: value for name, value in body.items() if name not in _BODYS_OWN}
    metadata |= {"id": body.get("id"), "model_name": body.get("model"), "token_usage": counted}
    metadata |= {"finish_reason": finish_reason, "logprobs": None}
    return Answer(
        text=message["content"],
        message={
            "content": message["content"],
            "additional_kwargs": {"refusal": message.get("refusal")},
            "response_metadata": metadata,
        },
        model=str(body.get("model") or ""),
        finish_reason=finish_reason if finish_reason is None else str(finish_reason),
        usage=usage_of(counted),
    )


_PLAIN_MESSAGE = {"role", "content", "refusal", "annotations", "tool_calls", "function_call", "audio"}
_NOT_PLAIN = ("tool_calls", "function_call", "audio")


def usage_of(counted: Mapping[str, Json] | None) -> Usage:
    """Tokens as the provider counted them, none where it did not."""
    if not counted:
        return Usage()
    return Usage.told(counted.get("prompt_tokens"), counted.get("completion_tokens"))
