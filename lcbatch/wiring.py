"""Job -> work: the one file that knows the order of the layers, and hands models and prices to who needs them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lcbatch.bounds import MOST_CALLS, Window, batch_size, bounds_of, model_name
from lcbatch.calls import tracing
from lcbatch.calls.asking import invoking
from lcbatch.calls.batching import Batching, BatchLimits
from lcbatch.calls.breaker import BreakerPolicy
from lcbatch.calls.budget import Budget, WorstCase, budget
from lcbatch.calls.concurrency import ConcurrencyPolicy
from lcbatch.calls.direct import direct
from lcbatch.calls.fallback import fallback
from lcbatch.calls.provider import ENDPOINTS_OWN, Endpoint, Provider
from lcbatch.calls.rate import RateLimits
from lcbatch.calls.retry import RetryPolicy, retry
from lcbatch.calls.stored import stored
from lcbatch.calls.tracing import Bound
from lcbatch.calls.waiting import Waiting
from lcbatch.chains.pieces import tokens_of
from lcbatch.errors import Kind
from lcbatch.events import Notice
from lcbatch.execute.deadlines import sleeping
from lcbatch.job import EMBED, Job
from lcbatch.models import LoadedModel
from lcbatch.models.prices import price_of
from lcbatch.models.providers import longest_answer
from lcbatch.models.proxies import is_loopback
from lcbatch.models.quiet import QuietClients, overheard
from lcbatch.models.served import Served
from lcbatch.ports import Ask, Call, Clock, Emit, Price, Replies, Wait, Within
from lcbatch.records import Request

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the call stacks of a run share: time, whom to tell, how to wait, and what they count together.

    `hopeful` says that the provider has answered in an earlier run. `most_calls` is what this machine's open files allow,
    whatever -j says. `purse` is None without a cap, `batching` where each call goes out by itself. `limits` are those of each
    endpoint, by model and address, as far as they are known.
    """

    clock: Clock
    emit: Emit
    window: Window
    wait: Wait
    within: Within
    waiting: Waiting = field(default_factory=Waiting)
    purse: Budget | None = None
    batching: Batching | None = None
    hopeful: bool = False
    most_calls: int = MOST_CALLS
    limits: dict[str, RateLimits] = field(default_factory=dict)


def batching_of(job: Job, wait: Wait, window: Window) -> Batching | None:
    """What gathers the rows of an embedding job into requests; None where each row makes its own."""
    if job.task != EMBED:
        return None
    run = job.run
    # A request that is larger than the limit a minute would never be let out.
    tokens = min(float(run.batch_tokens), run.tpm or math.inf)
    limits = BatchLimits(batch_size(job), tokens, run.max_batch_delay)
    return Batching(limits, weigh=_weight, wait=wait, slots=lambda: window.calls)


def _weight(request: Request) -> float:
    return sum(map(tokens_of, request.messages))


@asynccontextmanager
async def govern(job: Job, replies: Replies, around: Surroundings) -> AsyncIterator[None]:
    """While inside, every chat model in a user's own chain goes through a stack of its own; built-in chains call theirs."""
    if job.chain.chain is None:
        yield
        return
    from lcbatch.calls import governed  # noqa: PLC0415 - imports LangChain, which only a user's own chain needs here

    def tell(text: str) -> None:
        around.emit(Notice(text))

    clients = QuietClients(bounds_of(job).most, told=tell if job.display.debug else None)

    def stack_of(chat: BaseChatModel) -> Call:
        label = governed.label_of(chat)
        local = is_loopback(urlsplit(governed.address_of(chat)).hostname or "")
        price = price_of(label.partition(":")[0], local=local, given=job.model.price)
        ask, listen = overheard(governed.ask)
        line = Line(label, (Ended(ask, price, longest_answer(chat), listen),))
        return call_stack(job, [line], replies, around)

    try:
        with governed.governed(stack_of, quiet=clients.quiet, tell=tell):
            yield
    finally:
        await clients.aclose()


@asynccontextmanager
async def traced(env: Mapping[str, str], clock: Clock, emit: Emit, bound: Bound) -> AsyncIterator[Bound]:
    """While inside, what LangSmith is sent costs no more than it may. Gives what is to go around each row's work."""
    if not tracing.is_on(env):
        yield bound
        return
    told, announced = (lambda text: emit(Notice(text))), (lambda text: emit(Notice(text, always=True)))
    async with tracing.traced(clock, told, announced) as sent:
        yield bound if sent is None else sent.row(bound)


@dataclass(frozen=True, slots=True)
class Ended:
    """What stands at the end of a stack: how to ask, and what is known of the answers. Limits None: as the job says."""

    ask: Ask
    price: Price
    max_output_tokens: int | None = None
    listen: Callable[[Callable[[Mapping[str, str]], None]], None] | None = None
    url: str = ""
    rpm: float | None = None
    tpm: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One model, and its endpoints."""

    label: str
    ends: tuple[Ended, ...]

    def name_of(self, end: Ended) -> str:
        """By which the limits of an endpoint are known, also to later runs."""
        return f"{self.label} {end.url}".strip()


def lines_of(models: Sequence[Served]) -> list[Line]:
    """What the stacks are built over, for models that are asked through LangChain."""
    return [
        Line(
            served.label,
            tuple(
                Ended(
                    _ask(model),
                    model.price,
                    model.max_output_tokens,
                    model.listen,
                    url=at.base_url if at else "",
                    rpm=at.rpm if at else None,
                    tpm=at.tpm if at else None,
                )
                for at, model in served.endpoints
            ),
        )
        for served in models
    ]


def _ask(model: LoadedModel) -> Ask:
    """Through LangChain, or past it where that comes to the same; what asks for an object does so in the model's own way."""
    if model.ask is not None:
        return model.ask
    way = invoking(model.chat)
    if model.shortcut is not None:
        way = model.shortcut(way)
    return way if model.shape is None else model.shape(way)


def call_stack(job: Job, lines: Sequence[Line], replies: Replies, around: Surroundings) -> Call:
    """stored · batch( fallback( retry · provider( budget · direct ) ) ), read from the outside in.

    `provider` is concurrency, rate, pause and breaker in one queue: a call that waits for one of them must not go out into what
    another holds back, and one that meets an outage must find another endpoint. Retry stands outside, so that no slot is held
    between attempts; budget stands inside, so that only calls on the wire have a reservation.
    """
    again = [
        (line.label, _patient(job, _provider(job, line, around, hands_on=line is not lines[-1]), around))
        for line in lines
    ]
    call = fallback(again, around.emit)
    return stored(replies, wait=around.wait)(call if around.batching is None else around.batching.over(call))


def _patient(job: Job, provider: Provider, around: Surroundings) -> Call:
    policy = RetryPolicy(max_wait_s=job.run.max_wait, uniform=random.uniform)
    layer = retry(policy, clock=around.clock, sleep=sleeping(around.wait), emit=around.emit, waiting=around.waiting)
    return layer(provider)


def _provider(job: Job, line: Line, around: Surroundings, *, hands_on: bool) -> Provider:
    bounds = bounds_of(job).within(around.most_calls)
    endpoints = [
        Endpoint(
            call=_attempt(job, line.label, end, around),
            concurrency=ConcurrencyPolicy(least=bounds.least, most=bounds.most, limit=bounds.start),
            breaker=BreakerPolicy(hopeful=around.hopeful, outage_timeout_s=job.run.outage_timeout),
            limits=_limits(job, line.name_of(end), end, around),
            label=end.url,
            # Where each row names its model, one that is unknown says nothing about the others.
            leaves_out=ENDPOINTS_OWN - {Kind.NOT_FOUND} if model_name(job) is None else ENDPOINTS_OWN,
        )
        for end in line.ends
    ]
    provider = Provider(
        endpoints,
        most=bounds.most,
        clock=around.clock,
        emit=around.emit,
        resize=around.window.of(line),
        wait=around.wait,
        hands_on=hands_on,
    )
    around.waiting.watch(provider.held_up_by)
    return provider


def _limits(job: Job, name: str, end: Ended, around: Surroundings) -> RateLimits:
    """The endpoint's limits a minute: as they are given, else as its answers say."""
    limits = RateLimits(rpm=end.rpm or job.run.rpm, tpm=end.tpm or job.run.tpm)
    around.limits[name] = limits
    if end.listen is not None:
        end.listen(lambda headers: limits.heard(headers, around.clock(), time.time()))
    return limits


def _attempt(job: Job, label: str, end: Ended, around: Surroundings) -> Call:
    """budget · direct: one attempt at one endpoint, when the purse allows it."""
    call = direct(
        end.ask,
        label=label,
        timeout_s=job.model.timeout,
        price=end.price,
        clock=around.clock,
        emit=around.emit,
        within=around.within,
    )
    if around.purse is None:
        return call
    price = end.price if job.run.max_cost is not None else None
    return budget(around.purse, WorstCase(price, label.partition(":")[2], end.max_output_tokens).of)(call)
