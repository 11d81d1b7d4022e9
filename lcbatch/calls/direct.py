"""The innermost layer: one attempt at one model."""

from __future__ import annotations

import asyncio
from functools import partial

from lcbatch.calls.failures import failure_of
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import CallEnded, CallStarted
from lcbatch.ports import Ask, Call, Clock, Emit, Price, Within
from lcbatch.records import Answer, Reply, Request, Usage, answer_came


def direct(
    ask: Ask, *, label: str, timeout_s: float, price: Price, clock: Clock, emit: Emit, within: Within = asyncio.timeout
) -> Call:
    """One attempt, no more: whatever goes wrong leaves as CallFailed with its verdict.

    `timeout_s` bounds the whole attempt until the answer is there, however slowly it drips in; `within` keeps the time. Each
    CallStarted is followed by one CallEnded, on cancel too.
    """

    async def call(request: Request) -> Reply:
        asked = ask(request)
        started_s = clock()
        emit(CallStarted(started_s))
        try:
            async with within(timeout_s) as running:
                token = answer_came.set(partial(_count_no_further, running))
                try:
                    answer = await asked
                finally:
                    answer_came.reset(token)
            _refuse_broken_off(answer)
        except asyncio.CancelledError:
            emit(
                CallEnded(clock(), clock() - started_s, Usage(), None, Failure(Kind.UNKNOWN, "cancelled"), request.step)
            )
            raise
        except Exception as error:
            failure = _verdict(error, timeout_s)
            emit(CallEnded(clock(), clock() - started_s, Usage(), None, failure, request.step))
            raise CallFailed(failure) from error
        reply = _reply(answer, label, clock() - started_s, price)
        emit(CallEnded(clock(), reply.latency_s, reply.usage, reply.cost_usd, None, request.step))
        return reply

    return call


def _count_no_further(running: asyncio.Timeout) -> None:
    if not running.expired():
        running.reschedule(None)


def _refuse_broken_off(answer: Answer) -> None:
    """OpenRouter ends an answer that its provider broke off with finish_reason `error`, under status 200."""
    if answer.finish_reason == "error":
        raise CallFailed(Failure(Kind.BAD_BODY, "the provider broke the answer off with an error", maybe_paid=True))


def _verdict(error: Exception, timeout_s: float) -> Failure:
    if type(error) is TimeoutError and not str(error):
        return Failure(Kind.TIMEOUT, f"no answer within {timeout_s:g} s", maybe_paid=True)
    return failure_of(error)


def _reply(answer: Answer, label: str, latency_s: float, price: Price) -> Reply:
    model = answer.model or label
    return Reply(
        text=answer.text,
        message=answer.message,
        model=model,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        cost_usd=price(model, answer.usage),
        latency_s=latency_s,
        native=answer.native,
    )
