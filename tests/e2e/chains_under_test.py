"""Chains of every shape, as users write them: each makes model calls somewhere inside."""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import Any, cast

import httpx2
import openai
from langchain_core.language_models import FakeListLLM
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


def _model(name: str = "sim", **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=os.environ["TEST_BASE_URL"], **options)


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


def message() -> Runnable[Any, Any]:
    """Prompt and model: the whole message is the output."""
    return _prompt("Say {text}") | _model()


def steps() -> Runnable[Any, Any]:
    """Two calls, one after the other."""
    first = _prompt("First {text}") | _model() | StrOutputParser()
    return first | RunnableLambda(lambda said: {"said": said}) | _prompt("Second {said}") | _model() | StrOutputParser()


def two_providers() -> Runnable[Any, Any]:
    """Two calls, the second to another provider."""
    second = ChatOpenAI(model="sim", base_url=os.environ.get("TEST_SECOND_URL", os.environ["TEST_BASE_URL"]))
    first = _prompt("Here {text}") | _model() | StrOutputParser()
    return first | RunnableLambda(lambda said: {"said": said}) | _prompt("There {said}") | second | StrOutputParser()


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


def batched_in_thread(row: dict[str, Any]) -> list[str]:
    """Sync code that calls `batch`, which makes threads of its own."""
    return [str(said.content) for said in _model().batch([f"Sync 1 {row['text']}", f"Sync 2 {row['text']}"])]


def loop_in_thread(row: dict[str, Any]) -> str:
    """Sync code that runs a loop of its own."""
    return str(asyncio.run(_model().ainvoke(f"Loop {row['text']}")).content)


async def batched(row: dict[str, Any]) -> list[str]:
    """Several calls by `abatch`."""
    return [str(said.content) for said in await _model().abatch([f"One {row['text']}", f"Two {row['text']}"])]


def bound() -> Runnable[Any, Any]:
    """Arguments bound to the model, streaming's own among them."""
    return _prompt("Bound {text}") | _model().bind(stop=["never"], temperature=0.5, stream=True) | StrOutputParser()


def configurable() -> Runnable[Any, Any]:
    """A model that LangChain builds anew for every call."""
    from langchain.chat_models import init_chat_model  # noqa: PLC0415 - only this one needs it

    model: Runnable[Any, Any] = init_chat_model(
        "sim", model_provider="openai", configurable_fields=("temperature",), base_url=os.environ["TEST_BASE_URL"]
    )
    chosen = model.with_config(configurable={"temperature": 0.25})
    chain: Runnable[Any, Any] = _prompt("Choose {text}") | chosen | StrOutputParser()
    return chain


def fallbacks_by_type() -> Runnable[Any, Any]:
    """A fallback for the provider's own exception only."""
    broken = _prompt("[[fault:context]] {text}") | _model()
    instead = _prompt("By type {text}") | _model()
    return broken.with_fallbacks([instead], exceptions_to_handle=(openai.BadRequestError,)) | StrOutputParser()


class Wrapper(BaseChatModel):
    """A user's own chat model over another one."""

    @property
    def _llm_type(self) -> str:
        return "wrapper"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=await _model().ainvoke(messages))])


def wrapped() -> Runnable[Any, Any]:
    """A model within a model: one call."""
    return _prompt("Wrapped {text}") | Wrapper() | StrOutputParser()


def blocks() -> Runnable[Any, Any]:
    """Content as a list of blocks, two turns."""
    model = _model(output_version="v1")

    async def talk(row: dict[str, Any]) -> str:
        first = await model.ainvoke(f"Blocks {row['text']}")
        assert isinstance(first.content, list), first.content
        second = await model.ainvoke([("user", f"Blocks {row['text']}"), first, ("user", f"Go on {row['text']}")])
        return str(second.text)

    return RunnableLambda(talk)


def _graph(**options: Any) -> Any:
    from langchain.agents import create_agent  # noqa: PLC0415 - only agents need it

    return create_agent(_model(**options), tools=[weather])


def _question(row: dict[str, Any], how: str = "Weather") -> Any:
    """The simulator's faults are counted by request: no two agents may make the same."""
    return {"messages": [("user", f"{how} {row['text']}")]}


def agent() -> Runnable[Any, Any]:
    """An agent's graph with a tool."""
    chain: Runnable[Any, Any] = (
        RunnableLambda(_question) | cast("Any", _graph()) | RunnableLambda(lambda state: state["messages"][-1].content)
    )
    return chain


def streaming_model() -> Runnable[Any, Any]:
    """A model that streams by itself."""
    return _prompt("Streaming {text}") | _model(streaming=True, stream_usage=True) | StrOutputParser()


async def chain_streamed(row: dict[str, Any]) -> str:
    """A chain's `astream`."""
    chain = _prompt("Chain {text}") | _model() | StrOutputParser()
    return "".join([piece async for piece in chain.astream(row)])


async def json_streamed(row: dict[str, Any]) -> Any:
    """A parser that works on the pieces."""
    chain = _prompt("JSON {text}") | _model().bind(response_format={"type": "json_object"}) | JsonOutputParser()
    return [piece async for piece in chain.astream(row)][-1]


async def structured_streamed(row: dict[str, Any]) -> Any:
    """Structured output, streamed."""
    chain = _prompt("Judge on {text}") | _model().with_structured_output(Verdict)
    return [piece async for piece in chain.astream(row)][-1]


async def by_tool_streamed(row: dict[str, Any]) -> Any:
    """Structured output by a tool call, streamed."""
    chain = _prompt("Judge by tool {text}") | _model().with_structured_output(Verdict, method="function_calling")
    return [piece async for piece in chain.astream(row)][-1]


def _added_up(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


async def model_streamed(row: dict[str, Any]) -> str:
    """A step that goes through the model's chunks."""
    chunks = [chunk async for chunk in _model().astream(f"Chunks {row['text']}")]
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks), chunks
    return str(_added_up(chunks).text)


async def tools_streamed(row: dict[str, Any]) -> Any:
    """Tool calls put together from chunks."""
    model = _model().bind_tools([weather])
    whole = _added_up([cast("Any", chunk) async for chunk in model.astream(f"Tools {row['text']}")])
    return [{"name": call["name"], "args": call["args"]} for call in whole.tool_calls]


async def unstreamed(row: dict[str, Any]) -> str:
    """`astream` of a model that must not stream."""
    return "".join([str(c.text) async for c in _model(disable_streaming=True).astream(f"Unstreamed {row['text']}")])


def streamed_in_thread(row: dict[str, Any]) -> str:
    """Sync code that goes through `stream`."""
    return "".join(str(chunk.text) for chunk in _model().stream(f"Sync {row['text']}"))


async def events_v2(row: dict[str, Any]) -> str:
    """`astream_events`: the text of the model's stream events."""
    chain = _prompt("Events {text}") | _model() | StrOutputParser()
    said = [
        event["data"]["chunk"].text
        async for event in chain.astream_events(row, version="v2")
        if event["event"] == "on_chat_model_stream"
    ]
    return "".join(said)


async def events_v3(row: dict[str, Any]) -> Any:
    """The newer protocol, with a tool call in it."""
    stream = await _model().bind_tools([weather]).astream_events(f"Protocol {row['text']}", version="v3")
    message = await stream.output
    return [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]


def events_v3_in_thread(row: dict[str, Any]) -> str:
    """The newer protocol from sync code."""
    return str(_model().stream_events(f"Sync protocol {row['text']}", version="v3").output.text)


async def agent_streamed(row: dict[str, Any]) -> str:
    """An agent's graph, its messages streamed: the pieces of each come under one id, and nothing comes twice."""
    said: dict[str, Any] = {}
    async for part, _ in _graph().astream(_question(row, "Weather in pieces"), stream_mode="messages"):
        said[part.id] = said[part.id] + part if part.id in said else part
    calls, tools, last = said.values()
    assert isinstance(calls, AIMessageChunk), calls
    assert len(calls.tool_calls) == 1, calls
    assert tools.type == "tool", tools
    return str(last.text)


async def agent_events(row: dict[str, Any]) -> str:
    """An agent's graph under the newer protocol."""
    stream = await _graph().astream_events(_question(row, "Weather in events"), version="v3")
    state = await stream.output()
    return str(state["messages"][-1].text)


SHAPES = {
    name: found
    for name, found in sorted(globals().items())
    if inspect.isfunction(found) and found.__module__ == __name__ and not name.startswith("_")
}


async def every(row: dict[str, Any]) -> Any:
    """The shape that the row names. Fails after its calls when it is told to, in a way that may pass."""
    shape = SHAPES[row["shape"]]
    if not inspect.signature(shape).parameters:
        found = await shape().ainvoke(row)
    elif inspect.iscoroutinefunction(shape):
        found = await shape(row)
    else:
        found = await asyncio.to_thread(shape, row)
    if os.environ.get("TEST_BREAK"):
        raise httpx2.ReadTimeout(f"broken on purpose: {row['shape']}")
    return found


def capped() -> Runnable[Any, Any]:
    """A model whose answers have a longest length, so that a budget can be kept to."""
    return _prompt("Capped {text}") | _model(max_tokens=20) | StrOutputParser()


async def past_the_stack(row: dict[str, Any]) -> Any:
    """What cannot be governed, as the row names it."""
    text = row["text"]
    match row["text"].split()[0]:
        case "invoke":
            return _model("sim-invoke").invoke(text).content
        case "stream":
            return "".join(str(chunk.text) for chunk in _model("sim-stream").stream(text))
        case "batch":  # the loop waits for threads, which cannot wait for the loop
            return [said.content for said in _model("sim-batch").batch([text, f"{text} again"])]
        case "several":
            return (await _model("sim-several", n=2).ainvoke(text)).content
        case "completion":
            return await FakeListLLM(responses=["said"]).ainvoke(text)
        case "thread":
            return (await asyncio.get_running_loop().run_in_executor(None, _model("sim-thread").invoke, text)).content
