"""A stand-in for a chat model: the model in all but the steps in which it asks its provider.

LangChain's own code runs on it as on any model. Where that streams, the stand-in's stream is one chunk, the whole reply.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from lcbatch.messages import shallow_copy

_OF_STREAMING = frozenset({"stream", "stream_usage", "stream_options"})
"""Options that providers refuse in a call for a whole reply."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What LangChain asked of a model, kept for the innermost layer."""

    model: BaseChatModel
    messages: list[BaseMessage]
    stop: list[str] | None
    run_manager: Any
    options: Mapping[str, Any]


class LoopWaits(Exception):
    """The loop waits for the very thread that waits for it."""


class Answers(Protocol):
    """Who answers in the model's place. Both raise LoopWaits, and whatever the chain is to see of a failed call."""

    async def reply(self, asked: Asked) -> AIMessage:
        """The whole reply."""
        ...

    def reply_to_thread(self, asked: Asked) -> AIMessage:
        """The same for sync code, which is held up meanwhile."""
        ...


class _Steps:
    """The steps in which a chat model asks its provider, taken from a governor.

    Where the loop waits for this thread the model's own step is taken: going past the stack is better than a deadlock.
    """

    def __init__(self, model: BaseChatModel, governor: Answers) -> None:
        self._model = model
        self._governor = governor

    async def agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        try:
            message = await self._governor.reply(self._asked(messages, stop, run_manager, options))
        except LoopWaits:
            return await self._model._agenerate(messages, stop, run_manager, **options)  # noqa: SLF001
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=_info(message))])

    def generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        try:
            message = self._governor.reply_to_thread(self._asked(messages, stop, run_manager, options))
        except LoopWaits:
            return self._model._generate(messages, stop, run_manager, **options)  # noqa: SLF001
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=_info(message))])

    async def astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            message = await self._governor.reply(self._asked(messages, stop, run_manager, options))
        except LoopWaits:
            async for chunk in self._model._astream(messages, stop, run_manager, **options):  # noqa: SLF001
                yield chunk
        else:
            yield _one_chunk(message)

    def stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> Iterator[ChatGenerationChunk]:
        try:
            message = self._governor.reply_to_thread(self._asked(messages, stop, run_manager, options))
        except LoopWaits:
            yield from self._model._stream(messages, stop, run_manager, **options)  # noqa: SLF001
        else:
            yield _one_chunk(message)

    def _asked(
        self, messages: list[BaseMessage], stop: list[str] | None, run_manager: Any, options: Mapping[str, Any]
    ) -> Asked:
        asked = {name: value for name, value in options.items() if name not in _OF_STREAMING}
        return Asked(self._model, messages, stop, run_manager, asked)


_PARAMETERS = inspect.signature(_Steps.agenerate.__get__(object()))
"""LangChain inspects the step for its parameters at every call, which costs more than the step."""


def stand_in(model: BaseChatModel, governor: Answers) -> BaseChatModel:
    """The model in all but its steps. An attribute of the object comes before the class's method of that name."""
    steps = _Steps(model, governor)
    agenerate = functools.partial(steps.agenerate)  # a method has no attributes of its own
    agenerate.__signature__ = _PARAMETERS  # type: ignore[attr-defined]
    getattr(model, "_serialized", None)  # what LangChain keeps on the model must not be worked out anew on each copy
    return shallow_copy(
        model,
        _agenerate=agenerate,
        _generate=steps.generate,
        _astream=steps.astream,
        _stream=steps.stream,
        _astream_chat_model_events=None,
        _stream_chat_model_events=None,
        **{_MARK: True},
    )


_MARK = "_lcbatch_stand_in"


def is_stand_in(model: BaseChatModel) -> bool:
    """Whether the model is a stand-in already: LangChain's own code calls itself on it."""
    return _MARK in model.__dict__


def whole_replies(model: BaseChatModel) -> BaseChatModel:
    """The model, set up to answer in one piece."""
    more: dict[str, Any] = getattr(model, "model_kwargs", None) or {}
    changes: dict[str, Any] = {"streaming": False} if getattr(model, "streaming", False) else {}
    if not _OF_STREAMING.isdisjoint(more):
        changes["model_kwargs"] = {name: value for name, value in more.items() if name not in _OF_STREAMING}
    return shallow_copy(model, **changes) if changes else model


def _one_chunk(message: AIMessage) -> ChatGenerationChunk:
    """A stream's only chunk. `chunk_position` says that nothing comes after it."""
    chunk = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        name=message.name,
        id=message.id,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=chunk, generation_info=_info(message))


def _info(message: AIMessage) -> dict[str, Any] | None:
    reason = message.response_metadata.get("finish_reason")
    return {"finish_reason": reason} if reason else None
