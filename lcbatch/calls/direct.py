"""The innermost layer: one attempt of one LangChain chat model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from lcbatch.calls.failures import failure_of
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import CallEnded, CallStarted
from lcbatch.ports import Call, Clock, Emit, Price, Within
from lcbatch.records import Json, Reply, Request, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

Ask = Callable[[Request], Awaitable["AIMessage"]]
"""Puts a request to a model. What is wrong with the request itself is raised before there is anything to await."""


def invoking(model: BaseChatModel) -> Ask:
    """Ask a model through LangChain's own `ainvoke`."""

    def ask(request: Request) -> Awaitable[AIMessage]:
        return model.ainvoke(_messages(request), **request.params)

    return ask


def direct(
    ask: Ask, *, label: str, timeout_s: float, price: Price, clock: Clock, emit: Emit, within: Within = asyncio.timeout
) -> Call:
    """One attempt, no more: whatever goes wrong leaves as CallFailed with its verdict.

    `timeout_s` bounds the whole attempt, however slowly the answer drips in; `within` keeps the time. Each CallStarted is
    followed by one CallEnded, on cancel too.
    """

    async def call(request: Request) -> Reply:
        asked = ask(request)
        started_s = clock()
        emit(CallStarted(started_s))
        try:
            async with within(timeout_s):
                message = await asked
            _refuse_broken_off(message)
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

    try:
        return convert_to_messages(request.messages)
    except (ValueError, TypeError, NotImplementedError, LookupError) as error:
        raise CallFailed(Failure(Kind.BAD_ROW, f"these are no chat messages: {error}")) from error


def _refuse_broken_off(message: AIMessage) -> None:
    """OpenRouter ends an answer that its provider broke off with finish_reason `error`, under status 200."""
    if message.response_metadata.get("finish_reason") == "error":
        raise CallFailed(Failure(Kind.BAD_BODY, "the provider broke the answer off with an error", maybe_paid=True))


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
    found: dict[str, Any] = {"content": _plain(message.content)}
    for name in ("tool_calls", "invalid_tool_calls", "additional_kwargs", "response_metadata", "usage_metadata", "id"):
        value = getattr(message, name)
        if value:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Json:
    """JSON as it is; whatever else a provider's integration leaves in its metadata as what it dumps, or as text.

    Nothing here may fail: it stands between a paid answer and the store.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    dump = getattr(value, "model_dump", None)
    return _plain(dump(mode="json")) if dump is not None else str(value)
