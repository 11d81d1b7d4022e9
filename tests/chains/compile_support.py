"""A chain called twice, by LangChain and compiled: what came of it, and what its models were asked."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, Field, PrivateAttr

from lcbatch.chains.compiled.chain import compile_chain

_MADE_UP = re.compile(r"lc_run--[0-9a-f]{8}-[0-9a-f-]{27}", re.IGNORECASE)


class FakeChat(BaseChatModel):
    """Answers with one of `answers`, which the messages decide; an exception is raised. Keeps what its inner step is asked."""

    answers: list[Any] = Field(default_factory=lambda: [AIMessage("hello")])
    info: dict[str, Any] | None = None
    whole: dict[str, Any] | None = None
    _asked: list[Any] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise AssertionError("nothing here is called without await")

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        said = [plain(message) for message in messages]
        self._asked.append([said, stop, options, type(run_manager).__name__])
        await asyncio.sleep(0)
        answer = self.answers[zlib.crc32(repr(said).encode("utf-8", "surrogatepass")) % len(self.answers)]
        if isinstance(answer, Exception):
            raise answer
        generation = ChatGeneration(message=answer.model_copy(deep=True), generation_info=self.info)
        return ChatResult(generations=[generation], llm_output=self.whole)

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **options: Any) -> Any:
        """As integrations do it."""
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=formatted, tool_choice=tool_choice, **options)

    def take(self) -> list[Any]:
        """What was asked since the last time, in an order that does not depend on when."""
        asked, self._asked = self._asked, []
        return sorted(asked, key=repr)


def plain(value: Any) -> Any:
    """A value as one that compares by content and class, without the ids that LangChain makes up for runs."""
    if isinstance(value, str):
        return [type(value).__name__, _MADE_UP.sub("lc_run--...", value)]
    if isinstance(value, BaseMessage):
        return [type(value).__name__, plain(value.model_dump())]
    if isinstance(value, PromptValue):
        return [type(value).__name__, plain(value.to_messages())]
    if isinstance(value, BaseModel):
        return [type(value).__name__, plain(value.model_dump())]
    if isinstance(value, dict):
        return [type(value).__name__, [[key, plain(inner)] for key, inner in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value).__name__, [plain(inner) for inner in value]]
    if isinstance(value, BaseException):
        told = [getattr(value, name, None) for name in ("llm_output", "observation", "send_to_llm")]
        cause = [type(value.__cause__).__name__, str(value.__cause__)]
        return ["raised", [base.__name__ for base in type(value).__mro__], plain([str(value), told, cause])]
    return [type(value).__name__, value]


async def outcome(call: Any, *arguments: Any) -> Any:
    """The result, or the exception, of an async call: `plain`."""
    try:
        return plain(await call(*arguments))
    except Exception as error:  # noqa: BLE001 - whatever LangChain raises is what a compiled chain has to raise
        return plain(error)


async def both(chain: Runnable[Any, Any], value: Any, model: FakeChat | None = None, config: Any = None) -> list[Any]:
    """What comes of a call, and what the model was asked: by LangChain, and compiled."""
    found = []
    for call in (chain.ainvoke, compile_chain(chain)):
        result = await outcome(call, value, config)
        found.append([result, [] if model is None else model.take()])
    return found


def assert_same(chain: Runnable[Any, Any], value: Any, model: FakeChat | None = None, config: Any = None) -> Any:
    """Both ways come to the same, and ask models the same. Returns what came."""
    by_langchain, compiled = asyncio.run(both(chain, value, model, config))
    assert compiled == by_langchain
    return compiled[0]
