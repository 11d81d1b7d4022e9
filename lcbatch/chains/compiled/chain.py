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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

from lcbatch.chains.compiled.context import Later, Listening, Now, Step, as_itself, child, kind_of, nobody_listens
from lcbatch.chains.compiled.steps import model_step, overridden, plain_step
from lcbatch.chains.naming import own_name


@dataclass(frozen=True, slots=True)
class PartReport:
    """How one part of a chain is run: `at` is its place (2, or 1.answer.3), `why` says why it runs as itself, if it does."""

    at: str
    what: str
    why: str | None = None


class Compiled:
    """A chain that is called like its `ainvoke`, and gives and raises the same. `report` tells of its parts, in their order."""

    def __init__(
        self,
        runnable: Runnable[Any, Any],
        listening: Listening | None = None,
        config_of: Callable[[], RunnableConfig] | None = None,
    ) -> None:
        parts = _Parts(listening)
        self._runnable = runnable
        self._listening = listening
        self._config_of = config_of
        self._step = parts.step(runnable, "")
        self.report: list[PartReport] = parts.report
        self._compiled = any(part.why is None for part in parts.report)

    async def __call__(self, value: Any, config: RunnableConfig | None = None) -> Any:
        """Run it once. Where `held_back` has a reason at this moment, LangChain's own way is taken."""
        held, step = not self._compiled or _is_held_back(config), self._step
        if not held and isinstance(step, Now):
            return step.run(value)
        if not held and isinstance(step, Later) and step.alone:
            return await step.run(value, None)
        if config is None and self._config_of is not None:
            config = self._config_of()
        if not held and isinstance(step, Later):
            return await step.run(value, config)
        return await self._runnable.ainvoke(value, config if self._listening is None else self._listening(config))


def compile_chain(
    runnable: Runnable[Any, Any],
    listening: Listening | None = None,
    config_of: Callable[[], RunnableConfig] | None = None,
) -> Compiled:
    """Find out once what of a chain can be plain calls. Raises nothing: what it does not know runs as itself.

    `listening` gives such parts the config to run with, so that somebody hears of the runs in them. `config_of` makes the config
    where none is given and somebody may look at it; it must not bring callbacks.
    """
    return Compiled(runnable, listening, config_of)


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
    given_id = config is not None and config.get("run_id")
    brings_none = config is None or not config.get("callbacks")  # tags and metadata are none of them
    if brings_none and not given_id and nobody_listens():
        return False
    return bool(given_id or _handlers(config))


def _handlers(config: RunnableConfig | None) -> list[BaseCallbackHandler]:
    listeners: RunnableConfig = {"callbacks": config["callbacks"]} if config and config.get("callbacks") else {}
    return get_async_callback_manager_for_config(
        ensure_config(listeners)
    ).handlers  # tags and metadata would only be copied


@dataclass(frozen=True, slots=True)
class Bindings:
    """The bindings around a Runnable: `whole` is it with all of them, `bound` the arguments that they bind, `name` its run's."""

    whole: Runnable[Any, Any]
    bound: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def within(self, binding: RunnableBinding[Any, Any]) -> Bindings:
        """The same for what the binding holds; what is bound outside comes before what is bound inside."""
        name = self.name or binding.config.get("run_name") or ""
        return Bindings(self.whole, {**binding.kwargs, **self.bound}, name)


class _Parts:
    """Turns Runnables into steps, and notes what became of each."""

    def __init__(self, listening: Listening | None) -> None:
        self.report: list[PartReport] = []
        self._listening = listening

    def step(
        self,
        runnable: Runnable[Any, Any],
        at: str,
        *,
        around: str = "",
        bindings: Bindings | None = None,
    ) -> Step:
        """The step for a Runnable, with the bindings around it. `around` is the name of the nearest part that has one."""
        bindings = bindings or Bindings(runnable)
        if isinstance(runnable, RunnableBinding) and overridden(runnable, RunnableBinding, *_OF_BINDINGS) is None:
            return self._binding(runnable, at, around, bindings)
        if at or isinstance(runnable, BaseChatModel):  # the name of the whole chain tells no steps apart
            around = bindings.name or own_name(runnable) or around
        nested = self._nested(runnable)
        if nested is not None and not bindings.bound:
            return nested(runnable, at, around)
        if isinstance(runnable, BaseChatModel):
            step = model_step(runnable, bindings.bound, around)
        else:
            step = "arguments are bound to it" if bindings.bound else plain_step(runnable, bindings.whole)
        return self._noted(step, runnable, at, as_itself(bindings.whole, around, self._listening))

    def _noted(self, step: Step | str, runnable: Runnable[Any, Any], at: str, itself: Step) -> Step:
        why = step if isinstance(step, str) else None
        self.report.append(PartReport(at, _name(runnable), why))
        return itself if isinstance(step, str) else step

    def _nested(self, runnable: Runnable[Any, Any]) -> Callable[[Any, str, str], Step] | None:
        known: dict[type, Callable[[Any, str, str], Step]] = {
            RunnableSequence: self._sequence,
            RunnableParallel: self._parallel,
            RunnableAssign: self._assign,
        }
        return known.get(kind_of(runnable))

    def _binding(self, binding: RunnableBinding[Any, Any], at: str, around: str, bindings: Bindings) -> Step:
        bindings = bindings.within(binding)
        why = _bars(binding)
        if why is not None:
            itself = as_itself(bindings.whole, bindings.name or around, self._listening)
            return self._noted(why, binding.bound, at, itself)
        inner = self.step(binding.bound, at, around=around, bindings=bindings)
        if isinstance(inner, Now) or not inner.nested or not binding.config:
            return inner  # nobody but steps within would see the config
        run, own = inner.run, binding.config
        return Later(lambda value, config: run(value, merge_configs(own, config)), nested=True)

    def _sequence(self, runnable: RunnableSequence[Any, Any], at: str, around: str) -> Step:
        places = [f"{at}.{number}".lstrip(".") for number in range(1, len(runnable.steps) + 1)]
        steps = [self.step(step, place, around=around) for step, place in zip(runnable.steps, places, strict=True)]
        at_once = [step.run for step in steps if isinstance(step, Now)]
        if len(at_once) == len(steps):
            return Now(lambda value: functools.reduce(lambda so_far, run: run(so_far), at_once, value))
        if all(isinstance(step, Now) or step.alone for step in steps):
            return Later(functools.partial(_one_after_the_other, steps), alone=True)
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

    def _parallel(self, runnable: RunnableParallel[Any], at: str, around: str) -> Step:  # noqa: ARG002 - a key is nearer
        steps = {key: self.step(step, f"{at}.{key}".lstrip("."), around=key) for key, step in runnable.steps__.items()}
        now = {key: step.run for key, step in steps.items() if isinstance(step, Now)}
        later = {key: step.run for key, step in steps.items() if isinstance(step, Later)}
        if not later:
            return Now(lambda value: {key: run(value) for key, run in now.items()})
        alone = all(step.alone for step in steps.values() if isinstance(step, Later))

        async def run(value: Any, config: RunnableConfig | None) -> dict[str, Any]:
            found = {key: run(value) for key, run in now.items()}  # first: a row that fails here makes no call
            if alone:
                begun = [run(value, None) for run in later.values()]
            else:
                config, parent = ensure_config(config), uuid7()
                begun = [run(value, child(config, parent, f"map:key:{key}")) for key, run in later.items()]
            answers = [await begun[0]] if len(begun) == 1 else await asyncio.gather(*begun)
            found.update(zip(later, answers, strict=True))
            return {key: found[key] for key in steps}

        return Later(run, nested=not alone, alone=alone)

    def _assign(self, runnable: RunnableAssign, at: str, around: str) -> Step:
        mapper = self.step(runnable.mapper, at, around=around)
        if isinstance(mapper, Now):
            at_once = mapper.run
            return Now(lambda value: {**_as_dict(value), **at_once(value)})
        awaited, alone = mapper.run, mapper.alone

        async def run(value: Any, config: RunnableConfig | None) -> dict[str, Any]:
            return {**_as_dict(value), **await awaited(value, None if alone else child(ensure_config(config), uuid7()))}

        return Later(run, nested=not alone, alone=alone)


async def _one_after_the_other(steps: Sequence[Step], value: Any, _: RunnableConfig | None) -> Any:
    for step in steps:
        value = step.run(value) if isinstance(step, Now) else await step.run(value, None)
    return value


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
