"""Steps of a compiled chain, and the config and the context that LangChain would give them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.globals import get_debug
from langchain_core.runnables import Runnable, RunnableConfig, patch_config
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import context as tracers
from langchain_core.utils.env import env_var_is_set
from langsmith.utils import tracing_is_enabled

from lcbatch.records import current_step

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Now:
    """A step that is done at once: it neither waits nor runs code of the user's that might."""

    run: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Later:
    """A step that is awaited, with the config that LangChain would give it.

    A `nested` one makes configs for steps of its own. One that stands `alone` looks at no config and leaves nothing in its
    context: it runs nothing but prompts, parsers and LangChain's own models.
    """

    run: Callable[[Any, RunnableConfig | None], Awaitable[Any]]
    nested: bool = False
    alone: bool = False


Step: TypeAlias = Now | Later


def kind_of(runnable: Any) -> type:
    """The class, exactly: of `RunnableParallel[dict]` it is RunnableParallel; a subclass is its own kind, and unknown."""
    cls = type(runnable)
    generic = cls.__dict__.get("__pydantic_generic_metadata__") or {}
    origin: type | None = generic.get("origin")
    return origin or cls


Listening: TypeAlias = Callable[[RunnableConfig | None], RunnableConfig]
"""Adds to a config whoever is to hear of the runs that are made with it."""


def as_itself(runnable: Runnable[Any, Any], name: str = "", listening: Listening | None = None) -> Later:
    """LangChain's own `ainvoke` as a step. `name` is what calls in it say of themselves, as far as nothing nearer has a name."""

    def run(value: Any, config: RunnableConfig | None) -> asyncio.Task[Any]:
        config = config if listening is None else listening(config)
        return in_context(runnable.ainvoke(value, config), config, name)

    return Later(run)


def in_context(work: Coroutine[Any, Any, _T], config: RunnableConfig | None, name: str = "") -> asyncio.Task[_T]:
    """A task as LangChain makes one for every step: what it sets in its context ends with it, and nested runs find the config.

    Whoever awaits the task cancels it by being cancelled.
    """
    context = copy_context()
    if name:
        context.run(current_step.set, name)
    if config is not None:
        context.run(var_child_runnable_config.set, config)
    return asyncio.create_task(work, context=context)


def child(config: RunnableConfig, parent: UUID, tag: str | None = None) -> RunnableConfig:
    """The config for a step within a run that nobody listens to. `config` has to have all its keys."""
    tags, metadata = config["tags"], config["metadata"]
    manager = AsyncCallbackManager(
        handlers=[],
        inheritable_handlers=[],
        parent_run_id=parent,
        tags=[*tags, tag] if tag else list(tags),
        inheritable_tags=list(tags),
        metadata=dict(metadata),
        inheritable_metadata=dict(metadata),
    )
    return patch_config(config, callbacks=manager)


def nobody_listens() -> bool:
    """Whether LangChain would find no handler at all for a run without a config, told by what it looks at.

    It finds that out itself by making a manager, for every row anew, which costs as much as the prompt. False where it looks at
    something that is not known here.
    """
    hooks: Any = getattr(tracers, "_configure_hooks", None)
    if hooks is None or var_child_runnable_config.get() or get_debug() or _is_traced():
        return False
    return all(var.get() is None and (name is None or not env_var_is_set(name)) for var, _, _, name in hooks)


def _is_traced() -> bool:
    """`LANGCHAIN_TRACING` and `LANGCHAIN_HANDLER` alone are an error, which LangChain raises."""
    if tracers.tracing_v2_callback_var.get() is not None or tracing_is_enabled():
        return True
    return env_var_is_set("LANGCHAIN_TRACING") or env_var_is_set("LANGCHAIN_HANDLER")
