"""Every chat model that runs inside a user's own chain, governed: its inner generate step goes through a call stack.

The step is hooked on LangChain's base class for the time of a run. A wrapper around the model would not do: it breaks
`bind_tools` and structured output, and cannot reach a model that is built inside a function or an agent. Streaming inside a
chain is answered from a whole reply. Outside of a row nothing is changed.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from lcbatch.ports import Call
from lcbatch.records import Json, Reply, Request, current_row

StackOf = Callable[[BaseChatModel], Call]
"""Builds the call stack for one model; its innermost layer calls `ask`."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What LangChain asked of a model, kept for the innermost layer."""

    model: BaseChatModel
    messages: list[BaseMessage]
    stop: list[str] | None
    run_manager: Any
    options: dict[str, Any]


async def ask(request: Request) -> AIMessage:
    """The innermost step: what LangChain would have done, without its cache, its rate limiter and its streaming."""
    asked: _Asked = request.native
    result = await asked.model._agenerate(  # noqa: SLF001 - the step that is hooked
        asked.messages, stop=asked.stop, run_manager=asked.run_manager, **asked.options
    )
    generation = result.generations[0]
    message = generation.message
    assert isinstance(message, AIMessage)
    message.response_metadata = {
        **(result.llm_output or {}),
        **(generation.generation_info or {}),
        **message.response_metadata,
    }
    return message


@contextmanager
def governed(stack_of: StackOf) -> Iterator[None]:
    """While inside, models that run in a row go through `stack_of(model)`; one stack for each model."""
    governor = _Governor(stack_of, asyncio.get_running_loop())
    whole, whole_sync = BaseChatModel._agenerate_with_cache, BaseChatModel._generate_with_cache  # noqa: SLF001

    async def generate(
        self: BaseChatModel,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        if not _ours(self, kwargs):
            return await whole(self, messages, stop, run_manager, **kwargs)
        return await governor.generate(_Asked(self, messages, stop, run_manager, kwargs))

    def generate_sync(
        self: BaseChatModel,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        if not _ours(self, kwargs) or _on_a_loop():
            return whole_sync(self, messages, stop, run_manager, **kwargs)
        return governor.from_thread(_Asked(self, messages, stop, None, kwargs))

    BaseChatModel._agenerate_with_cache = generate  # type: ignore[method-assign] # noqa: SLF001
    BaseChatModel._generate_with_cache = generate_sync  # type: ignore[method-assign] # noqa: SLF001
    try:
        yield
    finally:
        BaseChatModel._agenerate_with_cache = whole  # type: ignore[method-assign] # noqa: SLF001
        BaseChatModel._generate_with_cache = whole_sync  # type: ignore[method-assign] # noqa: SLF001


class _Governor:
    def __init__(self, stack_of: StackOf, loop: asyncio.AbstractEventLoop) -> None:
        self._stack_of = stack_of
        self._loop = loop
        self._stacks: dict[int, tuple[weakref.ref[BaseChatModel], Call]] = {}

    async def generate(self, asked: _Asked) -> ChatResult:
        reply = await self._stack(asked.model)(_request(asked))
        message = reply.native if isinstance(reply.native, AIMessage) else restored(reply)
        info = {"finish_reason": reply.finish_reason} if reply.finish_reason else None
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])

    def from_thread(self, asked: _Asked) -> ChatResult:
        """For `invoke` in a worker thread: the call is made on the run's loop, in the thread's own context."""
        return asyncio.run_coroutine_threadsafe(self.generate(asked), self._loop).result()

    def _stack(self, model: BaseChatModel) -> Call:
        known = self._stacks.get(id(model))
        if known is not None and known[0]() is model:
            return known[1]
        stack = self._stack_of(model)
        self._stacks[id(model)] = (weakref.ref(model), stack)
        return stack


def label_of(model: BaseChatModel) -> str:
    """`provider:name`, as LangChain's own tracing calls it."""
    facts = model._get_ls_params()  # noqa: SLF001 - the one place where every integration says its name
    return f"{facts.get('ls_provider', 'unknown')}:{facts.get('ls_model_name', type(model).__name__)}"


def restored(reply: Reply) -> AIMessage:
    """The message that a stored reply was."""
    return AIMessage(**reply.message)


def _ours(model: BaseChatModel, options: dict[str, Any]) -> bool:
    """Whether a call is made in a row, and is one that a single reply answers."""
    several = options.get("n") or getattr(model, "n", None) or 1
    return current_row.get(None) is not None and several == 1


def _on_a_loop() -> bool:
    """A sync call on the event loop itself cannot wait for the loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _request(asked: _Asked) -> Request:
    """What decides the reply, as plain JSON: never an id that LangChain makes up anew for each run."""
    params = {name: _plain(value) for name, value in asked.options.items()}
    return Request(
        messages=[_said(message) for message in asked.messages],
        params={"model": label_of(asked.model), "stop": asked.stop, **params},
        native=asked,
    )


def _said(message: BaseMessage) -> Json:
    said = {"type": message.type, "content": message.content}
    for name in ("tool_calls", "tool_call_id", "name"):
        if value := getattr(message, name, None):
            said[name] = value
    return said


def _plain(value: Any) -> Json:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_plain(inner) for inner in value]
    return f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
