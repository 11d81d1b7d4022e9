"""Answers that were paid for are kept before anybody sees them, and given back without a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from lcbatch.calls.concurrency import ConcurrencyPolicy
from lcbatch.calls.stored import stored
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Call
from lcbatch.records import Reply, Request, RowScope, Usage, current_row
from lcbatch.testing import MemoryReplies, ScriptedCall, make_row
from tests.calls.support import LateReplies, provider_of

_HELLO = Request([{"role": "user", "content": "hello"}])


def request(text: str, **params: Any) -> Request:
    return Request([{"role": "user", "content": text}], params)


def in_row(ordinal: int, call: Call, row: Callable[[Call], Awaitable[Any]]) -> RowScope:
    """Run one row's calls; what it was charged."""
    scope = RowScope(make_row(ordinal), 0.0)

    async def work() -> None:
        current_row.set(scope)
        await row(call)

    run_virtual(work())
    return scope


async def twice(call: Call) -> list[str]:
    return [(await call(_HELLO)).text, (await call(_HELLO)).text]


def test_equal_requests_of_one_row_are_different_calls() -> None:
    inner, replies = ScriptedCall(["first", "second"]), MemoryReplies()
    answers: list[str] = []

    async def row(call: Call) -> None:
        answers.extend(await twice(call))

    in_row(0, stored(replies)(inner), row)
    in_row(0, stored(replies)(inner), row)

    assert answers == ["first", "second"] * 2
    assert len(inner.requests) == 2, "the second run of the row is answered from the store"


def test_equal_requests_at_once_are_told_apart_too() -> None:
    inner = ScriptedCall(["a", "b"], latency_s=1.0)

    async def row(call: Call) -> None:
        await asyncio.gather(call(_HELLO), call(_HELLO))

    replies = MemoryReplies()
    in_row(0, stored(replies)(inner), row)

    assert sorted(reply.text for reply in replies.kept.values()) == ["a", "b"]


@pytest.mark.parametrize(
    ("ordinal", "other", "chain"),
    [
        pytest.param(1, request("hello"), b"chain", id="another row"),
        pytest.param(0, request("hello!"), b"chain", id="another text"),
        pytest.param(0, request("hello", temperature=1), b"chain", id="another parameter"),
        pytest.param(0, request("hello"), b"changed", id="another chain"),
    ],
)
def test_nobody_gets_the_answer_to_another_call(ordinal: int, other: Request, chain: bytes) -> None:
    inner, replies = ScriptedCall(["first", "second"]), MemoryReplies()
    in_row(0, stored(replies)(inner), lambda call: call(request("hello")))
    replies.chain_fingerprint = chain

    in_row(ordinal, stored(replies)(inner), lambda call: call(other))

    assert len(inner.requests) == 2


def test_the_order_of_keys_makes_no_other_request() -> None:
    inner, replies = ScriptedCall(["first"]), MemoryReplies()
    in_row(0, stored(replies)(inner), lambda call: call(Request([{"role": "user", "content": "x"}], {"a": 1, "b": 2})))
    in_row(0, stored(replies)(inner), lambda call: call(Request([{"content": "x", "role": "user"}], {"b": 2, "a": 1})))

    assert len(inner.requests) == 1


def test_a_reply_is_kept_before_its_caller_sees_it() -> None:
    replies = MemoryReplies()

    async def row(call: Call) -> None:
        reply = await call(_HELLO)
        assert list(replies.kept.values()) == [reply]
        raise CallFailed(Failure(Kind.PARSE, "the parser fails on a paid answer"))

    with pytest.raises(CallFailed):
        in_row(0, stored(replies)(ScriptedCall(["paid"])), row)
    assert len(replies.kept) == 1


def test_a_row_s_next_call_goes_out_when_the_replies_before_it_are_committed() -> None:
    """Killed between two steps of a chain, a run has lost nothing of the first."""
    replies = LateReplies()
    inner = ScriptedCall(["first", "second"], latency_s=1.0)

    async def row(call: Call) -> None:
        await call(_HELLO)
        assert asyncio.get_running_loop().time() == 1.0, "the caller itself does not wait"
        second = asyncio.create_task(call(_HELLO))
        await asyncio.sleep(59.0)
        assert len(inner.requests) == 1
        await second

    in_row(0, stored(replies)(inner), row)

    assert len(inner.requests) == 2


def test_a_slot_is_free_once_its_answer_is_committed() -> None:
    """A killed process must not have lost more answers than it had slots."""
    inner = ScriptedCall(["a", Failure(Kind.SERVER, "no"), "c"], latency_s=1.0)
    began: list[float] = []

    async def asked(request: Request) -> Reply:
        began.append(asyncio.get_running_loop().time())
        return await inner(request)

    async def main() -> None:
        call = stored(LateReplies())(provider_of(asked, concurrency=ConcurrencyPolicy(least=1, most=1, limit=1)))

        async def row(ordinal: int) -> None:
            current_row.set(RowScope(make_row(ordinal), 0.0))
            await call(_HELLO)

        await asyncio.gather(*map(row, range(3)), return_exceptions=True)

    run_virtual(main())

    assert began == [0.0, 61.0, 62.0], "a failure has nothing to commit"


def test_a_failure_keeps_nothing_and_charges_nothing() -> None:
    replies = MemoryReplies()
    scope = RowScope(make_row(0), 0.0)
    call = stored(replies)(ScriptedCall([Failure(Kind.SERVER, "no")]))

    async def work() -> None:
        current_row.set(scope)
        with pytest.raises(CallFailed):
            await call(_HELLO)

    run_virtual(work())

    assert replies.kept == {}
    assert scope.account.calls == 0


def test_a_row_is_charged_for_its_calls_stored_ones_too() -> None:
    priced = [
        Reply("a", {}, "m", "stop", Usage(10, 2), cost_usd=0.5, attempts=2),
        Reply("b", {}, "m2", "length", Usage(1, 1), cost_usd=0.25),
    ]
    inner, replies = ScriptedCall(priced), MemoryReplies()

    scopes = [in_row(0, stored(replies)(inner), twice) for _ in range(2)]

    for scope in scopes:
        account = scope.account
        assert (account.calls, account.attempts, account.usage) == (2, 3, Usage(11, 3))
        assert (account.cost_usd, account.model, account.finish_reason) == (0.75, "m2", "length")
        assert scope.last_reply is not None
        assert scope.last_reply[1] == "b"


def test_one_unknown_price_makes_the_row_s_cost_unknown() -> None:
    inner = ScriptedCall([Reply("a", {}, "m", cost_usd=None), Reply("b", {}, "m", cost_usd=0.25)])

    assert in_row(0, stored(MemoryReplies())(inner), twice).account.cost_usd is None


def shared(text: str) -> Request:
    return Request([{"role": "user", "content": text}], shared=True)


def test_a_shared_reply_answers_any_row_and_is_charged_to_the_one_that_asked() -> None:
    replies = MemoryReplies()
    inner = ScriptedCall([Reply("a", {}, "m", "stop", Usage(10, 2), cost_usd=0.5)])

    async def row(call: Call) -> None:
        assert (await call(shared("part"))).text == "a"

    paid, borrowed, again = (in_row(ordinal, stored(replies)(inner), row) for ordinal in (0, 1, 0))

    assert len(inner.requests) == 1
    assert (paid.account.calls, paid.account.cost_usd) == (1, 0.5)
    assert (borrowed.account.calls, borrowed.account.cost_usd) == (0, 0.0)
    assert (again.account.calls, again.account.cost_usd) == (1, 0.5)
    assert paid.last_reply is None, "it is not the row's own reply"


def at_once(call: Call, rows: int) -> list[RowScope | BaseException]:
    """Rows that ask the same part at the same time; what each was charged, or how it failed."""

    async def work(ordinal: int) -> RowScope:
        current_row.set(scope := RowScope(make_row(ordinal), 0.0))
        await call(shared("part"))
        return scope

    async def main() -> list[RowScope | BaseException]:
        return await asyncio.gather(*map(work, range(rows)), return_exceptions=True)

    return run_virtual(main())


def test_what_rows_ask_at_the_same_time_is_asked_once_and_charged_once() -> None:
    inner = ScriptedCall([Reply("a", {}, "m", "stop", Usage(10, 2), cost_usd=0.5)], latency_s=1.0)

    scopes = at_once(stored(MemoryReplies())(inner), 3)

    assert len(inner.requests) == 1
    assert [scope.account.calls for scope in scopes if isinstance(scope, RowScope)] == [1, 0, 0]


def test_who_waits_for_another_row_asks_itself_when_that_one_fails() -> None:
    inner = ScriptedCall([Failure(Kind.SERVER, "down"), "a"], latency_s=1.0)

    failed, asked, borrowed = at_once(stored(MemoryReplies())(inner), 3)

    assert isinstance(failed, CallFailed)
    assert [isinstance(scope, RowScope) and scope.account.calls for scope in (asked, borrowed)] == [1, 0]


def test_a_row_that_is_cut_off_takes_nothing_from_those_that_wait_with_it() -> None:
    inner = ScriptedCall(["a"], latency_s=1.0)
    call = stored(MemoryReplies())(inner)

    async def work(ordinal: int) -> str:
        current_row.set(RowScope(make_row(ordinal), 0.0))
        return (await call(shared("part"))).text

    async def main() -> list[str]:
        first, cut_off, third = (asyncio.create_task(work(ordinal)) for ordinal in range(3))
        await asyncio.sleep(0.5)
        cut_off.cancel()
        return [await first, await third]

    assert run_virtual(main()) == ["a", "a"]
    assert len(inner.requests) == 1


def test_a_shared_reply_is_not_that_of_another_chain() -> None:
    inner, replies = ScriptedCall(["first", "second"]), MemoryReplies()
    in_row(0, stored(replies)(inner), lambda call: call(shared("part")))
    replies.chain_fingerprint = b"changed"

    in_row(1, stored(replies)(inner), lambda call: call(shared("part")))

    assert len(inner.requests) == 2


def test_a_sample_has_shared_replies_of_its_own() -> None:
    inner, replies = ScriptedCall(["first", "second"]), MemoryReplies()
    said: list[str] = []

    async def row(sample: int) -> None:
        current_row.set(RowScope(replace(make_row(0), sample=sample), 0.0))
        said.append((await stored(replies)(inner)(shared("part"))).text)

    for sample in (0, 1, 0, 1):
        run_virtual(row(sample))

    assert said == ["first", "second", "first", "second"]


def test_what_has_no_text_stays_with_its_row_so_that_a_retry_asks_anew() -> None:
    replies = MemoryReplies()

    in_row(0, stored(replies)(ScriptedCall([Reply("", {}, "m")])), lambda call: call(shared("part")))

    assert replies.shared == {}
    assert len(replies.kept) == 1
