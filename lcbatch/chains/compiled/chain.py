"""A user's chain as plain calls: what LCEL's wrappers do around prompts, models and parsers is left out where nobody listens.

LCEL runs every step in a task with a run manager of its own: 0.6 ms of CPU for a prompt, a model and a parser, where the steps
themselves take 0.06. `compile_chain` turns the parts that it knows into calls of the very methods that do the work; every other
Runnable runs as itself inside, in the config and the context that LangChain would give it. Whoever listens to runs (tracers,
callbacks, debug) has LangChain's own way taken, for a row or for a part. Results, requests to models, exceptions and their texts
are those of `ainvoke`. Two things differ: parsers that run no code of the user's are called on the event loop and not in a
thread; and where several branches of a RunnableParallel fail, it may be another one whose error is told.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableBinding,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    ensure_config,
)
from langchain_core.runnables.config import get_async_callback_manager_for_config, merge_configs
from langchain_core.utils.uuid import uuid7
from langsmith.utils import tracing_is_enabled

from lcbatch.chains.compiled.context import Later, Now, Step, as_itself, child, kind_of, nobody_listens
from lcbatch.chains.compiled.steps import model_step, overridden, plain_step


@dataclass(frozen=True, slots=True)
class PartReport:
    """How one part of a chain is run: `at` is its place (2, or 1.answer.3), `why` says why it runs as itself, if it does."""

    at: str
    what: str
    why: str | None = None


class Compiled:
    """A chain that is called like its `ainvoke`, and gives and raises the same. `report` tells of its parts, in their order."""

    def __init__(self, runnable: Runnable[Any, Any]) -> None:
        parts = _Parts()
        self._runnable = runnable
        self._step = parts.step(runnable, "")
        self.report: list[PartReport] = parts.report
        self._compiled = any(part.why is None for part in parts.report)

    async def __call__(self, value: Any, config: RunnableConfig | None = None) -> Any:
        """Run it once. Where `held_back` has a reason at this moment, LangChain's own way is taken."""
        if not self._compiled or _is_held_back(config):
            return await self._runnable.ainvoke(value, config)
        if isinstance(self._step, Now):
            return self._step.run(value)
        return await self._step.run(value, config)


def compile_chain(runnable: Runnable[Any, Any]) -> Compiled:
    """Find out once what of a chain can be plain calls. Raises nothing: what it does not know runs as itself."""
    return Compiled(runnable)


def held_back(config: RunnableConfig | None = None) -> str | None:
    """Why all chains go LangChain's own way now: handlers, tracers, debug, a global cache.

    Raises RuntimeError for tracing that LangChain no longer knows, as LangChain does.
    """
    if tracing_is_enabled():  # before a tracer is made, which calls LangSmith
        return "tracing to LangSmith is on"
    handlers = _handlers(config)
    if handlers:
        return f"{type(handlers[0]).__name__} listens to every run"
    if config is not None and config.get("run_id"):
        return "the run has an id of its own"
    return None if get_llm_cache() is None else "a global cache is set"


def _is_held_back(config: RunnableConfig | None) -> bool:
    """The same for every row: LangChain makes its tracers a second time then."""
    if get_llm_cache() is not None:
        return True
    if config is None and nobody_listens():
        return False
    given_id = config is not None and config.get("run_id")
    return bool(given_id or _handlers(config))


def _handlers(config: RunnableConfig | None) -> list[BaseCallbackHandler]:
    return get_async_callback_manager_for_config(ensure_config(config)).handlers


class _Parts:
    """Turns Runnables into steps, and notes what became of each."""

    def __init__(self) -> None:
        self.report: list[PartReport] = []

    def step(
        self,
        runnable: Runnable[Any, Any],
        at: str,
        *,
        whole: Runnable[Any, Any] | None = None,
        bound: Mapping[str, Any] | None = None,
    ) -> Step:
        """The step for a Runnable. `whole` is it with the bindings around it, `bound` the arguments that they bind."""
        whole, bound = whole or runnable, bound or {}
        if isinstance(runnable, RunnableBinding) and overridden(runnable, RunnableBinding, *_OF_BINDINGS) is None:
            return self._binding(runnable, at, whole, bound)
        nested = self._nested(runnable)
        if nested is not None and not bound:
            return nested(runnable, at)
        if isinstance(runnable, BaseChatModel):
            step = model_step(runnable, bound)
        else:
            step = "arguments are bound to it" if bound else plain_step(runnable, whole)
        return self._noted(step, runnable, at, whole)

    def _noted(self, step: Step | str, runnable: Runnable[Any, Any], at: str, whole: Runnable[Any, Any]) -> Step:
        why = step if isinstance(step, str) else None
        self.report.append(PartReport(at, _name(runnable), why))
        return as_itself(whole) if isinstance(step, str) else step

    def _nested(self, runnable: Runnable[Any, Any]) -> Callable[[Any, str], Step] | None:
        known: dict[type, Callable[[Any, str], Step]] = {
            RunnableSequence: self._sequence,
            RunnableParallel: self._parallel,
            RunnableAssign: self._assign,
        }
        return known.get(kind_of(runnable))

    def _binding(
        self, binding: RunnableBinding[Any, Any], at: str, whole: Runnable[Any, Any], bound: Mapping[str, Any]
    ) -> Step:
        why = _bars(binding)
        if why is not None:
            return self._noted(why, binding.bound, at, whole)
        inner = self.step(binding.bound, at, whole=whole, bound={**binding.kwargs, **bound})
        if isinstance(inner, Now) or not inner.nested or not binding.config:
            return inner  # nobody but steps within would see the config
        run, own = inner.run, binding.config
        return Later(lambda value, config: run(value, merge_configs(own, config)), nested=True)

    def _sequence(self, runnable: RunnableSequence[Any, Any], at: str) -> Step:
        steps = [self.step(step, f"{at}.{number}".lstrip(".")) for number, step in enumerate(runnable.steps, 1)]
        at_once = [step.run for step in steps if isinstance(step, Now)]
        if len(at_once) == len(steps):
            return Now(lambda value: functools.reduce(lambda so_far, run: run(so_far), at_once, value))
        tagged = [(step, f"seq:step:{number}") for number, step in enumerate(steps, 1)]

        async def run(value: Any, config: RunnableConfig | None) -> Any:
            config, parent = ensure_config(config), uuid7()
            for step, tag in tagged:
                if isinstance(step, Now):
                    value = step.run(value)
                else:
                    config = child(config, parent, tag)
                    value = await step.run(value, config)
            return value

        return Later(run, nested=True)

    def _parallel(self, runnable: RunnableParallel[Any], at: str) -> Step:
        steps = {key: self.step(step, f"{at}.{key}".lstrip(".")) for key, step in runnable.steps__.items()}
        now = {key: step.run for key, step in steps.items() if isinstance(step, Now)}
        later = {key: step.run for key, step in steps.items() if isinstance(step, Later)}
        if not later:
            return Now(lambda value: {key: run(value) for key, run in now.items()})

        async def run(value: Any, config: RunnableConfig | None) -> dict[str, Any]:
            found = {key: run(value) for key, run in now.items()}  # first: a row that fails here makes no call
            config, parent = ensure_config(config), uuid7()
            begun = [run(value, child(config, parent, f"map:key:{key}")) for key, run in later.items()]
            answers = [await begun[0]] if len(begun) == 1 else await asyncio.gather(*begun)
            found.update(zip(later, answers, strict=True))
            return {key: found[key] for key in steps}

        return Later(run, nested=True)

    def _assign(self, runnable: RunnableAssign, at: str) -> Step:
        mapper = self.step(runnable.mapper, at)
        if isinstance(mapper, Now):
            at_once = mapper.run
            return Now(lambda value: {**_as_dict(value), **at_once(value)})
        awaited = mapper.run

        async def run(value: Any, config: RunnableConfig | None) -> dict[str, Any]:
            return {**_as_dict(value), **await awaited(value, child(ensure_config(config), uuid7()))}

        return Later(run, nested=True)


_OF_BINDINGS = ("invoke", "ainvoke", "_merge_configs")
"""What makes a binding one. LangChain has subclasses of RunnableBinding that are there for their type hints."""


def _bars(binding: RunnableBinding[Any, Any]) -> str | None:
    """Why a binding has to run as itself, with all that is in it."""
    if binding.config_factories:
        return "listeners, or a config that is made for every run"
    if binding.config.get("callbacks"):
        return "callbacks listen to it"
    return "its runs have an id of their own" if binding.config.get("run_id") else None


def _name(runnable: Any) -> str:
    name = type(runnable).__name__.partition("[")[0]
    called = runnable.get_name() if isinstance(runnable, RunnableLambda) else name
    return name if called == name else f"{name} {called}"


def _as_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):  # LangChain's own type and words
        raise ValueError("The input to RunnablePassthrough.assign() must be a dict.")  # noqa: TRY004
    return value
