"""The budget in virtual time: the cap is never passed, nearly all of it is used, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.calls.budget import Budget, BudgetPolicy, BudgetSpent, Spend, WorstCase, budget
from lcbatch.calls.waiting import Waiting, unhurried
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Gate
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.records import Reply, Request, Usage
from tests.calls.support import provider_of

_PER_TOKEN = 1e-5


def _price(model: str, usage: Usage) -> float | None:
    return None if model == "unknown" else (usage.prompt_tokens + usage.completion_tokens) * _PER_TOKEN


def _request(text: str = "x", **params: object) -> Request:
    return Request([{"role": "user", "content": text}], params)


class _Provider:
    """Answers in about a second with up to 100 tokens. A share of the calls breaks off, and is billed all the same."""

    def __init__(self, broken: float = 0.0) -> None:
        self.billed = Spend()
        self._broken = broken
        self._dice = random.Random(2)  # noqa: S311 - latencies

    async def __call__(self, request: Request) -> Reply:  # noqa: ARG002 - a Call by its shape
        usage = Usage(20, self._dice.randint(1, 100))
        cost_usd = _price("m", usage)
        assert cost_usd is not None
        await asyncio.sleep(self._dice.lognormvariate(-0.125, 0.5))
        self.billed += Spend(cost_usd, usage.prompt_tokens + usage.completion_tokens)
        if self._dice.random() < self._broken:
            raise CallFailed(Failure(Kind.TRUNCATED, "cut", maybe_paid=True))
        return Reply("x", {}, "m", usage=usage, cost_usd=cost_usd)


@pytest.mark.parametrize("broken", [0.0, 0.1])
@pytest.mark.parametrize("cap", ["usd", "tokens"])
def test_at_concurrency_500_the_cap_is_used_and_never_passed(broken: float, cap: str) -> None:
    async def main() -> None:
        worst = WorstCase(_price, "m", 100)
        one = worst.of(_request())
        most_usd = 25 * one.usd if cap == "usd" else None
        most_tokens = 25 * one.tokens if cap == "tokens" else None
        policy = BudgetPolicy(most_usd, most_tokens, spent=Spend(3 * one.usd, 3 * one.tokens))
        provider, waiting = _Provider(broken), Waiting()
        call = budget(Budget(policy, wait=unhurried, waiting=waiting), worst.of)(provider)
        outcomes = await asyncio.gather(*(call(_request()) for _ in range(500)), return_exceptions=True)
        stopped = [outcome for outcome in outcomes if isinstance(outcome, BudgetSpent)]
        assert stopped
        assert all(outcome.failure.budget and outcome.failure.kind is Kind.QUOTA for outcome in stopped)
        assert f"--max-{'cost' if cap == 'usd' else 'total-tokens'}" in stopped[0].failure.message
        billed = provider.billed + Spend(3 * one.usd, 3 * one.tokens)
        used, most = (billed.usd, most_usd) if cap == "usd" else (billed.tokens, most_tokens)
        assert most is not None
        assert used <= most
        assert policy.spent.usd >= 0.95 * most if cap == "usd" else policy.spent.tokens >= 0.95 * most
        assert policy.reserved == Spend()
        assert (policy.uncertain.tokens > 0) == (broken > 0)
        assert waiting.binding() is None

    run_virtual(main())


def test_calls_wait_while_others_may_leave_something() -> None:
    async def main() -> None:
        worst = WorstCase(_price, "m", 100)
        policy = BudgetPolicy(most_usd=1.5 * worst.of(_request()).usd)
        waiting = Waiting()
        call = budget(Budget(policy, wait=unhurried, waiting=waiting), worst.of)(_Provider())
        both = [asyncio.ensure_future(call(_request())) for _ in range(2)]
        await asyncio.sleep(0)
        assert waiting.binding() is Gate.BUDGET
        await asyncio.gather(*both)
        assert policy.spent.tokens > 0

    run_virtual(main())


def test_a_call_that_gives_up_waiting_and_one_that_is_cut_off() -> None:
    async def main() -> None:
        worst = WorstCase(_price, "m", 100)
        one = worst.of(_request())
        policy = BudgetPolicy(most_usd=1.5 * one.usd)
        call = budget(Budget(policy, wait=unhurried, waiting=Waiting()), worst.of)(_Provider())
        first, second = (asyncio.ensure_future(call(_request())) for _ in range(2))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0.01)
        assert policy.reserved == one
        first.cancel()
        await asyncio.wait([first, second])
        assert (policy.reserved, policy.spent, policy.uncertain) == (Spend(), one, one)

    run_virtual(main())


@given(st.text(min_size=1, max_size=200), st.integers(1, 1000))
def test_the_worst_case_is_no_less_than_any_tokenizer_makes_of_it(text: str, most: int) -> None:
    worst = WorstCase(_price, "m", most).of(_request(text))
    assert worst.tokens >= len(text.encode("utf-8", "surrogatepass")) + most
    assert worst.usd == pytest.approx(worst.tokens * _PER_TOKEN)


def test_what_a_request_says_itself_counts() -> None:
    worst = WorstCase(_price, "m", None)
    assert worst.of(_request("x", max_tokens=7)).tokens == worst.of(_request("x", max_completion_tokens=7)).tokens
    tool = {"type": "function", "function": {"name": "f" * 500}}
    assert (
        worst.of(_request("x", max_tokens=7, tools=[tool])).tokens >= worst.of(_request("x", max_tokens=7)).tokens + 500
    )


@pytest.mark.parametrize(
    ("worst", "request_", "said"),
    [
        (WorstCase(_price, "m", None), _request(), "--max-output-tokens"),
        (WorstCase(_price, "unknown", 9), _request(), "--price"),
        (WorstCase(_price, "m", 9), _request(model="unknown"), "--price"),
    ],
)
def test_what_has_no_bound_is_refused(worst: WorstCase, request_: Request, said: str) -> None:
    with pytest.raises(CallFailed, match=said):
        worst.of(request_)


def test_without_a_cap_on_money_no_price_is_needed() -> None:
    assert WorstCase(None, "unknown", 9).of(_request()).usd == 0.0


def test_inside_a_provider_the_end_of_the_budget_is_no_outage() -> None:
    async def main() -> None:
        policy = BudgetPolicy(most_usd=1e-9)
        inner = _Provider()
        call = provider_of(
            budget(Budget(policy, wait=unhurried, waiting=Waiting()), WorstCase(_price, "m", 9).of)(inner)
        )
        with pytest.raises(CallFailed) as caught:
            await call(_request())
        assert caught.value.failure.budget
        assert inner.billed == Spend()
        assert call.endpoints[0].closed is None

    run_virtual(main())
