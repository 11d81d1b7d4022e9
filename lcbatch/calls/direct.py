"""The innermost layer: one attempt of one LangChain chat model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lcbatch.calls.failures import failure_of
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import CallEnded, CallStarted
from lcbatch.ports import Call, Clock, Emit
from lcbatch.records import Reply, Request, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

Price = Callable[[str, Usage], float | None]
"""US dollars for the tokens of one call to a model, None where the price is unknown."""


def direct(model: BaseChatModel, *, label: str, timeout_s: float, price: Price, clock: Clock, emit: Emit) -> Call:
    """One attempt, no more: whatever goes wrong leaves as CallFailed with its verdict.

    `timeout_s` bounds the whole attempt, however slowly the answer drips in.
    """

    async def call(request: Request) -> Reply:
        started_s = clock()
        emit(CallStarted(started_s))
        try:
            async with asyncio.timeout(timeout_s):
                message = await model.ainvoke(_messages(request), **request.params)
        except asyncio.CancelledError:
            emit(CallEnded(clock(), clock() - started_s, Usage(), None, Failure(Kind.UNKNOWN, "cancelled")))
            raise
        except Exception as error:
            failure = _verdict(error, timeout_s)
            emit(CallEnded(clock(), clock() - started_s, Usage(), None, failure))
            raise CallFailed(failure) from error
        reply = _reply(message, label, clock() - started_s, price)
        emit(CallEnded(clock(), reply.latency_s, reply.usage, reply.cost_usd, None))
        return reply

    return call


def _messages(request: Request) -> list[BaseMessage]:
    if request.native is not None:
        return list(request.native)
    from langchain_core.messages import convert_to_messages  # noqa: PLC0415 - LangChain loads late

    return convert_to_messages(request.messages)


def _verdict(error: Exception, timeout_s: float) -> Failure:
    if type(error) is TimeoutError and not str(error):
        return Failure(Kind.TIMEOUT, f"no answer within {timeout_s:g} s", maybe_paid=True)
    return failure_of(error)


def _reply(message: AIMessage, label: str, latency_s: float, price: Price) -> Reply:
    metadata = message.response_metadata
    counted = message.usage_metadata
    usage = Usage(counted["input_tokens"], counted["output_tokens"]) if counted else Usage()
    model = str(metadata.get("model_name") or metadata.get("model") or label)
    finish_reason = metadata.get("finish_reason") or metadata.get("stop_reason")
    return Reply(
        text=str(message.text),
        message=message_json(message),
        model=model,
        finish_reason=str(finish_reason) if finish_reason is not None else None,
        usage=usage,
        cost_usd=price(model, usage),
        latency_s=latency_s,
        native=message,
    )


def message_json(message: AIMessage) -> dict[str, Any]:
    """The assistant's message as plain JSON: what is there, and nothing empty."""
    found: dict[str, Any] = {"content": message.content}
    for name in ("tool_calls", "invalid_tool_calls", "additional_kwargs", "response_metadata", "usage_metadata", "id"):
        value = getattr(message, name)
        if value:
            found[name] = value
    return found
