"""Whether a success's body is a chat completion at all: what is odd in it is said here, before LangChain falls over it.

What does not touch the answer is mended instead, since the answer is paid: counts that are none, a role that is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcbatch import jsontext
from lcbatch.models.outline import CHAT
from lcbatch.models.received import UnreadableAnswer

_NO_SUCCESS = 300
_SHOWN_CHARS = 200
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


class WebPage(UnreadableAnswer):
    """A page came, as web servers send it and no model provider does."""


def understood(body: Any) -> Any:
    """The body, mended where it has to be, ready for LangChain. Raises UnreadableAnswer for one that holds no answer.

    What says that it is an error passes: LangChain raises it as it is.
    """
    said = refuse_no_object(body, "chat completion")
    if said.get("error"):
        if not isinstance(said["error"], str | Mapping | list):
            raise UnreadableAnswer("the answer says that it is an error, and not which one")
        return body
    if (odd := _odd_choices(said.get("choices"))) is not None:
        raise UnreadableAnswer(f"the answer is no chat completion: {odd}")
    _mend(said)
    return body


async def read_completion(response: Any) -> None:
    """The same for a response that an SDK is to parse: a hook of httpx's clients, after `read_within_bounds`."""
    if response.status_code >= _NO_SUCCESS or not response.request.url.path.endswith(CHAT):
        return
    content = b"".join([piece async for piece in response.stream])
    try:
        body = jsontext.loads(content)
    except ValueError:
        if content.lstrip().startswith(b"<"):
            refuse_no_object(content.decode("utf-8", "replace"), "chat completion")
        return  # broken JSON, or none: for the client to judge
    before = jsontext.dumps(body)
    after = jsontext.dumps(understood(body))
    if after != before:
        response.stream = type(response.stream)(after.encode())


def refuse_no_object(body: Any, wanted: str) -> dict[str, Any]:
    """The body as the JSON object that it has to be. Raises UnreadableAnswer, WebPage; `wanted` says what it should be."""
    if isinstance(body, dict):
        return body
    if not isinstance(body, str):
        raise UnreadableAnswer(f"the answer is {_kind_of(body)} and no {wanted}")
    text = body.strip()
    if text.startswith("<"):
        raise WebPage(f"the answer is a web page and no {wanted}: {_shown(text)}")
    if not text:
        raise UnreadableAnswer(f"the answer is empty and no {wanted}")
    raise UnreadableAnswer(f"the answer is text and no {wanted}: {_shown(text)}")


def _odd_choices(choices: Any) -> str | None:
    if not isinstance(choices, list):
        return "it has no choices" if choices is None else f"its choices are {_kind_of(choices)}"
    if not choices:
        return "its list of choices is empty"
    return next((odd for choice in choices if (odd := _odd_choice(choice)) is not None), None)


def _odd_choice(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return f"a choice in it is {_kind_of(choice)}"
    message = choice.get("message")
    if not isinstance(message, dict):
        return f"its message is {_kind_of(message)}"
    role = message.get("role")
    if role is not None and role != "assistant":
        return f"its message is said by {_shown(str(role))}, and not by the assistant"
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        return f"its content is {_kind_of(content)}"
    if isinstance(content, list) and not all(isinstance(part, str | dict) for part in content):
        return "a part of its content is neither text nor an object"
    return _odd_calls(message)


def _odd_calls(message: Mapping[str, Any]) -> str | None:
    called = message.get("function_call")
    if called and not isinstance(called, dict):
        return f"its function call is {_kind_of(called)}"
    calls = message.get("tool_calls")
    if calls and not (isinstance(calls, list) and all(map(_is_tool_call, calls))):
        return "a tool call in it is none"
    return None


def _is_tool_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    return isinstance(function.get("arguments"), str | dict | None)


def _mend(said: dict[str, Any]) -> None:
    for choice in said["choices"]:
        message = choice["message"]
        message["role"] = "assistant"
        if not isinstance(choice.get("finish_reason"), str | None):
            choice["finish_reason"] = str(choice["finish_reason"])
        for call in message.get("tool_calls") or ():
            arguments = call["function"].setdefault("arguments", None)
            if isinstance(arguments, dict):
                call["function"]["arguments"] = jsontext.dumps(arguments)
    said["usage"] = _counts(said.get("usage"))
    if not isinstance(said.get("service_tier"), str | None):
        del said["service_tier"]


def _counts(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    for name in _DETAILS:
        if (details := usage.get(name)) is not None:
            counts = details.items() if isinstance(details, dict) else ()
            usage[name] = {what: count for what, count in counts if count is None or type(count) is int}
    return usage


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds: dict[type[Any], str] = {type(None): "null", dict: "an object", list: "a list", str: "a text"}
    return kinds.get(type(value), "a number")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")
