"""A compiled chain gives what LangChain's `ainvoke` gives: over prompts, replies, parsers and shapes that Hypothesis makes up."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    JsonOutputToolsParser,
    MarkdownListOutputParser,
    NumberedListOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
    StrOutputParser,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
)
from pydantic import BaseModel

from lcbatch.chains.compiled.chain import compile_chain
from tests.chains.compile_support import FakeChat, assert_same, outcome

_EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int | None = None


class Place(BaseModel):
    """Somewhere."""

    name: str
    people: list[Person] = []


texts = st.text(max_size=20) | st.sampled_from(
    ["{", "{{x}}", "a\ud800b", "\x00", "{x!r}", "é\u202e😀", " ", '{"a": 1}']
)
scalars = texts | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(texts, scalars, max_size=2)
names = st.sampled_from(["a", "b", "c"])
full = st.fixed_dictionaries({"a": values, "b": values, "c": values})
_HISTORIES = [[("human", "hi"), AIMessage("yes")], [HumanMessage("{a}")], [], "no messages"]
histories = st.sampled_from(_HISTORIES)
talks = st.builds(lambda row, history: {**row, "more": 1, "history": history}, full, histories)
fields = st.sampled_from([talks, talks, full, st.dictionaries(names, values)]).flatmap(lambda kind: kind)
rows = st.sampled_from([*[talks] * 6, fields, values]).flatmap(lambda kind: kind)
"""Most of them with all that a prompt may ask for."""


@st.composite
def templates(draw: st.DrawFn) -> str:
    """An f-string template: odd text, and fields with and without conversions and formats."""
    parts = [draw(texts).replace("{", "{{").replace("}", "}}")]
    for _ in range(draw(st.integers(0, 3))):
        end = draw(st.sampled_from(["", "", "!r", "!s", ":>10", ":.2f"]))
        parts += ["{", draw(names), end, "}", draw(texts).replace("{", "{{").replace("}", "}}")]
    return "".join(parts)


mustaches = st.sampled_from(["{{a}} and {{{b}}}", "{{#a}}x{{/a}}{{^a}}none{{/a}}", "{{c.d}}"])
fixed = st.sampled_from(
    [
        SystemMessage("fixed {a}"),
        HumanMessage([{"type": "text", "text": "part"}, {"type": "image_url", "image_url": {"url": "data:x"}}]),
        HumanMessage([{"type": "image", "source_type": "base64", "mime_type": "image/png", "data": "AAAA"}]),
        HumanMessage([{"type": "image", "source_type": "text", "text": "not a picture that can be converted"}]),
        HumanMessage([{"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}]),
        HumanMessage([{"cache": "no type"}]),
        AIMessage("", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c1"}]),
        ToolMessage("done", tool_call_id="c1"),
    ]
)
partials = st.dictionaries(names, texts | st.just(lambda: "called"), max_size=2)


@st.composite
def prompts(draw: st.DrawFn) -> Runnable[Any, Any]:
    """A prompt of either class, with partials."""
    if draw(st.integers(0, 4)) == 0:
        text: Any = PromptTemplate.from_template(draw(templates()))
        return text.partial(**draw(partials))  # type: ignore[no-any-return]
    if draw(st.integers(0, 5)) == 0:
        return ChatPromptTemplate([("human", draw(mustaches))], template_format="mustache")
    kinds = st.sampled_from(["system", "human", "ai"])
    slots = st.builds(MessagesPlaceholder, st.just("history"), optional=st.booleans())
    message = (
        st.tuples(kinds, templates()) | st.tuples(st.just("human"), st.lists(templates(), max_size=2)) | fixed | slots
    )
    return ChatPromptTemplate(draw(st.lists(message, min_size=1, max_size=4))).partial(**draw(partials))


calls = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["Person", "Place", "Nobody"]),
            "args": st.dictionaries(st.sampled_from(["name", "age", "people"]), values, max_size=3),
            "id": st.none() | texts,
        }
    ),
    max_size=2,
)
jsons = st.sampled_from(
    [
        '{"name": "Ada", "age": 36}',
        '```json\n{"name": "Ada"}\n```',
        '{"name": "Ada", "age": "old"}',
        '{"name": "Ada"',
        "[1, 2",
        "null",
        "1. one\n2. two",
        "- a\n- b",
        "a, b,c",
        '{"age": 1}',
    ]
)
blocks = st.lists(
    st.sampled_from(["text", {"type": "text", "text": "é"}, {"text": "old"}, {"type": "thinking"}]), max_size=3
)
usage = st.none() | st.just({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})
raw_call = {"id": "c", "type": "function", "function": {"name": "Person", "arguments": '{"name": "Ada"}'}}
broken_call = {"id": "c", "type": "function", "function": {"name": "Person", "arguments": '{"name": "A'}}
extras = st.sampled_from(
    [{}, {"refusal": "no"}, {"tool_calls": [raw_call]}, {"tool_calls": [broken_call]}, {"x": None}]
)
messages = st.builds(
    AIMessage,
    content=texts | jsons | blocks,
    additional_kwargs=extras,
    response_metadata=st.sampled_from([{}, {"finish_reason": "mine", "stop_reason": "max_tokens"}]),
    tool_calls=calls,
    usage_metadata=usage,
    id=st.none() | st.just("theirs"),
)
faults = st.sampled_from([ValueError("refused"), KeyError("x"), RuntimeError()])
replies = st.sampled_from([*[messages] * 6, faults]).flatmap(lambda kind: kind)


@st.composite
def models(draw: st.DrawFn) -> FakeChat:
    """A fake model with what integrations set."""
    return FakeChat(
        answers=draw(st.lists(replies, min_size=1, max_size=2)),
        info=draw(st.sampled_from([None, {"finish_reason": "stop", "logprobs": None}])),
        whole=draw(st.sampled_from([None, {"model_name": "fake", "finish_reason": "whole", "token_usage": {"a": 1}}])),
        output_version=draw(st.sampled_from([None, "v0", "v1"])),
        disable_streaming=draw(st.booleans()),
    )


parsers = st.sampled_from(
    [
        StrOutputParser(),
        JsonOutputParser(),
        JsonOutputParser(pydantic_object=Person),
        PydanticOutputParser(pydantic_object=Person),
        PydanticToolsParser(tools=[Person, Place]),
        PydanticToolsParser(tools=[Person], first_tool_only=True),
        JsonOutputToolsParser(),
        JsonOutputToolsParser(return_id=True, first_tool_only=True),
        JsonOutputKeyToolsParser(key_name="Person"),
        JsonOutputKeyToolsParser(key_name="Place", first_tool_only=True, return_id=True),
        CommaSeparatedListOutputParser(),
        NumberedListOutputParser(),
        MarkdownListOutputParser(),
    ]
)
bound = st.sampled_from(
    [
        {},
        {"stop": ["END"], "temperature": 0.5},
        {"tools": [{"type": "function"}], "tool_choice": "any"},
        {
            "ls_structured_output_format": {"kwargs": {}, "schema": Person},
            "structured_output_format": {"schema": Place},
        },
        {"structured_output_format": {"kwargs": {}, "schema": Person}},
    ]
)


@_EXAMPLES
@given(prompts(), models(), bound, parsers, rows)
def test_prompt_model_and_parser(
    prompt: Runnable[Any, Any], model: FakeChat, arguments: dict[str, Any], parser: Runnable[Any, Any], row: Any
) -> None:
    asked = model.bind(**arguments) if arguments else model

    assert_same(prompt, row)
    assert_same(prompt | asked, row, model)
    assert_same(prompt | asked | parser, row, model)


@_EXAMPLES
@given(st.sampled_from([*[messages] * 4, texts, jsons, values]).flatmap(lambda kind: kind), parsers)
def test_parsers_alone(said: Any, parser: Runnable[Any, Any]) -> None:
    assert_same(parser, said)


@_EXAMPLES
@given(
    models(),
    st.one_of(texts, st.lists(st.tuples(st.sampled_from(["human", "nobody"]), texts)), st.lists(fixed), values),
)
def test_models_alone_convert_what_they_are_given(model: FakeChat, said: Any) -> None:
    assert_same(model, said, model)


@_EXAMPLES
@given(models(), prompts(), rows, st.sampled_from([Person, Place, Person.model_json_schema()]), st.booleans())
def test_structured_output(model: FakeChat, prompt: Runnable[Any, Any], row: Any, schema: Any, raw: bool) -> None:  # noqa: FBT001
    assert_same(prompt | model.with_structured_output(schema, include_raw=raw), row, model)


def _upper(value: Any) -> Any:
    return {**value, "upper": str(value["a"]).upper()}


async def _later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value["b"]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Runnable[Any, Any], FakeChat]:
    """A tree of parallels, assigns, sequences and bindings; its leaves are calls and what handles dicts."""
    model = draw(models())
    leaf = st.one_of(
        prompts().map(lambda prompt: prompt | model | StrOutputParser()),
        prompts().map(lambda prompt: prompt | model.bind(stop=["x"])),
        prompts(),
        st.just(RunnablePassthrough()),
        names.map(RunnablePick),
        st.just(RunnablePick(["c", "a", "none"])),
        names.map(lambda name: RunnableLambda(itemgetter(name))),
        st.just(RunnableLambda(itemgetter("a", "b"))),
        st.just(RunnableLambda(_upper)),
        st.just(RunnableLambda(_later)),
        st.just(RunnableLambda(lambda _: RunnablePick("a"))),
        parsers,
    )

    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        branches = st.dictionaries(names, inner, min_size=1, max_size=3)
        return st.one_of(
            branches.map(RunnableParallel),
            branches.map(lambda steps: RunnablePassthrough.assign(**steps)),
            st.tuples(branches.map(lambda steps: RunnablePassthrough.assign(**steps)), inner).map(
                lambda pair: RunnableSequence(*pair)
            ),
            inner.map(lambda one: one.with_config(tags=["t"], metadata={"m": 1}, run_name="r")),
            inner.map(lambda one: one.with_retry(stop_after_attempt=1)),
            inner.map(lambda one: one.with_fallbacks([RunnablePassthrough()])),
        )

    return draw(st.recursive(leaf, grown, max_leaves=6)), model


async def _errors(chain: Any, value: Any) -> list[Any]:
    """All that LangChain may raise: where branches fail together, it is a matter of time which one is told."""
    if isinstance(chain, RunnableAssign):
        return await _errors(chain.mapper, value) if isinstance(value, dict) else [await outcome(chain.ainvoke, value)]
    if isinstance(chain, RunnableParallel):
        return [error for branch in chain.steps__.values() for error in await _errors(branch, value)]
    if isinstance(chain, RunnableSequence):
        for step in chain.steps:
            if found := await _errors(step, value):
                return found
            value = await step.ainvoke(value)
        return []
    if hasattr(chain, "bound"):
        return await _errors(chain.bound, value)
    result = await outcome(chain.ainvoke, value)
    return [result] if result[0] == "raised" else []


async def _ways(chain: Runnable[Any, Any], model: FakeChat, row: Any) -> None:
    expected = await outcome(chain.ainvoke, row)
    expected_asked = model.take()
    found = await outcome(compile_chain(chain), row)
    asked = model.take()
    if expected[0] != "raised":
        assert [found, asked] == [expected, expected_asked]
        return
    assert found in await _errors(chain, row)


@settings(_EXAMPLES, max_examples=120)
@given(shapes(), fields)
def test_shapes(shape: tuple[Runnable[Any, Any], FakeChat], row: dict[str, Any]) -> None:
    chain, model = shape
    asyncio.run(_ways(chain, model, row))
