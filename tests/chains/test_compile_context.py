"""What the parts of a compiled chain see of the run around them: configs, contexts, each other, a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatResult
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
)
from langchain_core.runnables.config import var_child_runnable_config
from pydantic import PrivateAttr

from lcbatch.chains.compiled.chain import Compiled, compile_chain
from tests.chains.compile_support import FakeChat, assert_same, both

PROMPT = ChatPromptTemplate([("system", "You are {a}"), ("human", "Say {b}")])
ROW = {"a": "x", "b": "y"}


# What parts see that run as themselves


class Look(Runnable[Any, Any]):
    """Gives the config that it was called with, and the one that nested runs would find."""

    def invoke(self, input: Any, config: Any = None, **_: Any) -> Any:  # noqa: A002
        raise NotImplementedError

    async def ainvoke(self, input: Any, config: Any = None, **bound: Any) -> Any:  # noqa: A002, ARG002
        return {"given": _seen(config), "around": _seen(var_child_runnable_config.get()), "bound": bound}


def _seen(config: Any) -> Any:
    if config is None:
        return None
    listens = config.get("callbacks")
    manager = None if listens is None else {**vars(listens), "parent_run_id": listens.parent_run_id is not None}
    return {**config, "callbacks": manager}


async def _look(_: Any, config: RunnableConfig, **bound: Any) -> Any:
    return {"given": _seen(config), "around": _seen(var_child_runnable_config.get()), "bound": bound}


class LookingChat(FakeChat):
    """A model whose inner step says which config nested runs would find."""

    async def _agenerate(self, *_: Any, run_manager: Any = None, **__: Any) -> ChatResult:
        assert run_manager.handlers == []
        found = _seen(var_child_runnable_config.get())
        self._asked.append(found and {**found, "callbacks": sorted(found["callbacks"]["tags"])})
        return ChatResult(generations=[])


PLACES: dict[str, Callable[[Any], Runnable[Any, Any]]] = {
    "alone": lambda part: part,
    "second": lambda part: RunnablePassthrough() | part,
    "after another": lambda part: RunnableLambda(lambda row: row) | RunnablePick("a") | part,
    "branch": lambda part: RunnableParallel(a=part, b=PROMPT),
    "one of two branches": lambda part: RunnableParallel(a=part, b=RunnableLambda(lambda row: row)),
    "assigned": lambda part: RunnablePassthrough.assign(a=part, b=part),
    "deep": lambda part: PROMPT | {"a": RunnablePassthrough() | {"c": part}},
    "bound": lambda part: RunnablePassthrough() | part.with_config(tags=["own"], configurable={"c": 2}, run_name="n"),
    "bound twice": lambda part: part.bind(x=1).with_config(tags=["t"]).with_config(metadata={"m": 2}),
    "in a bound sequence": lambda part: (RunnablePassthrough() | part).with_config(
        tags=["b", "a"], metadata={"m": 1}, run_name="n", recursion_limit=7, configurable={"c": 1, "model": "m"}
    ),
    "in a bound sequence inside": lambda part: (
        RunnablePassthrough()
        | (RunnablePassthrough() | part).with_config(tags=["t"], recursion_limit=7, max_concurrency=3)
    ),
}
CONFIGS: dict[str, Any] = {
    "none": None,
    "some": {"tags": ["row"], "metadata": {"m": 0}, "run_name": "row", "configurable": {"c": 0}, "recursion_limit": 9},
    "odd": {"max_concurrency": 2, "own_key": 1},
}


@pytest.mark.parametrize("config", sorted(CONFIGS))
@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_part_that_runs_as_itself_sees_langchains_config(place: str, config: str) -> None:
    for part in (Look(), RunnableLambda(_look)):
        found = assert_same(PLACES[place](part), ROW, config=CONFIGS[config])
        assert found[0] != "raised", found


@pytest.mark.parametrize("config", sorted(CONFIGS))
@pytest.mark.parametrize("place", sorted(set(PLACES) - {"alone", "bound twice"}))
def test_a_models_inner_step_runs_in_langchains_context(place: str, config: str) -> None:
    model = LookingChat()
    assert_same(PLACES[place](RunnablePick("a") | model), ROW, model, CONFIGS[config])


def test_configurable_fields_take_the_rows_config() -> None:
    model = FakeChat().configurable_fields(info=ConfigurableField(id="info"))
    other = FakeChat(answers=[AIMessage("other")])
    prompt = PROMPT.configurable_alternatives(ConfigurableField(id="p"), other=PromptTemplate.from_template("{a}"))
    chain = prompt | model | RunnableParallel(a=StrOutputParser(), m=RunnablePassthrough())
    switched = PROMPT | FakeChat().configurable_alternatives(ConfigurableField(id="m"), other=other)

    assert "'k'" in str(assert_same(chain, ROW, config={"configurable": {"info": {"k": 1}, "p": "other"}}))
    assert "other" in str(assert_same(switched.with_config(configurable={"m": "other"}), ROW))
    assert "other" not in str(assert_same(switched, ROW))


# Contexts, concurrency, cancelling

mark: ContextVar[str] = ContextVar("mark", default="unset")


class MarkingChat(FakeChat):
    """Leaves a mark in its context."""

    async def _agenerate(self, *arguments: Any, **options: Any) -> ChatResult:
        mark.set("model")
        return await super()._agenerate(*arguments, **options)


async def _marks(value: Any) -> Any:
    before = mark.get()
    mark.set("function")
    return [value, before]


class _Marks(Look):
    async def ainvoke(self, input: Any, config: Any = None, **_: Any) -> Any:  # noqa: A002, ARG002
        return await _marks(input)


@pytest.mark.parametrize("marks", [RunnableLambda(_marks), _Marks()], ids=["function", "runnable"])
def test_what_a_step_sets_in_its_context_ends_with_it(marks: Runnable[Any, Any]) -> None:
    inner = MarkingChat() | StrOutputParser()
    chain = RunnablePick("a") | inner | marks | {"a": marks} | marks | {"b": marks, "c": inner} | marks

    async def row() -> list[Any]:
        found = await both(chain, {"a": "x"})
        assert mark.get() == "unset"
        return found

    by_langchain, compiled = asyncio.run(row())
    assert compiled[0] == by_langchain[0]
    assert "model" not in str(compiled)


class MeetingChat(FakeChat):
    """Its calls wait until `parties` of them are out at once, and then answer, or go on waiting."""

    parties: int
    answers_then: bool = True
    _met: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

    async def _agenerate(self, messages: Any, *arguments: Any, **options: Any) -> ChatResult:
        self._asked.append(messages[-1].content)
        if len(self._asked) == self.parties:
            self._met.set()
        try:
            await (self._met if self.answers_then else asyncio.Event()).wait()
        except asyncio.CancelledError:
            self._asked.append("cancelled")
            raise
        return await super()._agenerate(messages, *arguments, **options)


def test_branches_run_at_once() -> None:
    model = MeetingChat(parties=2)
    chain = compile_chain(
        RunnableParallel(x=RunnablePick("a") | model, y=RunnablePick("b") | model, z=RunnablePick("a"))
    )

    async def row() -> Any:
        async with asyncio.timeout(30):
            return await chain(ROW)

    found = asyncio.run(row())
    assert list(found) == ["x", "y", "z"]
    assert found["z"] == "x"


@pytest.mark.parametrize("branches", [1, 2])
def test_cancelling_the_row_cancels_its_calls(branches: int) -> None:
    model = MeetingChat(parties=branches, answers_then=False)
    chain = compile_chain(RunnableParallel({str(n): RunnablePick("a") | model for n in range(branches)}))

    async def row() -> None:
        task = asyncio.create_task(chain(ROW))
        await model._met.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(row())
    assert model._asked == ["x"] * branches + ["cancelled"] * branches


def test_a_row_that_fails_in_a_plain_branch_makes_no_call() -> None:
    model = FakeChat()
    chain = RunnableParallel(said=RunnablePick("a") | model, prompt=PROMPT)

    with pytest.raises(KeyError, match="missing variables"):
        asyncio.run(compile_chain(chain)({"a": "x"}))
    assert model.take() == []


def test_a_chain_is_shared_by_many_rows_at_once() -> None:
    chain: Compiled = compile_chain(PROMPT | FakeChat() | StrOutputParser() | RunnableLambda(lambda said: said + "!"))

    async def rows() -> list[Any]:
        return await asyncio.gather(*(chain(ROW) for _ in range(50)))

    assert asyncio.run(rows()) == ["hello!"] * 50
