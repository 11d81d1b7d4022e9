"""LangChain chat models as something to ask: requests become messages, messages become answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.messages import answer_of
from lcbatch.ports import Ask
from lcbatch.records import Answer, Request

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage


def invoking(model: Callable[[], BaseChatModel]) -> Ask:
    """Ask a model through LangChain's own `ainvoke`. It is loaded when it is first asked for."""

    def ask(request: Request) -> Awaitable[Answer]:
        messages = _messages(request)  # at once: what are no messages makes no call

        async def answer() -> Answer:
            return answer_of(await model().ainvoke(messages, **request.params))

        return answer()

    return ask


def _messages(request: Request) -> list[BaseMessage]:
    if request.native is not None:
        return list(request.native)
    from langchain_core.messages import convert_to_messages  # noqa: PLC0415 - LangChain loads late

    try:
        return convert_to_messages(request.messages)
    except (ValueError, TypeError, AttributeError, NotImplementedError, LookupError) as error:
        raise CallFailed(Failure(Kind.BAD_ROW, f"these are no chat messages: {error}")) from error
