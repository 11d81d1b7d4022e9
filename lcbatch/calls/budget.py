"""Money and tokens, kept below the user's cap: a call reserves the worst it can take, and settles what it took.

The cap holds for everything ever spent on one output, so it starts from what the store says. While the rest does not cover one
more worst case, calls wait as long as others are out, which will give most of theirs back; when none is out, the cap is reached.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lcbatch import jsontext
from lcbatch.calls.waiting import Waiting
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Gate
from lcbatch.ports import Call, Layer, Price, Wait
from lcbatch.records import Reply, Request, Usage

_TOKENS_PER_MESSAGE = 16
"""What chat templates put around a message: 3 or 4 tokens with OpenAI's, up to about ten with others."""

_TOKENS_PER_TEXT = 2
"""What embedding models put around a text: a mark at its beginning and one at its end, with those that do."""


@dataclass(frozen=True, slots=True)
class Spend:
    """US dollars and tokens, taken or at most to be taken."""

    usd: float = 0.0
    tokens: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.usd + other.usd, self.tokens + other.tokens)

    def __sub__(self, other: Spend) -> Spend:
        return Spend(self.usd - other.usd, self.tokens - other.tokens)


class BudgetSpent(CallFailed):
    """The cap is reached. No call was made."""

    final = True


@dataclass(slots=True)
class BudgetPolicy:
    """The account. Plain state: `spent` in all runs, `reserved` by calls that are out, of at most `most_usd` and `most_tokens`.

    `uncertain` is the part of `spent` that was perhaps not billed: worst cases of calls that broke off.
    """

    most_usd: float | None = None
    most_tokens: int | None = None
    spent: Spend = field(default_factory=Spend)
    reserved: Spend = field(default_factory=Spend)
    uncertain: Spend = field(default_factory=Spend)
    calls: int = 0

    def covers(self, worst: Spend) -> bool:
        """Whether one more call can take this much without passing the cap."""
        after = self.spent + self.reserved + worst
        return after.usd <= _or_infinite(self.most_usd) and after.tokens <= _or_infinite(self.most_tokens)

    def reserve(self, worst: Spend) -> None:
        """A call goes out."""
        self.reserved += worst
        self.calls += 1

    def settle(self, worst: Spend, taken: Spend, *, certain: bool = True) -> None:
        """A call is over and took this much."""
        self.reserved -= worst
        self.calls -= 1
        if not self.calls:
            self.reserved = Spend()  # sums of floats do not come back to 0 by themselves
        self.spent += taken
        if not certain:
            self.uncertain += taken

    def reached(self, worst: Spend) -> str:
        """The cap in words, for a call that could take `worst`."""
        if self.most_usd is not None and self.spent.usd + worst.usd > self.most_usd:
            return (
                f"--max-cost {self.most_usd:g} is reached: ${self.spent.usd:.4f} spent on this output so far, "
                f"and one more call could take ${worst.usd:.4f}"
            )
        return (
            f"--max-total-tokens {self.most_tokens} is reached: {self.spent.tokens} used on this output so far, "
            f"and one more call could take {worst.tokens}"
        )


def _or_infinite(cap: float | None) -> float:
    return math.inf if cap is None else cap


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that one request can take.

    No tokenizer makes more tokens than there are UTF-8 bytes, and no model more output than it is allowed to. Without `price`
    only the tokens count.
    """

    price: Price | None
    model: str
    max_output_tokens: int | None

    def of(self, request: Request) -> Spend:
        """Raises CallFailed for a request whose price or length has no bound."""
        params = request.params
        model = str(params.get("model") or self.model)
        output = longest_of(request, self.max_output_tokens)
        if output is None:
            raise _unbounded(f"the longest answer of {model} is not known", "--max-output-tokens")
        usage = Usage(_most_prompt_tokens(request), output)
        cost_usd = self.price(model, usage) if self.price is not None else 0.0
        if cost_usd is None:
            raise _unbounded(f"no price is known for {model}", "--price in=..,out=..")
        return Spend(cost_usd, usage.prompt_tokens + usage.completion_tokens)


def longest_of(request: Request, longest: int | None) -> int | None:
    """The longest answer in tokens that a request allows: its own word goes before the model's."""
    own = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    return own if isinstance(own, int) else longest


def _unbounded(what: str, option: str) -> CallFailed:
    return CallFailed(Failure(Kind.INVALID_REQUEST, f"{what}, so that it cannot be kept to a budget: give {option}"))


def _most_prompt_tokens(request: Request) -> int:
    sent = [request.messages, {name: value for name, value in request.params.items() if name in _SENT}]
    around = sum(_TOKENS_PER_TEXT if isinstance(one, str) else _TOKENS_PER_MESSAGE for one in request.messages)
    return len(jsontext.dumps(sent).encode()) + _TOKENS_PER_MESSAGE + around


_SENT = frozenset({"tools", "functions", "response_format", "tool_choice"})
"""Parameters that the provider counts as a part of the prompt."""


def taken_by(reply: Reply, worst: Spend) -> Spend:
    """What an answered call took; where the provider does not say, or its price is unknown, the worst."""
    tokens = reply.usage.prompt_tokens + reply.usage.completion_tokens
    if not tokens:
        return worst
    return Spend(worst.usd if reply.cost_usd is None else reply.cost_usd, tokens)


class Budget:
    """The shell around the policy. One for a run, whatever the number of its models: first come, first served."""

    def __init__(self, policy: BudgetPolicy, *, wait: Wait, waiting: Waiting) -> None:
        self.policy = policy
        self._wait = wait
        self._waiting = waiting
        self._queue: deque[tuple[Spend, asyncio.Future[None]]] = deque()

    async def take(self, worst: Spend) -> None:
        """Reserve, waiting for others to settle if need be. Raises BudgetSpent."""
        if not self._queue and self.policy.covers(worst):
            self.policy.reserve(worst)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((worst, turn))
        self._serve()
        try:
            with self._waiting.at(Gate.BUDGET):
                await self._wait(turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.settle(worst, Spend())
            raise

    def settle(self, worst: Spend, taken: Spend, *, certain: bool = True) -> None:
        """The call is over."""
        self.policy.settle(worst, taken, certain=certain)
        self._serve()

    def _serve(self) -> None:
        while self._queue:
            worst, turn = self._queue[0]
            if turn.done():
                self._queue.popleft()
            elif self.policy.covers(worst):
                self._queue.popleft()
                self.policy.reserve(worst)
                turn.set_result(None)
            elif not self.policy.calls:
                self._queue.popleft()
                turn.set_exception(BudgetSpent(Failure(Kind.QUOTA, self.policy.reached(worst), budget=True)))
            else:
                return


def budget(purse: Budget, worst_of: Callable[[Request], Spend]) -> Layer:
    """A layer that makes no call which could pass the cap. A call that may have been billed counts as if it was."""

    def wrap(inner: Call) -> Call:
        async def call(request: Request) -> Reply:
            worst = worst_of(request)
            await purse.take(worst)
            taken, certain = worst, False  # cancelled on the wire: it may be billed
            try:
                reply = await inner(request)
            except CallFailed as error:
                if not error.failure.maybe_paid:
                    taken, certain = Spend(), True
                raise
            else:
                taken, certain = taken_by(reply, worst), True
                return reply
            finally:
                purse.settle(worst, taken, certain=certain)

        return call

    return wrap
