"""The places where LangChain's base classes come to a model's own code, hooked for the time of a run and then put back.

The classes are the process's, and so are the hooks: runs that overlap share them, and the last one takes them away.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, BaseLLM
from langchain_core.messages import AIMessage, BaseMessage

from lcbatch.errors import ConfigError

_CHAT_PLACES = {
    "_agenerate_with_cache": False,
    "_generate_with_cache": True,
    "astream": False,
    "stream": True,
    "_aiter_v2_events": False,
    "_iter_v2_events": True,
}
"""The methods of BaseChatModel that call `_agenerate`, `_generate`, `_astream`, `_stream` or a native event stream, and whether
they block. The last two serve `astream_events(version="v3")` and the graphs that stream by it."""

_LLM_PLACES = ("agenerate", "generate", "astream", "stream")
"""The same of models that are no chat models."""

_LOCK = threading.Lock()
"""Library users may run in several threads."""


class Governor(Protocol):
    """Decides about every call while its hooks are set; in a process with several runs, each about its own."""

    def instead(self, model: BaseChatModel, options: dict[str, Any], *, blocking: bool) -> BaseChatModel | None:
        """What a place is to work on instead of `model`, `model` itself to leave it; None where the call is another's."""
        ...

    def straight(
        self, model: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]
    ) -> Awaitable[AIMessage] | None:
        """The whole reply without LangChain's code around it, None where that would do something for this call."""
        ...

    def passed(self, model: BaseLanguageModel[Any]) -> None:
        """A model that cannot be governed is called."""
        ...


class _Hooks:
    def __init__(self) -> None:
        self.governors: list[Governor] = []
        self._whole: list[tuple[type, str, Any]] = []

    def set_all(self) -> None:
        places = [(BaseChatModel, name) for name in _CHAT_PLACES] + [(BaseLLM, name) for name in _LLM_PLACES]
        for owner, name in places:
            if name not in owner.__dict__:  # models would be called past the stack, and nobody would notice
                raise ConfigError(
                    f"--chain: the installed langchain-core is not known to lcbatch: {owner.__name__} has no {name}",
                    hint="install a version of langchain-core that was there before this lcbatch",
                )
        for name, blocking in _CHAT_PLACES.items():
            self._set(BaseChatModel, name, functools.partial(self._for_chat, blocking=blocking))
        for name in _LLM_PLACES:
            self._set(BaseLLM, name, self._for_llm)

    def put_back(self) -> None:
        for owner, name, whole in self._whole:
            setattr(owner, name, whole)

    def _set(self, owner: type, name: str, make: Callable[[Any], Any]) -> None:
        whole = owner.__dict__[name]
        self._whole.append((owner, name, whole))
        hook: Any = functools.wraps(whole)(make(whole))
        hook.lcbatch_hooks = self
        hook.straight = self._straight
        setattr(owner, name, hook)

    def _for_chat(self, whole: Callable[..., Any], *, blocking: bool) -> Callable[..., Any]:
        def hook(model: BaseChatModel, *args: Any, **options: Any) -> Any:
            for governor in tuple(self.governors):
                if (instead := governor.instead(model, options, blocking=blocking)) is not None:
                    return whole(instead, *args, **options)
            return whole(model, *args, **options)

        return hook

    def _straight(
        self, model: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]
    ) -> Awaitable[AIMessage] | None:
        """For whoever knows that nobody listens to the call."""
        for governor in tuple(self.governors):
            if (reply := governor.straight(model, messages, stop, options)) is not None:
                return reply
        return None

    def _for_llm(self, whole: Callable[..., Any]) -> Callable[..., Any]:
        def hook(model: BaseLLM, *args: Any, **options: Any) -> Any:
            for governor in tuple(self.governors):
                governor.passed(model)
            return whole(model, *args, **options)

        return hook


@contextmanager
def hooked(governor: Governor) -> Iterator[None]:
    """While inside, every call of a LangChain model in this process is shown to `governor`.

    Raises ConfigError for a LangChain that has other places.
    """
    with _LOCK:
        hooks = getattr(BaseChatModel.astream, "lcbatch_hooks", None)
        if hooks is None:
            hooks = _Hooks()
            hooks.set_all()
        hooks.governors.append(governor)
    try:
        yield
    finally:
        with _LOCK:
            hooks.governors.remove(governor)
            if not hooks.governors:
                hooks.put_back()
