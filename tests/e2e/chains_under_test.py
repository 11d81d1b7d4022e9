"""Chains of every shape, as users write them: each makes model calls somewhere inside."""

from __future__ import annotations

import os
from typing import Any, cast

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


def _model(name: str = "sim") -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=os.environ["TEST_BASE_URL"])


def _prompt(text: str) -> ChatPromptTemplate:
    return ChatPromptTemplate.from_template(text)


class Verdict(BaseModel):
    """What a ticket is about."""

    category: str
    urgent: bool


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def sequence() -> Runnable[Any, Any]:
    """Prompt, model, parser."""
    return _prompt("Say {text}") | _model() | StrOutputParser()


def steps() -> Runnable[Any, Any]:
    """Two calls, one after the other."""
    first = _prompt("First {text}") | _model() | StrOutputParser()
    return first | RunnableLambda(lambda said: {"said": said}) | _prompt("Second {said}") | _model() | StrOutputParser()


def two_providers() -> Runnable[Any, Any]:
    """Two calls, the second to another provider."""
    second = ChatOpenAI(model="sim", base_url=os.environ.get("TEST_SECOND_URL", os.environ["TEST_BASE_URL"]))
    first = _prompt("First {text}") | _model() | StrOutputParser()
    return first | RunnableLambda(lambda said: {"said": said}) | _prompt("Second {said}") | second | StrOutputParser()


def parallel() -> Runnable[Any, Any]:
    """Two calls at once."""
    return RunnableParallel(a=_prompt("A {text}") | _model(), b=_prompt("B {text}") | _model())


def structured() -> Runnable[Any, Any]:
    """An answer with a schema."""
    return _prompt("Judge {text}") | _model().with_structured_output(Verdict)


def tools() -> Runnable[Any, Any]:
    """A model with tools bound."""
    return _prompt("Look {text}") | _model().bind_tools([weather])


def fallbacks() -> Runnable[Any, Any]:
    """The first model refuses, the second answers."""
    broken = _prompt("[[fault:context]] {text}") | _model()
    return broken.with_fallbacks([_prompt("Instead {text}") | _model()]) | StrOutputParser()


def inside() -> Any:
    """A model that is built inside a function, for every row anew."""

    async def answer(row: dict[str, Any]) -> str:
        reply = await _model().ainvoke(f"Inside {row['text']}")
        return str(reply.content)

    return RunnableLambda(answer)


def in_thread(row: dict[str, Any]) -> str:
    """Sync code that calls `invoke`."""
    return str(_model().invoke(f"Thread {row['text']}").content)


def agent() -> Runnable[Any, Any]:
    """An agent's graph with a tool."""
    from langchain.agents import create_agent  # noqa: PLC0415 - only this one needs it

    graph = create_agent(_model(), tools=[weather])
    ask: Runnable[Any, Any] = RunnableLambda(lambda row: {"messages": [("user", f"Weather {row['text']}")]})
    chain: Runnable[Any, Any] = ask | cast("Any", graph) | RunnableLambda(lambda state: state["messages"][-1].content)
    return chain
