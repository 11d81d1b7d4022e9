"""Job -> work: the one file that knows the order of the layers, and hands models and prices to who needs them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from lcbatch.calls.breaker import Breaker, BreakerPolicy, breaker
from lcbatch.calls.concurrency import MOST, START, ConcurrencyPolicy, Slots, concurrency
from lcbatch.calls.direct import Ask, Price, direct, invoking
from lcbatch.calls.failures import failure_of, is_providers
from lcbatch.calls.rate import RateLimits, rate
from lcbatch.calls.retry import RetryPolicy, retry
from lcbatch.calls.stored import stored
from lcbatch.chains import load_chain, load_templates
from lcbatch.chains.custom import load_custom
from lcbatch.errors import CallFailed, Failure, Kind, UsageError
from lcbatch.job import EXTRACTIVE, SUMMARIZE, Job
from lcbatch.models import LoadedModel, load_model
from lcbatch.models.prices import price_of
from lcbatch.models.providers import is_loopback
from lcbatch.models.quiet import QuietClients
from lcbatch.ports import Call, Chain, Clock, DocumentReader, Emit, Replies, Sleep, Wait, Work
from lcbatch.records import Account, Done, Failed, Outcome, Row, RowScope, current_row

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_EMBEDDED_CALLS = 4
"""The embedded model works on this machine's cores: more calls in flight only take memory."""

_ROWS_PER_CALL = 2
"""Rows in flight for each call: while one row's call is out, the next one's document is read."""

_FIRST_ROWS = 16
"""Rows in flight at the start, also where no call ever says that more would do: a user's own chain without a model."""

_MOST_CALLS = 100_000
"""Beyond it no machine has ports."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What -j says: calls in flight between `least` and `most`, beginning with `start`; the first window of rows."""

    least: int
    most: int
    start: int

    @property
    def rows(self) -> int:
        """Rows in flight at the start."""
        return self.start if self.least == self.most else _FIRST_ROWS


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the wiring takes from outside: time, the environment, whom to tell, how to widen the window of rows, how to wait.

    `hopeful` says that the provider has answered in an earlier run.
    """

    env: Mapping[str, str]
    clock: Clock
    emit: Emit
    resize: Callable[[int], None]
    wait: Wait
    sleep: Sleep
    hopeful: bool = False


def bounds_of(job: Job) -> Bounds:
    """What -j says: auto, N or MIN-MAX. Raises UsageError for anything else."""
    text = job.run.concurrency
    if text == "auto":
        if model_name(job) == EXTRACTIVE:
            return Bounds(_EMBEDDED_CALLS, _EMBEDDED_CALLS, _EMBEDDED_CALLS)
        return Bounds(1, MOST, START)
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most <= _MOST_CALLS:
        raise UsageError(f"-j cannot be {text!r}", hint="auto, a number of calls in flight, or a range like 4-200")
    return Bounds(least, most, least)


def model_name(job: Job) -> str | None:
    """The model that the job names; `summarize` has one by default."""
    return job.model.model or (EXTRACTIVE if job.task == SUMMARIZE else None)


def wire_model(job: Job, around: Surroundings, row_model: str | None) -> LoadedModel | None:
    """The job's model; None for a chain that brings its own. `row_model` is what the input's rows name themselves."""
    name = model_name(job)
    if name is None and job.chain.chain is not None:
        return None
    if name is None and row_model is not None:
        name = f"openai:{row_model}"
    if name is None:
        raise UsageError("which model?", hint="name it with -m, as in -m openai:gpt-5-mini, or set LCBATCH_MODEL")
    return load_model(replace(job.model, model=name), env=around.env, connections=bounds_of(job).most)


Connect: TypeAlias = Callable[[Replies, Surroundings], Chain]


def prepare_chain(job: Job, model: LoadedModel | None) -> Connect:
    """Find out now all that can be wrong with the chain; what comes back connects it to a store, and cannot fail.

    Raises ConfigError, UsageError, InputMissing.
    """
    if job.chain.chain is not None:
        own = load_custom(job.chain, job.input.key)
        return lambda _replies, _around: own
    assert model is not None
    templates = load_templates(job.chain)
    if job.task == SUMMARIZE and model.takes_document_alone and (templates.prompt or templates.system):
        raise UsageError(
            f"{model.label} reads no prompt", hint="name a model that does with -m; --words and --focus work with both"
        )
    served = _Served(invoking(model.chat), model.label, model.price, model.listen)
    return lambda replies, around: load_chain(
        job.task,
        job.chain,
        templates,
        _stack(job, served, replies, around),
        model_identity=model.identity,
        document_alone=model.takes_document_alone,
        row_models=job.model.model is None,
    )


@asynccontextmanager
async def govern(job: Job, replies: Replies, around: Surroundings) -> AsyncIterator[None]:
    """While inside, every chat model in a user's own chain goes through a stack of its own; built-in chains call theirs."""
    if job.chain.chain is None:
        yield
        return
    from lcbatch.calls import governed  # noqa: PLC0415 - imports LangChain, which only a user's own chain needs here

    clients = QuietClients(bounds_of(job).most)

    def stack_of(chat: BaseChatModel) -> Call:
        clients.quiet(chat)
        label = governed.label_of(chat)
        url = getattr(chat, "openai_api_base", None) or getattr(chat, "base_url", None)
        price = price_of(label.partition(":")[0], local=isinstance(url, str) and is_loopback(url))
        return _stack(job, _Served(governed.ask, label, price), replies, around)

    try:
        with governed.governed(stack_of):
            yield
    finally:
        await clients.aclose()


@dataclass(frozen=True, slots=True)
class _Served:
    """What a stack needs of the model at its bottom."""

    ask: Ask
    label: str
    price: Price
    listen: Callable[[Callable[[Mapping[str, str]], None]], None] | None = None


def _stack(job: Job, model: _Served, replies: Replies, around: Surroundings) -> Call:
    """stored · retry · concurrency · breaker · rate · direct, read from the outside in.

    The breaker stands inside concurrency, so that a call which waited for its slot does not go out into an outage.
    """
    policy = RetryPolicy(max_wait_s=job.run.max_wait, uniform=random.uniform)
    again = retry(policy, clock=around.clock, sleep=around.sleep, emit=around.emit)
    attempt = direct(
        model.ask,
        label=model.label,
        timeout_s=job.model.timeout,
        price=model.price,
        clock=around.clock,
        emit=around.emit,
    )
    bounds = bounds_of(job)
    slots = Slots(
        ConcurrencyPolicy(least=bounds.least, most=bounds.most, limit=bounds.start),
        clock=around.clock,
        emit=around.emit,
        resize=lambda calls: around.resize(max(_FIRST_ROWS, _ROWS_PER_CALL * calls)),
        wait=around.wait,
    )
    limits = RateLimits(rpm=job.run.rpm, tpm=job.run.tpm)
    if model.listen is not None:
        model.listen(lambda headers: limits.heard(headers, around.clock(), time.time()))
    paced = rate(limits, clock=around.clock, sleep=around.sleep)
    outages = BreakerPolicy(hopeful=around.hopeful, outage_timeout_s=job.run.outage_timeout)
    gate = Breaker(outages, clock=around.clock, emit=around.emit, wait=around.wait)
    held = concurrency(slots, around.clock)
    return stored(replies)(again(held(breaker(gate, outages)(paced(attempt)))))


def make_work(chain: Chain, read: DocumentReader, clock: Clock) -> Work:
    """What the executor does with one row: read its document, run the chain, and make an outcome of whatever happens."""

    async def work(row: Row) -> Outcome:
        scope = RowScope(row, clock())
        current_row.set(scope)
        if row.failure is not None:
            return Failed(row, row.failure)
        try:
            fields = row.fields if row.document is None else {**row.fields, "text": await _text(row, read)}
            output = await chain(fields)
        except CallFailed as error:
            return Failed(row, error.failure, _account(scope, clock, failed_attempts=error.attempts))
        except Exception as error:  # noqa: BLE001 - a chain's own exception, whatever it is, is this row's failure
            return Failed(row, _chain_failure(error), _account(scope, clock))
        return _done(row, output, scope, clock)

    return work


async def _text(row: Row, read: DocumentReader) -> str:
    assert row.document is not None
    return str(row.fields["text"]) if row.document.path == "-" else await read(row.document)


def _done(row: Row, output: object, scope: RowScope, clock: Clock) -> Done:
    """An output that is the last reply's own text points to it, so that it is stored once."""
    own = scope.last_reply is not None and scope.account.calls == 1 and scope.last_reply[1] == output
    key = scope.last_reply[0] if own and scope.last_reply is not None else None
    return Done(row, output, _account(scope, clock), key)


def _account(scope: RowScope, clock: Clock, *, failed_attempts: int = 0) -> Account:
    account = scope.account
    return replace(account, latency_s=clock() - scope.started_s, attempts=account.attempts + failed_attempts)


def _chain_failure(error: Exception) -> Failure:
    """A provider's error keeps its own kind; anything else is the chain's."""
    if is_providers(error):
        return failure_of(error)
    return Failure(Kind.CHAIN, f"{type(error).__name__}: {error}"[:2000])
