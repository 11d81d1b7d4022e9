"""LangChain's messages and models by their shape: nothing of LangChain is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from lcbatch import jsontext
from lcbatch.records import Answer, Json, Usage

M = TypeVar("M")


def message_of(result: Any) -> Any:
    """A ChatResult's first message, with the metadata that BaseChatModel gives it."""
    generation = result.generations[0]
    message = generation.message
    alone = (result.llm_output or {}) if len(result.generations) == 1 else {}
    message.response_metadata = {**alone, **(generation.generation_info or {}), **message.response_metadata}
    return message


def answer_of(message: Any) -> Answer:
    """A message as plain JSON, and what its metadata say."""
    metadata = message.response_metadata
    counted = message.usage_metadata
    finish_reason = metadata.get("finish_reason") or metadata.get("stop_reason")
    return Answer(
        text=str(message.text),
        message=message_json(message),
        model=str(metadata.get("model_name") or metadata.get("model") or ""),
        finish_reason=str(finish_reason) if finish_reason is not None else None,
        usage=Usage.told(counted["input_tokens"], counted["output_tokens"]) if counted else Usage(),
        native=message,
    )


def message_json(message: Any) -> dict[str, Any]:
    """The assistant's message as plain JSON: what is there, and nothing empty."""
    content = message.content
    found: dict[str, Any] = {"content": content if type(content) is str else _copied(content)}
    for name in ("tool_calls", "invalid_tool_calls", "additional_kwargs", "response_metadata", "usage_metadata", "id"):
        value = getattr(message, name)
        if value:
            found[name] = value if type(value) is str else _copied(value)
    return found


def raw_answer(text: str, message: Mapping[str, Json]) -> str:
    """What a model said: the arguments of its tool call as JSON text where it made one, else its text.

    `message` is as `message_json` makes it.
    """
    for name in ("tool_calls", "invalid_tool_calls"):
        for call in message.get(name) or ():
            arguments = call.get("args")
            return arguments if isinstance(arguments, str) else jsontext.dumps(arguments)
    return text


def _copied(value: Any) -> Json:
    """The value as JSON of its own. Most of what stands in a message came out of JSON, and goes through it the quick way."""
    try:
        return orjson.loads(orjson.dumps(value, option=_NOTHING_BUT_JSON))
    except (TypeError, ValueError):  # both of its errors, and what it cannot read back
        return _plain(value)


_NOTHING_BUT_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def _plain(value: Any) -> Json:
    """JSON as it is; whatever else a provider's integration leaves in its metadata as what it dumps, or as text.

    Nothing here may fail: it stands between a paid answer and the store.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    dump = getattr(value, "model_dump", None)
    return _plain(dump(mode="json")) if dump is not None else str(value)


def shallow_copy(model: M, **attributes: Any) -> M:
    """A chat model's copy that shares its private state, so that nothing a model keeps there is lost with the copy."""
    whole: Any = model
    return recast(whole, type(model), whole.__pydantic_private__, **attributes)


def recast(model: Any, kind: type[M], private: Mapping[str, Any] | None, **attributes: Any) -> M:
    """A model's fields in a class with the same ones, or more; unchecked: they were checked when the model was made."""
    copy = kind.__new__(kind)
    object.__setattr__(copy, "__dict__", {**model.__dict__, **attributes})
    object.__setattr__(copy, "__pydantic_fields_set__", set(model.__pydantic_fields_set__))
    object.__setattr__(copy, "__pydantic_extra__", model.__pydantic_extra__)
    object.__setattr__(copy, "__pydantic_private__", private)
    return copy
