"""ChatOpenAI in a compiled chain, stock and in the fast lane, against the simulator: what LangChain's own way gives."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr, field_validator

from lcbatch.chains.compiled.chain import compile_chain
from lcbatch.models.openai import FastChatOpenAI
from lcbatch.simulator.process import SimulatorProcess
from tests.chains.compile_support import both

PROMPT = ChatPromptTemplate([("system", "Be brief, {who}."), ("placeholder", "{past}"), ("human", "{text}")])


class Verdict(BaseModel):
    """What a ticket is about."""

    category: Literal["bill", "fault"]
    urgent: bool
    tags: list[str] = []


class Checked(BaseModel):
    category: str

    @field_validator("category")
    @classmethod
    def _strict(cls, said: str) -> str:
        raise ValueError(f"not {said[:0]}this one")


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


CHAINS: dict[str, Callable[[Any], Runnable[Any, Any]]] = {
    "text": lambda model: PROMPT | model | StrOutputParser(),
    "message": lambda model: PROMPT | model,
    "model alone": lambda model: (lambda row: str(row["text"])) | model,
    "bound": lambda model: PROMPT | model.bind(stop=["END"], temperature=0.1) | StrOutputParser(),
    "tools": lambda model: PROMPT | model.bind_tools([weather, Verdict]),
    "forced tool": lambda model: PROMPT | model.bind_tools([weather], tool_choice="weather"),
    "json": lambda model: PROMPT | model | JsonOutputParser(),
    "json object": lambda model: PROMPT | model.bind(response_format={"type": "json_object"}) | JsonOutputParser(),
    "pydantic": lambda model: PROMPT | model | PydanticOutputParser(pydantic_object=Verdict),
    "structured by json_mode": lambda model: PROMPT | model.with_structured_output(Verdict, method="json_mode"),
    "structured by json_schema": lambda model: PROMPT | model.with_structured_output(Verdict, method="json_schema"),
    "structured by calls": lambda model: PROMPT | model.with_structured_output(Verdict, method="function_calling"),
    "structured as a dict": lambda model: PROMPT | model.with_structured_output(Verdict.model_json_schema()),
    "structured with raw": lambda model: PROMPT | model.with_structured_output(Verdict, include_raw=True),
    "structured, checked": lambda model: PROMPT | model.with_structured_output(Checked, method="function_calling"),
    "assigned": lambda model: (
        RunnablePassthrough.assign(
            said=PROMPT | model | StrOutputParser(), verdict=PROMPT | model.with_structured_output(Verdict)
        )
        | {"two": PROMPT | model | StrOutputParser(), "row": RunnablePassthrough().pick(["said", "verdict"])}
    ),
}
FAULTS = ["refusal", "filter", "length", "empty", "surrogate", "500", "429", "quota", "auth", "context", "html", "cut"]
NO_ANSWER = {"json", "pydantic", "structured by json_mode", "structured, checked"}
"""The simulator's plain answers do not parse there."""
BRANCHED = {"assigned"}
"""Where all branches fail, it is a matter of time whose failure is told."""
CASES = [
    *((name, "hello") for name in CHAINS),
    *((name, f"[[fault:{fault}]]") for name in sorted(set(CHAINS) - BRANCHED) for fault in FAULTS),
]


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@asynccontextmanager
async def model_of(lane: str, base_url: str, **more: Any) -> AsyncIterator[ChatOpenAI]:
    given = {"model": "sim", "base_url": base_url, "api_key": SecretStr("sk-canary"), "max_retries": 0, **more}
    if lane == "fast":
        fast = FastChatOpenAI(**given)
        try:
            yield fast
        finally:
            await fast.aclose()
    else:
        async with httpx2.AsyncClient(trust_env=False) as client:
            yield ChatOpenAI(**given, http_async_client=client)


def unnumbered(found: Any) -> Any:
    """The simulator numbers its billed calls, and tells the time; a difference in that is none."""
    text = json.dumps(found, default=str)
    return re.sub(r"chatcmpl-\d+|call_\d+_|\\?[\"']created\\?[\"']: \d+", "", text)


def row_of(text: str) -> dict[str, Any]:
    return {"who": "é", "text": text, "past": [("ai", "yes?"), AIMessage("so")]}


@pytest.mark.parametrize("lane", ["fast", "stock"])
@pytest.mark.parametrize(("name", "text"), sorted(CASES))
def test_a_compiled_chain_is_equal(simulator: SimulatorProcess, name: str, text: str, lane: str) -> None:
    async def compare() -> None:
        async with model_of(lane, simulator.base_url) as model:
            chain = CHAINS[name](model)
            by_langchain, compiled = await both(chain, row_of(text))
            assert unnumbered(compiled) == unnumbered(by_langchain)
            if text == "hello" and name not in NO_ANSWER:
                assert by_langchain[0][0] != "raised", by_langchain

    asyncio.run(compare())


@pytest.mark.parametrize(
    "arguments",
    [
        {"output_version": "v1"},
        {"output_version": "responses/v1"},
        {"n": 2},
        {"streaming": True},
        {"use_responses_api": True},
    ],
    ids=str,
)
def test_a_models_own_settings_are_kept(simulator: SimulatorProcess, arguments: dict[str, Any]) -> None:
    async def compare() -> None:
        async with model_of("stock", simulator.base_url, **arguments) as model:
            by_langchain, compiled = await both(CHAINS["tools"](model), row_of("hello"))
            assert unnumbered(compiled) == unnumbered(by_langchain)

    asyncio.run(compare())


def test_all_of_a_structured_chain_is_plain_calls() -> None:
    model = ChatOpenAI(model="sim", api_key=SecretStr("sk-canary"))

    def why(name: str) -> list[str | None]:
        return [part.why for part in compile_chain(CHAINS[name](model)).report]

    assert why("structured by json_schema") == why("structured by calls") == [None, None, None]
    assert why("structured, checked") == [None, None, "its schema runs code of its own"]
    checked = PROMPT | model.with_structured_output(Checked)
    assert compile_chain(checked).report[-1].why == "its schema runs code of its own"
