"""One attempt of one chat model: its reply, its verdicts, and its pair of events."""

from __future__ import annotations

import asyncio
import enum
import json
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel

from lcbatch.calls.asking import invoking
from lcbatch.calls.direct import direct
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import CallEnded, CallStarted
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.messages import message_json
from lcbatch.records import Reply, Request, Usage
from lcbatch.testing import Events


class Model(BaseChatModel):
    """Answers with `message` after `latency_s`, or raises `error`; notes what it was asked."""

    message: AIMessage = AIMessage("hi")
    error: Exception | None = None
    latency_s: float = 0.0
    asked: list[Any] = []  # noqa: RUF012 - pydantic copies it

    @property
    def _llm_type(self) -> str:
        return "test"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise AssertionError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        self.asked.append((messages, stop, kwargs))
        await asyncio.sleep(self.latency_s)
        if self.error is not None:
            raise self.error
        return ChatResult(generations=[ChatGeneration(message=self.message)])


def price(model: str, usage: Usage) -> float | None:
    return usage.prompt_tokens + usage.completion_tokens / 10 if model == "gpt" else None


class Trial:
    """One attempt in virtual time, and the events that it sent."""

    def __init__(self, timeout_s: float = 60.0, **model: Any) -> None:
        self.model = Model(**model)
        self.events = Events()
        self._timeout_s = timeout_s

    async def call(self, request: Request) -> Reply:
        clock = asyncio.get_running_loop().time
        attempt = direct(
            invoking(lambda: self.model),
            label="test:m",
            timeout_s=self._timeout_s,
            price=price,
            clock=clock,
            emit=self.events,
        )
        return await attempt(request)

    def reply(self, *messages: Any, **params: Any) -> Reply:
        return run_virtual(self.call(Request(list(messages or [{"role": "user", "content": "hello"}]), params)))

    def failure(self, *messages: Any) -> Failure:
        with pytest.raises(CallFailed) as raised:
            self.reply(*messages)
        return raised.value.failure

    def ended(self) -> CallEnded:
        """The end of the one attempt that began."""
        assert [type(event) for event in self.events] == [CallStarted, CallEnded]
        return self.events.of(CallEnded)[0]


def test_a_reply_says_what_the_provider_said() -> None:
    message = AIMessage(
        "hi",
        usage_metadata={"input_tokens": 5, "output_tokens": 20, "total_tokens": 25},
        response_metadata={"model_name": "gpt", "finish_reason": "length"},
    )
    trial = Trial(message=message, latency_s=1.5)

    reply = trial.reply()

    assert (reply.text, reply.model, reply.finish_reason) == ("hi", "gpt", "length")
    assert (reply.usage, reply.cost_usd, reply.latency_s, reply.attempts) == (Usage(5, 20), 7.0, 1.5, 1)
    assert trial.ended() == CallEnded(1.5, 1.5, Usage(5, 20), 7.0, None)


def test_what_the_provider_does_not_say_stays_unknown() -> None:
    reply = Trial(message=AIMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).reply()

    assert (reply.text, reply.model, reply.finish_reason, reply.usage, reply.cost_usd) == (
        "ab",
        "test:m",
        None,
        Usage(),
        None,
    )


def test_anthropic_s_names_are_understood() -> None:
    reply = Trial(message=AIMessage("", response_metadata={"model": "claude", "stop_reason": "refusal"})).reply()

    assert (reply.model, reply.finish_reason) == ("claude", "refusal")


def test_messages_and_parameters_reach_the_model() -> None:
    trial = Trial()

    trial.reply({"role": "user", "content": "hello"}, temperature=0.5, stop=["END"])

    assert trial.model.asked == [([HumanMessage("hello")], ["END"], {"temperature": 0.5})]


def test_a_native_request_is_passed_on_as_it_is() -> None:
    trial, message = Trial(), HumanMessage("as it is", id="1")

    run_virtual(trial.call(Request([], native=[message])))

    assert trial.model.asked[0][0] == [message]


def test_no_answer_in_time_is_a_timeout_that_may_have_been_paid() -> None:
    trial = Trial(timeout_s=30, latency_s=100)

    failure = trial.failure()

    assert failure == Failure(Kind.TIMEOUT, "no answer within 30 s", maybe_paid=True)
    assert (trial.ended().now_s, trial.ended().failure) == (30, failure)


def test_an_error_becomes_a_verdict() -> None:
    trial = Trial(error=ConnectionRefusedError(111, "Connection refused"))

    failure = trial.failure()

    assert failure.kind is Kind.CONNECTION
    assert trial.ended().failure == failure


def test_a_cancelled_attempt_has_its_end_too() -> None:
    trial = Trial(latency_s=100)

    async def cancelled() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(trial.call(Request([{"role": "user", "content": "hello"}])))
            await asyncio.sleep(2)
            task.cancel()

    run_virtual(cancelled())

    assert trial.ended().now_s == 2
    assert trial.ended().failure is not None


def test_an_answer_that_the_provider_broke_off_is_none() -> None:
    trial = Trial(message=AIMessage("half an ans", response_metadata={"finish_reason": "error"}))

    assert (trial.failure().kind, trial.failure().maybe_paid) == (Kind.BAD_BODY, True)


@pytest.mark.parametrize("message", [{"role": "wizard", "content": "x"}, {"content": "x"}, {"role": "user"}, 5])
def test_what_are_no_messages_is_the_row_s_own_fault_and_no_call(message: Any) -> None:
    trial = Trial()

    assert trial.failure(message).kind is Kind.BAD_ROW
    assert trial.events == []
    assert trial.model.asked == []


class _Rating(BaseModel):
    probability: float


class _Reason(enum.Enum):
    STOP = 1


def test_a_message_is_kept_as_plain_json_and_nothing_empty() -> None:
    message = AIMessage(
        "",
        tool_calls=[{"name": "f", "args": {"a": [1]}, "id": "c1"}],
        response_metadata={"ratings": (_Rating(probability=0.5),), "reason": _Reason.STOP, 3: None},
    )

    kept = message_json(message)

    assert json.loads(json.dumps(kept)) == {
        "content": "",
        "tool_calls": [{"name": "f", "args": {"a": [1]}, "id": "c1", "type": "tool_call"}],
        "response_metadata": {"ratings": [{"probability": 0.5}], "reason": "_Reason.STOP", "3": None},
    }
