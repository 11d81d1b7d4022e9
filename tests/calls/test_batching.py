"""Calls that share requests: when a batch goes out, what each call gets of it, and what one bad row does to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from lcbatch.calls.batching import Batching, BatchLimits
from lcbatch.calls.concurrency import ConcurrencyPolicy
from lcbatch.calls.stored import stored
from lcbatch.calls.waiting import unhurried
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.execute.shutdown import Patience
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Call, Wait
from lcbatch.records import Reply, Request, RowScope, Usage, current_row
from lcbatch.testing import MemoryReplies, make_row

from .support import LateReplies, provider_of

_LATENCY_S = 10.0


class Provider:
    """Answers each text with itself in upper case, after ten seconds; refuses what holds a text that is `bad`."""

    def __init__(self, failure: Failure | None = None, bad: str = "bad") -> None:
        self.failure = failure or Failure(Kind.INVALID_REQUEST, "one of them is not fit")
        self.bad = bad
        self.batches: list[list[str]] = []
        self.sent_s: list[float] = []
        self.cancelled = 0

    async def __call__(self, request: Request) -> Reply:
        self.batches.append(request.messages)
        self.sent_s.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(_LATENCY_S)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if any(self.bad in text for text in request.messages):
            raise CallFailed(self.failure, attempts=1)
        vectors = [text.upper() for text in request.messages]
        tokens = sum(map(len, request.messages))
        return Reply("", {"vectors": vectors}, "m", usage=Usage(tokens), cost_usd=tokens * 0.5, latency_s=_LATENCY_S)

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


def batching(*, wait: Wait = unhurried, slots: int = 100, **limits: Any) -> Batching:
    known = BatchLimits(**{"calls": 4, "tokens": 1000.0, "delay_s": 1.0, **limits})
    return Batching(known, weigh=lambda request: float(len(request.messages[0])), wait=wait, slots=lambda: slots)


def run(provider: Provider, batches: Batching, work: Callable[[Call], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work(batches.over(provider))

    return run_virtual(main())


def all_of(*texts: str, **params: Any) -> Callable[[Call], Coroutine[Any, Any, list[Any]]]:
    async def work(call: Call) -> list[Any]:
        return await asyncio.gather(*(call(Request([text], params)) for text in texts), return_exceptions=True)

    return work


def test_full_batches_go_out_at_once_and_the_rest_after_the_delay() -> None:
    provider = Provider()
    replies = run(provider, batching(), all_of(*"abcdefghij"))
    assert provider.sizes == [4, 4, 2]
    assert provider.sent_s == [0.0, 0.0, 1.0]
    assert [reply.text for reply in replies] == list("ABCDEFGHIJ")


def test_shares_sum_up_to_what_the_request_took() -> None:
    replies = run(Provider(), batching(), all_of("a", "bb", "ccccc"))
    assert [reply.usage.prompt_tokens for reply in replies] == [1, 2, 5]
    assert [reply.cost_usd for reply in replies] == [0.5, 1.0, 2.5]
    assert all(reply.latency_s == _LATENCY_S and reply.message == {} for reply in replies)


def test_after_the_last_row_nobody_is_waited_for() -> None:
    provider, batches = Provider(), batching(delay_s=60.0)

    async def work(call: Call) -> None:
        calls = asyncio.ensure_future(all_of("a", "b")(call))
        await asyncio.sleep(0)
        batches.no_more()
        await calls

    run(provider, batches, work)
    assert provider.sizes == [2]
    assert provider.sent_s[0] < 0.1


def test_every_reply_is_kept_once_before_the_first_is_told() -> None:
    replies, told = MemoryReplies(), list[int]()

    async def row(number: int, call: Call) -> None:
        current_row.set(RowScope(make_row(number), 0.0))
        await call(Request([str(number)]))
        told.append(len(replies.kept))

    async def main() -> None:
        call = stored(replies)(batching().over(Provider()))
        await asyncio.gather(*(asyncio.ensure_future(row(number, call)) for number in range(4)))

    run_virtual(main())
    assert told == [4, 4, 4, 4]


def test_a_batch_s_slot_is_free_once_the_replies_of_all_its_rows_are_committed() -> None:
    provider, replies = Provider(), LateReplies()

    async def row(number: int, call: Call) -> None:
        current_row.set(RowScope(make_row(number), 0.0))
        await call(Request([str(number)]))

    async def main() -> None:
        one_at_a_time = provider_of(provider, concurrency=ConcurrencyPolicy(least=1, most=1, limit=1))
        call = stored(replies)(batching(calls=2, slots=2).over(one_at_a_time))
        await asyncio.gather(*(asyncio.ensure_future(row(number, call)) for number in range(4)))

    run_virtual(main())
    assert provider.sizes == [2, 2]
    assert provider.sent_s[1] - provider.sent_s[0] == pytest.approx(60.0 + _LATENCY_S)


def test_a_batch_holds_no_more_tokens_than_allowed_unless_one_row_alone_does() -> None:
    provider = Provider()
    run(provider, batching(tokens=6.0), all_of("aaa", "bb", "cc", "d" * 9, "e"))
    assert provider.batches == [["aaa", "bb"], ["cc"], ["d" * 9], ["e"]]


def test_requests_of_other_parameters_stay_apart() -> None:
    provider = Provider()

    async def work(call: Call) -> None:
        await asyncio.gather(call(Request(["a"])), call(Request(["b"], {"x": 1})), call(Request(["c"], {"x": 1})))

    run(provider, batching(), work)
    assert provider.batches == [["a"], ["b", "c"]]


def test_a_batch_that_would_only_stand_in_line_waits_for_more() -> None:
    provider, batches = Provider(), batching(slots=1)

    async def work(call: Call) -> None:
        first = asyncio.ensure_future(all_of(*"abcd")(call))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(all_of("e", "f")(call))
        await first
        await asyncio.gather(second, all_of("g", "h")(call))

    run(provider, batches, work)
    assert provider.batches == [list("abcd"), list("efgh")]


@pytest.mark.parametrize(("message", "requests"), [("not fit", 17), ("Invalid 'input[137]': too long", 3)])
def test_a_poisoned_row_fails_alone(message: str, requests: int) -> None:
    provider = Provider(Failure(Kind.INVALID_REQUEST, message))
    texts = [f"row {number}" for number in range(256)]
    texts[137] = "bad"
    replies = run(provider, batching(calls=256, tokens=1e6), all_of(*texts))
    failed = [number for number, reply in enumerate(replies) if isinstance(reply, CallFailed)]
    assert failed == [137]
    assert len(provider.batches) == requests
    assert all(reply.text == text.upper() for reply, text in zip(replies, texts, strict=True) if text != "bad")


@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.THROTTLE, Kind.TIMEOUT, Kind.QUOTA])
def test_a_failure_that_is_no_rows_own_is_everybodys(kind: Kind) -> None:
    provider = Provider(Failure(kind, "not now"))
    replies = run(provider, batching(), all_of("bad", "b", "c", "d"))
    assert [reply.failure.kind for reply in replies] == [kind] * 4
    assert len({id(reply) for reply in replies}) == 4, "each raises an exception of its own"
    assert provider.sizes == [4]


def test_a_cap_without_room_for_the_batch_is_used_to_its_end() -> None:
    provider = Provider(Failure(Kind.QUOTA, "the cap is reached", budget=True), bad="4")
    replies = run(provider, batching(), all_of("1", "2", "3", "4"))
    assert [isinstance(reply, CallFailed) for reply in replies] == [False, False, False, True]


def test_an_answer_of_another_number_of_vectors_is_a_bad_body() -> None:
    class Short(Provider):
        async def __call__(self, request: Request) -> Reply:  # noqa: ARG002 - ports.Call
            return Reply("", {"vectors": ["x"]}, "m")

    replies = run(Short(), batching(), all_of(*"abcd"))
    assert [reply.failure.kind for reply in replies] == [Kind.BAD_BODY] * 4


def test_a_call_that_is_cancelled_leaves_its_batch() -> None:
    provider, batches = Provider(), batching()

    async def work(call: Call) -> None:
        early, staying = (asyncio.ensure_future(call(Request([text]))) for text in "ab")
        await asyncio.sleep(0)
        early.cancel()
        assert (await staying).text == "B"

    run(provider, batches, work)
    assert provider.batches == [["b"]]


def test_a_request_that_nobody_waits_for_any_more_is_ended() -> None:
    provider, batches = Provider(), batching()

    async def work(call: Call) -> None:
        calls = [asyncio.ensure_future(call(Request([text]))) for text in "abcd"]
        await asyncio.sleep(1.0)
        for one in calls:
            one.cancel()
        await asyncio.wait(calls)
        assert provider.cancelled == 1, "and it has ended by then"

    run(provider, batches, work)


async def _row(number: int, call: Call) -> RowScope:
    scope = RowScope(make_row(number), 0.0, calls_out=1)
    current_row.set(scope)
    with pytest.raises(asyncio.CancelledError):
        await call(Request([str(number)]))
    return scope


@pytest.mark.parametrize("stage", ["gathering", "in line"])
def test_a_stop_cuts_rows_off_that_only_wait(stage: str) -> None:
    patience = Patience()

    async def in_line(request: Request) -> Reply:  # noqa: ARG001 - ports.Call
        await patience.wait(asyncio.get_running_loop().create_future())
        raise AssertionError("its turn never comes")

    async def main() -> list[RowScope]:
        call = batching(wait=patience.wait, calls=3 if stage == "gathering" else 2).over(in_line)
        rows = [asyncio.ensure_future(_row(number, call)) for number in range(2)]
        await asyncio.sleep(0.5)
        patience.end()
        return await asyncio.gather(*rows)

    assert all(scope.cut_off for scope in run_virtual(main()))


def test_what_a_batch_waits_for_is_charged_to_no_row() -> None:
    seen: list[RowScope | None] = []

    async def inner(request: Request) -> Reply:
        seen.append(current_row.get(None))
        return Reply("", {"vectors": request.messages}, "m")

    async def row(call: Call) -> None:
        current_row.set(RowScope(make_row(1), 0.0))
        await call(Request(["a"]))

    async def main() -> None:
        await asyncio.ensure_future(row(batching().over(inner)))

    run_virtual(main())
    assert seen == [None]
