"""LangChain chat models as something to ask: requests become messages, messages become answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.messages import answer_of
from lcbatch.ports import Ask
from lcbatch.records import Answer, Json, Request

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage


def invoking(model: Callable[[], BaseChatModel]) -> Ask:
    """Ask a model through LangChain's own `ainvoke`. It is loaded when it is first asked for."""

    def ask(request: Request) -> Awaitable[Answer]:
        messages = _messages(request)  # at once: what are no messages makes no call

        async def answer() -> Answer:
            asked = model()
            return answer_of(await asked.ainvoke(messages, **_parameters(request, asked)))

        return answer()

    return ask


_TAKEN = frozenset(
    {"input", "config", "callbacks", "tags", "metadata", "run_name", "run_id", "prompts", "run_manager", "self"}
)
"""Names that LangChain's own methods have on the way to the model, and bodies of requests may have, too (OpenAI's `metadata`)."""


def _parameters(request: Request, model: BaseChatModel) -> Mapping[str, Json]:
    """The parameters as keywords; what cannot be one goes into the body as it is, as OpenAI's integration has it."""
    taken = {name: value for name, value in request.params.items() if name in _TAKEN}
    if not taken:
        return request.params
    rest = {name: value for name, value in request.params.items() if name not in _TAKEN}
    return {**rest, "extra_body": {**(getattr(model, "extra_body", None) or {}), **rest.get("extra_body", {}), **taken}}


def _messages(request: Request) -> list[BaseMessage]:
    if request.native is not None:
        return list(request.native)
    from langchain_core.messages import convert_to_messages  # noqa: PLC0415 - LangChain loads late

    try:
        return convert_to_messages(request.messages)
    except (ValueError, TypeError, AttributeError, NotImplementedError, LookupError) as error:
        raise CallFailed(Failure(Kind.BAD_ROW, f"these are no chat messages: {error}")) from error
