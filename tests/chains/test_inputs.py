"""What a user's chain is known to need of a row, before it is called, and what it is called with."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, NotRequired

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
)
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from lcbatch.chains.compiled.inputs import of_runnable
from lcbatch.chains.inputs import NOTHING, Needs, of_function
from tests.chains.compile_support import FakeChat


class Ticket(TypedDict):
    """A row's fields."""

    subject: str
    note: NotRequired[str]


class Person(BaseModel):
    """Fields with a default, and an alias."""

    name: str
    age: int = 0
    zip_code: str = Field(alias="zip")


def of_ticket(row: Ticket) -> str:
    return row["subject"]


def of_text(text: str) -> str:
    return text


def guesses(row: dict[str, Any]) -> Any:
    return row.get("a", "") + row["b"]


def of_unknown(row: Unheard) -> Any:  # type: ignore[name-defined]  # noqa: F821 - as under TYPE_CHECKING
    return row


MODEL = FakeChat()
PROMPT = ChatPromptTemplate.from_template("{a} {b}")
RETRIEVER = InMemoryVectorStore(DeterministicFakeEmbedding(size=2)).as_retriever()
FIELDS: dict[str, tuple[Any, set[str]]] = {
    "prompt": (PROMPT | MODEL, {"a", "b"}),
    "partial": (PROMPT.partial(a="x") | MODEL, {"b"}),
    "placeholder": (ChatPromptTemplate([("placeholder", "{past}"), ("human", "{now}")]) | MODEL, {"now"}),
    "bound": ((PROMPT | MODEL).with_config(run_name="named"), {"a", "b"}),
    "retried": ((PROMPT | MODEL).with_retry(), {"a", "b"}),
    "with fallbacks": ((PROMPT | MODEL).with_fallbacks([PROMPT | MODEL]), {"a", "b"}),
    "configurable": (PROMPT.configurable_alternatives(ConfigurableField(id="p"), other=PROMPT) | MODEL, {"a", "b"}),
    "keys": (RunnableParallel(x=itemgetter("c"), y=itemgetter("d") | RETRIEVER), {"c", "d"}),
    "added on the way": (RunnablePassthrough.assign(a=itemgetter("c")) | PROMPT, {"b", "c"}),
    "added twice": (RunnablePassthrough.assign(a=PROMPT) | RunnablePassthrough.assign(c=PROMPT) | PROMPT, {"a", "b"}),
    "passed on": (RunnablePassthrough() | PROMPT, {"a", "b"}),
    "typed function": (RunnableLambda(of_ticket) | MODEL, {"subject"}),
    "typed by hand": (RunnableLambda(guesses).with_types(input_type=Ticket), {"subject"}),
    "typed by a model": (RunnableLambda(guesses).with_types(input_type=Person), {"name", "zip"}),
    "guessed from source": (RunnableLambda(guesses), set()),
    "one of several ways": (RunnableBranch((bool, PROMPT), PROMPT), set()),
    "a pick": (RunnablePick(["a"]) | PROMPT, set()),
    "names that cannot be found": (RunnableLambda(of_unknown), set()),
}


@pytest.mark.parametrize("chain", sorted(FIELDS))
def test_only_fields_that_are_sure_to_be_missed_are_needed(chain: str) -> None:
    runnable, fields = FIELDS[chain]
    assert of_runnable(runnable) == Needs(frozenset(fields))


def test_an_agent_needs_some_part_of_its_state() -> None:
    from langchain.agents import create_agent  # noqa: PLC0415 - only this one needs it

    needs = of_runnable(create_agent(MODEL, tools=[]))
    assert needs.missing({"text": "x"}, None) == "messages"
    assert needs.missing({"messages": []}, None) is None


def test_a_plain_function_needs_what_it_declares() -> None:
    assert of_function(of_ticket).fields == {"subject"}
    assert of_function(of_text).bare == "text"
    assert of_function(guesses) == NOTHING
    assert of_function(len) == NOTHING


@pytest.mark.parametrize(
    "chain",
    [
        RETRIEVER,
        RunnableLambda(of_text),
        {"passages": RETRIEVER, "question": RunnablePassthrough()} | PROMPT | MODEL,
    ],
    ids=["retriever", "function", "retrieval chain"],
)
def test_a_chain_of_one_text_is_given_one_field(chain: Any) -> None:
    needs = of_runnable(chain)
    assert needs.value({"text": "t", "input": "i", "x": "y"}, None) == "i"
    assert needs.value({"text": "t", "x": "y"}, None) == "t"
    assert needs.value({"id": "1", "question": "q"}, None) == "q"
    assert needs.value({"text": "t", "question": 7}, "question") == "7"
    assert needs.missing({"question": "q", "answer": "a"}, None) == "input"
    assert needs.missing({"text": "t"}, "question") == "question"


def test_a_model_alone_is_given_messages_or_a_text() -> None:
    needs = of_runnable(MODEL)
    chat = [{"role": "user", "content": "hi"}]
    assert needs.value({"messages": chat, "text": "t"}, None) == chat
    assert needs.value({"text": "t", "more": 1}, None) == "t"


def test_fields_are_handed_over_as_a_dict_of_the_chains_own() -> None:
    fields = {"a": 1}
    given = NOTHING.value(fields, None)
    assert given == fields
    assert given is not fields
