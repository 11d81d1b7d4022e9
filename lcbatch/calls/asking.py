"""LangChain chat models as something to ask: requests become messages, messages become answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.messages import answer_of
from lcbatch.ports import Ask
from lcbatch.records import Answer, Request

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

AskMessage: TypeAlias = "Callable[[Request], Awaitable[AIMessage]]"
"""Puts a request to a model, and gives LangChain's own message back."""


def invoking(model: Callable[[], BaseChatModel]) -> Ask:
    """Ask a model through LangChain's own `ainvoke`. It is loaded when it is first asked for."""

    def ask(request: Request) -> Awaitable[AIMessage]:
        messages = _messages(request)
        return model().ainvoke(messages, **request.params)

    return answering(ask)


def answering(ask: AskMessage) -> Ask:
    """The same, with the message as an Answer."""

    def asked(request: Request) -> Awaitable[Answer]:
        message = ask(request)

        async def answer() -> Answer:
            return answer_of(await message)

        return answer()

    return asked


def _messages(request: Request) -> list[BaseMessage]:
    if request.native is not None:
        return list(request.native)
    from langchain_core.messages import convert_to_messages  # noqa: PLC0415 - LangChain loads late

    try:
        return convert_to_messages(request.messages)
    except (ValueError, TypeError, NotImplementedError, LookupError) as error:
        raise CallFailed(Failure(Kind.BAD_ROW, f"these are no chat messages: {error}")) from error
