"""A chat model, call stacks and a row, for the tests of what is governed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, SecretStr

from lcbatch.calls.governed import ask, governed
from lcbatch.ports import Call
from lcbatch.records import Reply, Request, RowScope, current_row
from lcbatch.testing import make_row


class Model(BaseChatModel):
    """Answers with its name, and streams the letters of it; keeps what was asked of it."""

    name_: str = "model"
    key: SecretStr = SecretStr("k")
    n: int = 1
    streaming: bool = False
    asked: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "model"

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"key": "KEY"}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:  # noqa: ARG002 - LangChain's signature
        return {"ls_provider": "fake", "ls_model_name": self.name_, "ls_temperature": kwargs.get("temperature")}

    def _generate(
        self,
        messages: list[BaseMessage],  # noqa: ARG002
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: Any = None,  # noqa: ARG002
        **options: Any,
    ) -> ChatResult:
        self.asked.append(f"whole{options or ''}")
        said = AIMessage(
            content=f"{self.name_}!", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        )
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        return self._generate(messages, stop, run_manager, **options)

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        self.asked.append("stream")
        for letter in f"{self.name_}?":
            yield ChatGenerationChunk(message=AIMessageChunk(content=letter))


class Stacks:
    """Gives every account a stack that only counts, and keeps what is told."""

    def __init__(self, refuse: Callable[[Request], Exception | None] = lambda _: None) -> None:
        self.built: list[BaseChatModel] = []
        self.calls: list[Request] = []
        self.told: list[str] = []
        self._refuse = refuse

    def of(self, model: BaseChatModel) -> Call:
        self.built.append(model)

        async def call(request: Request) -> Reply:
            self.calls.append(request)
            if (refusal := self._refuse(request)) is not None:
                raise refusal
            answer = await ask(request)
            return Reply(answer.text, answer.message, "m", native=answer.native)

        return call


def in_a_row(stacks: Stacks, chain: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    """Run a chain as a run does: its hooks around, a row in the context."""

    async def run() -> Any:
        with governed(stacks.of, tell=stacks.told.append, **options):
            current_row.set(RowScope(make_row(0), 0.0))
            found = await chain()
            await asyncio.sleep(0)  # what was told from a thread
            return found

    return copy_context().run(asyncio.run, run())


async def ainvoke(model: Model) -> None:
    await model.ainvoke("hello")


async def astream(model: Model) -> list[Any]:
    return [chunk async for chunk in model.astream("hello")]
