"""What of a chain becomes plain calls, what runs as itself and why, and who has LangChain's own way taken."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.globals import set_debug, set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import BaseOutputParser, PydanticOutputParser, PydanticToolsParser, StrOutputParser
from langchain_core.outputs import ChatResult
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate, PromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
)
from langchain_core.tracers.context import register_configure_hook
from langsmith.run_helpers import tracing_context
from pydantic import BaseModel, field_validator

from lcbatch.chains.compiled.chain import PartReport, compile_chain, held_back
from tests.chains.compile_support import FakeChat, assert_same

PROMPT = ChatPromptTemplate([("system", "You are {a}"), ("human", "Say {b}")])
ROW = {"a": "x", "b": "y"}


class Person(BaseModel):
    name: str


class Checked(BaseModel):
    """Its validator says where it ran."""

    name: str

    @field_validator("name")
    @classmethod
    def _where(cls, _: str) -> str:
        return threading.current_thread().name


class Posted(BaseModel):
    name: str

    def model_post_init(self, _: Any) -> None:
        """Code of the user's."""


class Within(BaseModel):
    inner: list[Checked]


def ways(chain: Runnable[Any, Any]) -> dict[str, str | None]:
    """Why each part runs as itself, by its place."""
    return {part.at: part.why for part in compile_chain(chain).report}


def test_the_report_names_the_parts_in_their_order() -> None:
    model = FakeChat()
    chain = (
        RunnablePassthrough.assign(said=PROMPT | model | StrOutputParser(), q=itemgetter("a"), f=lambda _: 1)
        | RunnableParallel(kept=RunnablePick("said"), all=RunnablePassthrough())
        | RunnableLambda(len, name="look")
        | model.bind_tools([Person]).with_config(tags=["t"])
    )

    assert compile_chain(chain).report == [
        PartReport("1.said.1", "ChatPromptTemplate"),
        PartReport("1.said.2", "FakeChat"),
        PartReport("1.said.3", "StrOutputParser"),
        PartReport("1.q", "RunnableLambda"),
        PartReport("1.f", "RunnableLambda", "a function of your own"),
        PartReport("2.kept", "RunnablePick"),
        PartReport("2.all", "RunnablePassthrough"),
        PartReport("3", "RunnableLambda look", "a function of your own"),
        PartReport("4", "FakeChat"),
    ]


class _OwnPrompt(ChatPromptTemplate):
    async def ainvoke(self, *_: Any, **__: Any) -> Any:
        return "mine"


class _OwnModel(FakeChat):
    async def ainvoke(self, *_: Any, **__: Any) -> Any:
        return AIMessage("mine")


class _OwnParser(BaseOutputParser[str]):
    def parse(self, text: str) -> str:
        return text.upper()


class _OwnTemplate(HumanMessagePromptTemplate):
    async def aformat_messages(self, **_: Any) -> Any:
        await asyncio.sleep(0)
        return [HumanMessage("mine")]


class _Forgetful(InMemoryCache):
    def update(self, *_: Any, **__: Any) -> None:
        """Keeps nothing."""


async def _each(rows: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for row in rows:
        yield [row]


def _listened(chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return chain.with_config(callbacks=[BaseCallbackHandler()])


_PICTURE = ("human", [{"type": "image_url", "image_url": {"url": "data:{a}"}}])
AS_ITSELF: dict[str, tuple[Runnable[Any, Any], str]] = {
    "function": (RunnableLambda(lambda row: row["a"]), "a function of your own"),
    "generator": (RunnableGenerator(_each), "no kind that is known here"),
    "passthrough with a function": (RunnablePassthrough(lambda _: None), "it calls a function"),
    "prompt of its own class": (_OwnPrompt.from_template("{a}"), "no kind that is known here"),
    "template of its own class": (
        ChatPromptTemplate([_OwnTemplate.from_template("{a}")]),
        "a template of another kind is in it",
    ),
    "picture": (ChatPromptTemplate([_PICTURE]), "a template of another kind is in it"),
    "parser of its own class": (_OwnParser(), "no kind that is known here"),
    "model of its own class": (_OwnModel(), "it has a method ainvoke of its own"),
    "model with callbacks": (FakeChat(callbacks=[BaseCallbackHandler()]), "callbacks listen to it"),
    "verbose model": (FakeChat(verbose=True), "it is verbose"),
    "model with a cache": (FakeChat(cache=_Forgetful()), "it has a cache"),
    "model that wants the global cache": (FakeChat(cache=True), "it has a cache"),
    "bound tags": (FakeChat().bind(tags=["t"]), "arguments are bound to it that LangChain keeps for itself"),
    "bound prompt": (PROMPT.bind(x=1), "arguments are bound to it"),
    "bound sequence": ((PROMPT | FakeChat()).bind(x=1), "arguments are bound to it"),
    "bound pick": (RunnablePick("a").bind(x=1), "arguments are bound to it"),
    "callbacks on a part": (_listened(PROMPT), "callbacks listen to it"),
    "callbacks on a sequence": (_listened(PROMPT | FakeChat()), "callbacks listen to it"),
    "listeners": (PROMPT.with_listeners(on_end=lambda _: None), "listeners, or a config that is made for every run"),
    "an id": (PROMPT.with_config(run_id=uuid.UUID(int=1)), "its runs have an id of their own"),
    "configurable": (
        FakeChat().configurable_fields(info=ConfigurableField(id="info")),
        "no kind that is known here",
    ),
    "retry": (PROMPT.with_retry(stop_after_attempt=1), "no kind that is known here"),
    "validator": (PydanticOutputParser(pydantic_object=Checked), "its schema runs code of its own"),
    "post init": (PydanticOutputParser(pydantic_object=Posted), "its schema runs code of its own"),
    "validator deep within": (PydanticToolsParser(tools=[Person, Within]), "its schema runs code of its own"),
}


@pytest.mark.parametrize("name", sorted(AS_ITSELF))
def test_what_runs_as_itself_says_why_and_gives_the_same(name: str) -> None:
    part, why = AS_ITSELF[name]

    assert set(ways(part).values()) == {why}
    assert list(ways(part | RunnablePassthrough())) == ["1", "2"]
    for given in (ROW, AIMessage('{"name": "Ada"}'), "text"):
        assert_same(part, given)
        assert_same(RunnablePassthrough() | part, given)
        assert_same(RunnableParallel(a=part, b=RunnablePassthrough()), given)


def test_a_schema_with_code_of_its_own_is_parsed_in_a_thread() -> None:
    found = assert_same(
        FakeChat(answers=[AIMessage('{"name": ""}')]) | PydanticOutputParser(pydantic_object=Checked), ""
    )

    assert "MainThread" not in str(found)


def test_a_subscripted_class_is_that_class() -> None:
    parser: Any = PydanticOutputParser[Person](pydantic_object=Person)
    chain = RunnableParallel[dict[str, Any]](a=RunnablePick("a"), p=RunnablePick("b") | parser)

    assert ways(chain) == {"a": None, "p.1": None, "p.2": None}


def test_the_inner_step_is_looked_up_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = compile_chain(PROMPT | FakeChat() | StrOutputParser())
    given: list[Any] = []
    step = BaseChatModel._agenerate_with_cache

    async def hook(
        self: BaseChatModel, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> Any:
        given.append([message.content for message in messages])
        return await step(self, messages, stop, run_manager, **options)

    monkeypatch.setattr(BaseChatModel, "_agenerate_with_cache", hook)

    assert asyncio.run(chain(ROW)) == "hello"
    assert given == [["You are x", "Say y"]]


class _Silent(FakeChat):
    async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[])


def test_odd_models_and_messages_fail_alike() -> None:
    unknown = {"type": "image", "source_type": "text", "text": "no picture"}

    assert assert_same(_Silent(), "hi")[1][0] == "IndexError"
    assert assert_same(FakeChat(), [HumanMessage([unknown])])[1][0] == "ValueError"
    assert assert_same(FakeChat(rate_limiter=None, cache=False), "hi")[0] == "AIMessage"


def test_of_two_bindings_the_outer_one_decides() -> None:
    model = FakeChat()
    chain = RunnableBinding(bound=model.bind(stop=["a"], x=1), kwargs={"stop": ["b"], "y": 2}, config={})

    assert_same(chain, "hi", model)
    assert ways(chain) == {"": None}
    asyncio.run(compile_chain(chain)("hi"))
    assert model.take()[0][1:3] == [["b"], {"x": 1, "y": 2}]


@pytest.mark.parametrize("given", ["text", ["a"], 1, None, [("a", 1)]])
def test_what_needs_a_dict_says_so(given: Any) -> None:
    model: Any = FakeChat()
    assigns = [RunnablePassthrough.assign(a=RunnablePick("a")), RunnablePassthrough.assign(a=model)]
    for chain in (*assigns, RunnablePick("a"), RunnablePick(["a"])):
        assert assert_same(chain, given)[1][0] == "ValueError"


ODD_ROWS: dict[str, Any] = {
    "a key that is no string": {1: "x", "a": "x", "b": "y"},
    "self": {**ROW, "self": "x"},
    "kwargs": {**ROW, "kwargs": "x"},
    "over a partial": {**ROW, "c": "mine"},
    "a mapping": MappingProxyType(ROW),
    "too few": {"a": "x"},
}


@pytest.mark.parametrize("row", sorted(ODD_ROWS))
def test_rows_with_odd_keys_are_refused_or_taken_alike(row: str) -> None:
    texts: Any = PromptTemplate.from_template("{a}{c}").partial(c="partial")
    chat = ChatPromptTemplate([HumanMessagePromptTemplate(prompt=texts, additional_kwargs={"x": 1})])
    calls = ChatPromptTemplate([HumanMessagePromptTemplate(prompt=texts.partial(c=lambda: "called"))])
    for prompt in (PROMPT, PROMPT.partial(c="partial"), texts, chat, calls):
        assert_same(prompt, ODD_ROWS[row])


def test_a_partial_that_is_a_function_is_called_once_for_each_row() -> None:
    numbers = iter(range(9))

    def counted() -> str:
        return str(next(numbers))

    prompts = [PROMPT.partial(a=counted), PromptTemplate.from_template("{a}{b}").partial(a=counted)]
    for number, prompt in enumerate(prompts):
        assert str(number) in str(asyncio.run(compile_chain(prompt)({"b": "y"})))


# What listens to runs


class Events(AsyncCallbackHandler):
    """What a handler is told, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_chain_start(self, *_: Any, **told: Any) -> None:
        self.seen.append(f"chain {told.get('name')} {told.get('tags')}")

    async def on_chat_model_start(self, *_: Any, **told: Any) -> None:
        self.seen.append(f"model {told.get('name')} {told.get('tags')}")

    async def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.seen.append("end")


listening: ContextVar[Events | None] = ContextVar("listening", default=None)
register_configure_hook(listening, inheritable=True)


def _ask_listening(events: Events, call: Callable[..., Any], config: RunnableConfig | None) -> list[str]:
    async def ask() -> None:
        if config is None:
            listening.set(events)
        await call(ROW, config)

    asyncio.run(ask())
    return events.seen


@pytest.mark.parametrize("by_config", [False, True])
def test_a_listener_hears_what_langchain_tells(by_config: bool) -> None:  # noqa: FBT001
    chain = PROMPT | FakeChat() | StrOutputParser()
    heard = []
    for call in (chain.ainvoke, compile_chain(chain)):
        events = Events()
        heard.append(_ask_listening(events, call, {"callbacks": [events]} if by_config else None))

    assert heard[0] == heard[1]
    assert "model None ['seq:step:2']" in heard[1]


def test_a_listener_on_one_part_hears_it() -> None:
    events = Events()
    chain = PROMPT | FakeChat().with_config(callbacks=[events], run_name="named") | StrOutputParser()

    assert ways(chain) == {"1": None, "2": "callbacks listen to it", "3": None}
    asyncio.run(compile_chain(chain)(ROW))
    assert events.seen == ["model named ['seq:step:2']", "end"]


@pytest.fixture
def plain_globals(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    set_llm_cache(None)
    set_debug(False)


def test_what_holds_every_chain_back(plain_globals: pytest.MonkeyPatch) -> None:
    assert held_back() is None
    assert held_back({"tags": ["t"], "metadata": {"m": 1}, "run_name": "r", "configurable": {"c": 1}}) is None
    assert held_back({"callbacks": [Events()]}) == "Events listens to every run"
    assert held_back({"run_id": uuid.uuid4()}) == "the run has an id of its own"
    with tracing_context(enabled=True):
        assert held_back() == "tracing to LangSmith is on"
    set_debug(True)
    assert held_back() == "ConsoleCallbackHandler listens to every run"
    set_debug(False)
    set_llm_cache(InMemoryCache())
    assert held_back() == "a global cache is set"
    set_llm_cache(None)
    plain_globals.setenv("LANGCHAIN_TRACING", "true")
    with pytest.raises(RuntimeError, match="LangChainTracerV1"):
        held_back()


def test_a_global_cache_answers(plain_globals: pytest.MonkeyPatch) -> None:
    assert plain_globals is not None
    set_llm_cache(InMemoryCache())
    model = FakeChat()
    chain = compile_chain(PROMPT | model)

    async def twice() -> None:
        await chain(ROW)
        await chain(ROW)

    asyncio.run(twice())
    assert len(model.take()) == 1
