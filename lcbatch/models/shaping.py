"""Asking for an object in the way that a model knows: natively, by a tool call, or in plain words.

Requests for an object come with `response_format` in OpenAI's words. A server that speaks OpenAI's language takes it as it is.
For all others LangChain's own `with_structured_output` is asked what it would bind, so that each integration's knowledge of its
provider is used, and the call itself goes the same way as any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeAlias

from lcbatch import jsontext
from lcbatch.ports import Ask
from lcbatch.records import Answer, Json, Request

_IN_WORDS = "Answer with one JSON object and nothing besides it. It has to fit this JSON schema:\n"
_FOR_TRACES = "ls_structured_output_format"
"""What LangChain binds for LangSmith alone."""

Bind: TypeAlias = Callable[[Mapping[str, Json]], Mapping[str, Any] | None]
"""From (name, schema, strict) to the call's parameters; None where only words are left."""


def as_openai_does(method: str) -> Callable[[Ask], Ask] | None:
    """How a server of OpenAI's language is asked: `native`, `tool` or `json`. None for the first, which needs no change."""
    ways: Mapping[str, Bind | None] = {"native": None, "tool": _openai_tool, "json": _openai_json}
    bind = ways[method]
    return None if bind is None else lambda way: _shaped(way, bind)


def by_langchain(chat: Any, method: str) -> Callable[[Ask], Ask]:
    """How any other provider is asked: by what its integration prefers (`auto`, `native`), by a tool call, or in words."""
    ways: Mapping[str, Bind] = {"tool": _one_tool(chat), "json": _nothing}
    bind = ways.get(method, _as_it_prefers(chat))
    return lambda way: _shaped(way, bind)


def best_way(chat: Any) -> str:
    """What LangChain's profile of a model knows. Of an unknown one, as local servers have them, the native way is expected."""
    profile = getattr(chat, "profile", None) or {}
    if profile.get("structured_output", True):
        return "native"
    return "tool" if profile.get("tool_calling") else "json"


def _shaped(way: Ask, bind: Bind) -> Ask:
    def ask(request: Request) -> Awaitable[Answer]:
        form = request.params.get("response_format")
        if request.native is not None or not isinstance(form, dict) or form.get("type") != "json_schema":
            return way(request)
        asked = form["json_schema"]
        bound = bind(asked)
        params = {name: value for name, value in request.params.items() if name != "response_format"}
        messages = request.messages
        if bound is None or bound.get("response_format") == _JSON_MODE:
            messages = _with_words(messages, asked["schema"])
        return way(replace(request, messages=messages, params={**params, **(bound or {})}))

    return ask


_JSON_MODE = {"type": "json_object"}


def _openai_tool(asked: Mapping[str, Json]) -> Mapping[str, Any]:
    function = {"name": asked["name"], "parameters": asked["schema"], "strict": asked["strict"]}
    choice = {"type": "function", "function": {"name": asked["name"]}}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}


def _openai_json(_asked: Mapping[str, Json]) -> Mapping[str, Any]:
    return {"response_format": _JSON_MODE}


def _nothing(_asked: Mapping[str, Json]) -> None:
    return None


def _as_it_prefers(chat: Any) -> Bind:
    """What the integration's `with_structured_output` binds, by the method that it prefers itself."""

    @lru_cache(maxsize=8)
    def bound(text: str) -> Mapping[str, Any] | None:
        asked = jsontext.loads(text)
        try:
            chain = chat.with_structured_output(_titled(asked))
        except (NotImplementedError, ValueError, TypeError):
            return None
        return _bound_to(getattr(chain, "first", chain))

    return lambda asked: bound(jsontext.dumps(dict(asked)))


def _one_tool(chat: Any) -> Bind:
    """What the integration's `bind_tools` binds for one tool that has to be called."""

    @lru_cache(maxsize=8)
    def bound(text: str) -> Mapping[str, Any] | None:
        try:
            return _bound_to(chat.bind_tools([_titled(jsontext.loads(text))], tool_choice="any"))
        except (NotImplementedError, ValueError, TypeError):
            return None

    return lambda asked: bound(jsontext.dumps(dict(asked)))


def _titled(asked: Mapping[str, Json]) -> dict[str, Json]:
    """A schema as LangChain takes it: with a name, and with something said of it."""
    return {"description": "The answer.", **asked["schema"], "title": asked["name"]}


def _bound_to(binding: Any) -> Mapping[str, Any] | None:
    """The call's parameters in a binding; None where it is none, or holds more than parameters."""
    kwargs = getattr(binding, "kwargs", None)
    if not isinstance(kwargs, dict) or not kwargs:
        return None
    return {name: value for name, value in kwargs.items() if name != _FOR_TRACES}


def _with_words(messages: list[Json], schema: Json) -> list[Json]:
    """The messages with the schema told at the end of the system text, or before all others."""
    words = _IN_WORDS + jsontext.dumps(schema)
    first = messages[0] if messages else {}
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{first['content']}\n\n{words}"}, *messages[1:]]
    return [{"role": "system", "content": words}, *messages]
