"""Job -> work: the one file that knows the order of the layers, and hands models and prices to who needs them."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from lcbatch.calls import tracing
from lcbatch.calls.asking import answering, invoking
from lcbatch.calls.batching import Batching, BatchLimits
from lcbatch.calls.breaker import BreakerPolicy
from lcbatch.calls.budget import Budget, WorstCase, budget
from lcbatch.calls.concurrency import MOST, START, ConcurrencyPolicy
from lcbatch.calls.direct import direct
from lcbatch.calls.fallback import fallback
from lcbatch.calls.provider import ENDPOINTS_OWN, Endpoint, Provider
from lcbatch.calls.rate import RateLimits
from lcbatch.calls.retry import RetryPolicy, retry
from lcbatch.calls.stored import stored
from lcbatch.calls.tracing import Bound
from lcbatch.calls.waiting import Waiting
from lcbatch.chains import Templates, load_chain, load_templates, summarizing
from lcbatch.chains.context import DEFAULT_CONTEXT_TOKENS, Context
from lcbatch.chains.custom import load_custom
from lcbatch.chains.pieces import Pieces, tokens_of
from lcbatch.chains.structured import StructuredChain
from lcbatch.chains.summarize import MAP_REDUCE, Reading
from lcbatch.errors import Kind, UsageError
from lcbatch.events import Notice
from lcbatch.execute.deadlines import sleeping
from lcbatch.job import EMBED, EXTRACTIVE, SUMMARIZE, ChainOptions, InputOptions, Job, ModelOptions
from lcbatch.models import LoadedModel, Told, load_model
from lcbatch.models.embedders import MOST_INPUTS, load_embedder
from lcbatch.models.prices import price_of
from lcbatch.models.providers import is_loopback, longest_answer
from lcbatch.models.quiet import QuietClients, overheard
from lcbatch.models.served import Served, load_models
from lcbatch.ports import Ask, Call, Chain, Clock, Emit, Layouts, Price, Replies, Wait, Within
from lcbatch.records import Reply, Request, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_EMBEDDED_CALLS = 4
"""The embedded model works on this machine's cores: more calls in flight only take memory."""

_ROWS_PER_CALL = 2
"""Rows in flight for each call: while one row's call is out, the next one's document is read."""

_FIRST_ROWS = 16
"""Rows in flight at the start, also where no call ever says that more would do: a user's own chain without a model."""

_MOST_BATCHED_ROWS = 16_384
"""Rows in flight where many go out in one request: beyond it they would only take memory, for no more throughput."""

MOST_CALLS = 100_000
"""Beyond it no machine has ports."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What -j says: calls in flight between `least` and `most`, beginning with `start`; the first window of rows.

    `batch` is how many rows go out in one call.
    """

    least: int
    most: int
    start: int
    batch: int = 1

    @property
    def rows(self) -> int:
        """Rows in flight at the start."""
        if self.batch > 1:
            return self.rows_for(self.start)
        return self.start if self.least == self.most else _FIRST_ROWS

    @property
    def answers(self) -> int:
        """Answers of ordinary length in flight at the start: eight vectors are shorter than one of these can be."""
        return self.rows if self.batch == 1 else -(-self.rows // 8)

    def rows_for(self, calls: int) -> int:
        """Rows in flight for so many calls: while a batch is out, the next one gathers."""
        rows = _ROWS_PER_CALL * calls * self.batch
        return max(_FIRST_ROWS, rows if self.batch == 1 else min(rows, max(_MOST_BATCHED_ROWS, self.batch)))

    def within(self, most: int) -> Bounds:
        """These, but never more than `most`."""
        return Bounds(min(self.least, most), min(self.most, most), min(self.start, most), self.batch)


_AUTO = Bounds(1, MOST, START)


class Window:
    """The executor's window of rows, which follows how many calls the providers take together."""

    def __init__(self, resize: Callable[[int], None], bounds: Bounds = _AUTO) -> None:
        self._resize = resize
        self._bounds = bounds
        self._limits: dict[object, int] = {}

    @property
    def calls(self) -> int:
        """Calls that the providers take together, as far as they have said."""
        return sum(self._limits.values()) or self._bounds.start

    def of(self, who: object) -> Callable[[int], None]:
        """Takes one provider's limit on calls in flight, whenever it changes."""

        def changed(limit: int) -> None:
            self._limits[who] = limit
            self._resize(self._bounds.rows_for(self.calls))

        return changed


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


def bounds_of(job: Job) -> Bounds:
    """What -j says: auto, N or MIN-MAX. Raises UsageError for anything else."""
    text, batch = job.run.concurrency, _batch_size(job)
    if text == "auto":
        if model_name(job) == EXTRACTIVE:
            return Bounds(_EMBEDDED_CALLS, _EMBEDDED_CALLS, _EMBEDDED_CALLS)
        return replace(_AUTO, batch=batch)
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most <= MOST_CALLS:
        raise UsageError(f"-j cannot be {text!r}", hint="auto, a number of calls in flight, or a range like 4-200")
    return Bounds(least, most, least, batch)


def _batch_size(job: Job) -> int:
    """Rows in one request. Raises UsageError for what no provider takes."""
    if job.task != EMBED:
        return 1
    if not 1 <= job.run.batch_size <= MOST_INPUTS:
        raise UsageError(f"--batch-size cannot be {job.run.batch_size}", hint=f"a number from 1 to {MOST_INPUTS}")
    return job.run.batch_size


def batching_of(job: Job, wait: Wait, window: Window) -> Batching | None:
    """What gathers the rows of an embedding job into requests; None where each row makes its own."""
    if job.task != EMBED:
        return None
    run = job.run
    # A request that is larger than the limit a minute would never be let out.
    tokens = min(float(run.batch_tokens), run.tpm or math.inf)
    limits = BatchLimits(_batch_size(job), tokens, run.max_batch_delay)
    return Batching(limits, weigh=_weight, wait=wait, slots=lambda: window.calls)


def rows_in_a_call(job: Job, row_tokens: float) -> float:
    """How many rows of so many tokens share a request, when there are enough of them."""
    if job.task != EMBED:
        return 1.0
    return max(1.0, min(float(_batch_size(job)), job.run.batch_tokens / max(1.0, row_tokens)))


def _weight(request: Request) -> float:
    return sum(map(tokens_of, request.messages))


def pieces_of(job: Job) -> Pieces | None:
    """How documents are cut, None where they are taken whole. Raises UsageError."""
    if job.task != EMBED:
        return None
    tokens, overlap = job.input.chunk_tokens, job.input.chunk_overlap
    if tokens < 1:
        raise UsageError(f"--chunk-tokens cannot be {tokens}", hint="1 or more")
    if 2 * overlap > tokens:
        raise UsageError(f"--chunk-overlap {overlap} is more than half of --chunk-tokens {tokens}", hint="give less")
    return Pieces(tokens, overlap)


def model_name(job: Job) -> str | None:
    """The model that the job names; `summarize` has one by default."""
    return job.model.model or (EXTRACTIVE if job.task == SUMMARIZE else None)


def wire_models(job: Job, env: Mapping[str, str], row_model: str | None, told: Told = None) -> tuple[Served, ...]:
    """The job's model and its fallbacks; none for a chain that brings its own. `row_model` is what the rows name themselves."""
    name = model_name(job)
    if job.chain.chain is not None:
        return ()
    if name is None and row_model is not None:
        name = f"openai:{row_model}"
    if name is None:
        known = "text-embedding-3-small" if job.task == EMBED else "gpt-5-mini"
        raise UsageError("which model?", hint=f"name it with -m, as in -m openai:{known}, or set LCBATCH_MODEL")
    if job.task == EMBED and job.model.fallback:  # no command has it, but Python does
        raise UsageError("vectors of two models lie in different spaces", hint="leave out fallback")
    load = load_embedder if job.task == EMBED else load_model
    models = load_models(replace(job.model, model=name), env=env, connections=bounds_of(job).most, told=told, load=load)
    for served in models:
        _check_bounded(job, served)
    return models


def unused_of(job: Job) -> str | None:
    """What to say of options that decide nothing in this job.

    Where the job's chain is the user's, the model that answers, and the address that a key is sent to, are the ones in its code.
    """
    if job.chain.chain is not None:
        models = {spec.name for spec in fields(job.model)} - {"price", "timeout"}
        given = [*_given(job.chain, {"prompt", "system"}), *_given(job.model, models)]
        why = f"not used, as --chain asks models of its own: {', '.join(given)} (--chain-arg gives it what it takes)"
        return why if given else None
    given = [*_given(job.chain, {"chain_arg"}), *_given(job.input, {"key"})]
    if given:
        return f"not used without --chain: {', '.join(given)}"
    given = [*_given(job.chain, {"parse_retries"}), *_given(job.model, {"schema_method"})]
    return f"not used without --schema: {', '.join(given)}" if given and job.chain.schema is None else None


def _given(group: ChainOptions | InputOptions | ModelOptions, names: Set[str]) -> list[str]:
    """Which of these options differ from their defaults, as they are written."""
    return [
        f"--{spec.name.replace('_', '-')}"
        for spec in fields(group)
        if spec.name in names and getattr(group, spec.name) != spec.default
    ]


def _check_bounded(job: Job, served: Served) -> None:
    """Raise UsageError for a cap that could not be kept: unknown is never taken for zero."""
    if job.run.max_cost is None and job.run.max_total_tokens is None:
        return
    if served.model.max_output_tokens is None and not served.model.local:
        raise UsageError(
            f"a cap needs to know how long an answer of {served.label} can get", hint="give --max-output-tokens N"
        )
    name = served.label.partition(":")[2]
    if job.run.max_cost is not None and served.model.price(name, Usage(1, 1)) is None:
        raise UsageError(
            f"--max-cost: no price is known for {served.label}",
            hint="give --price in=..,out=.. in US dollars for a million tokens",
        )


class Over(Protocol):
    """Puts a chain over a call stack; `layouts` remember how documents were cut, where there is a store."""

    def __call__(self, call: Call, layouts: Layouts | None = None) -> Chain: ...


def prepare_chain(job: Job, models: Sequence[Served]) -> Over:
    """Find out now all that can be wrong with the chain; what comes back puts it over a call stack, and cannot fail.

    Raises ConfigError, UsageError, InputMissing.
    """
    if job.chain.chain is not None:
        if job.chain.schema is not None:
            raise UsageError(
                "--schema is for lcbatch's own chains, and --chain brings its own",
                hint="let the chain itself ask for structured output",
            )
        own = load_custom(job.chain, job.input.key)
        return lambda call, layouts=None: own  # noqa: ARG005 - it calls its models itself
    model = models[0].model
    templates = load_templates(job.chain)
    if model.takes_document_alone and templates.schema is not None:
        raise UsageError(f"{model.label} knows no --schema", hint="name a model that writes with -m")
    if job.task == SUMMARIZE:
        return _summarizing(job, models, templates)
    return lambda call, layouts=None: load_chain(  # noqa: ARG005 - one call a row: nothing is cut
        job.task,
        job.chain,
        templates,
        call,
        model_identity=model.identity,
        document_alone=model.takes_document_alone,
        row_models=job.model.model is None,
    )


def rehearsed(over: Over) -> Over:
    """The same chain for answers that are made up: it asks once, and does not ask for a better one."""

    def chain_over(call: Call, layouts: Layouts | None = None) -> Chain:
        chain = over(call, layouts)
        return chain.rehearsed() if isinstance(chain, StructuredChain) else chain

    return chain_over


def _summarizing(job: Job, models: Sequence[Served], templates: Templates) -> Over:
    model, options = models[0].model, job.chain
    if model.takes_document_alone and templates.any_own:
        raise UsageError(
            f"{model.label} reads no prompt", hint="name a model that does with -m; --words and --focus work with both"
        )
    if model.takes_document_alone and options.strategy == MAP_REDUCE:
        raise UsageError(f"{model.label} takes documents whole, however long", hint="leave out --strategy")
    tokens = options.context_tokens
    if tokens is None:  # the smallest: what does not fit a fallback would fail there
        prompted = [served.model for served in models if not served.model.takes_document_alone]
        tokens = min(
            (one.max_input_tokens or DEFAULT_CONTEXT_TOKENS for one in prompted), default=DEFAULT_CONTEXT_TOKENS
        )
    context = Context(tokens, job.model.max_output_tokens)
    reading = Reading(
        strategy=options.strategy,
        alone=model.takes_document_alone,
        context=context,
        given_context_tokens=options.context_tokens,
    )
    made = summarizing(options, templates, _nobody, reading, model.identity)
    return lambda call, layouts=None: replace(made, call=call, reading=replace(reading, layouts=layouts))


async def _nobody(request: Request) -> Reply:  # noqa: ARG001 - ports.Call
    raise AssertionError("a chain that is only looked at calls nobody")


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
        ask, listen = overheard(answering(governed.ask))
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
    async with tracing.traced(clock, lambda text: emit(Notice(text))) as sent:
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
    return stored(replies)(call if around.batching is None else around.batching.over(call))


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
