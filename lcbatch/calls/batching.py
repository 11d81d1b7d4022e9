"""Many rows in one request: calls wait for each other until a batch is full, and each gets its own share of the reply.

What stands below sees a batch as one call: retries, limits and the budget count requests, as the provider does. What stands
above sees a reply a row: each is stored as the row's own before anybody is told, so that a crash repays what was on the wire.

A batch goes out when it is full, when its first call has waited for `delay_s`, or when no more rows will come; one that is not
full waits on while it would only stand in line behind others. One that the provider refuses for what is in it is split until the
bad row stands alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace

from lcbatch.calls.keeping import Keeping, keeping
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.ports import Call, Wait
from lcbatch.records import Json, Reply, Request, RowScope, Usage, current_row

SPLIT_FOR = frozenset({Kind.INVALID_REQUEST, Kind.CONTEXT_LENGTH, Kind.CONTENT_FILTER})
"""Kinds of failure that one row can bring upon a whole batch. Others are the provider's, and have been retried below."""

REPLIES = "vectors"
"""The part of a batched reply's message that holds one text for each message of its request, in their order."""

_LAST_S = 0.02
"""Once the last row is out, calls that still come come at once: so long nobody more is taken to mean that nobody will."""

_NAMED = re.compile(r"input\[(\d+)\]")
"""How OpenAI names the input that it refuses: "Invalid 'input[3]': maximum context length is 8192 tokens"."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most calls and (estimated) tokens in one request, and the longest time that a call waits for others."""

    calls: int
    tokens: float
    delay_s: float


@dataclass(slots=True, eq=False)
class _Member:
    """A call in a batch. `sent` is set when the batch goes out, until then the call costs nothing to give up."""

    request: Request
    scope: RowScope | None
    kept: Keeping | None
    tokens: float
    sent: asyncio.Future[None]
    reply: asyncio.Future[Reply]


@dataclass(slots=True, eq=False)
class _Batch:
    """Calls that go out together. Owned by its members: the last to leave sees its task to the end."""

    call: Call
    members: dict[_Member, None] = field(default_factory=dict)
    tokens: float = 0.0
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Batching:
    """Gathers calls into batches. One for a run; use it from one event loop.

    `weigh` gives a request's tokens; `wait` is how calls wait while their batch is not out; `slots` says how many batches can be
    on the wire now. A call that is cancelled leaves its batch; one whose batch is cut off on the way to the provider is
    cancelled like any other call that only waits.
    """

    def __init__(
        self, limits: BatchLimits, *, weigh: Callable[[Request], float], wait: Wait, slots: Callable[[], int]
    ) -> None:
        self._limits = limits
        self._weigh = weigh
        self._wait = wait
        self._slots = slots
        self._out = 0
        self._forming: _Batch | None = None
        self._ended = False
        # A batch is no row's: what its requests wait for must not be charged to whichever row filled it.
        self._context = copy_context()

    def over(self, inner: Call) -> Call:
        """ports.Layer. `inner` gets requests of many messages, and says in REPLIES what each of them gets."""

        async def call(request: Request) -> Reply:
            batch, member = self._join(inner, request)
            try:
                await self._wait(member.sent)
                return await member.reply
            finally:
                await self._left(batch, member)

        return call

    def no_more(self) -> None:
        """The last row is out: what is gathered waits for nobody else."""
        self._ended = True
        if self._forming is not None:
            self._set_timer(self._forming, min(_LAST_S, self._limits.delay_s))

    def _join(self, inner: Call, request: Request) -> tuple[_Batch, _Member]:
        loop = asyncio.get_running_loop()
        tokens = self._weigh(request)
        if self._forming is not None and not self._takes(self._forming, request, tokens):
            self._send(self._forming)
        if self._forming is None:
            self._forming = _Batch(inner)
            self._set_timer(self._forming, self._limits.delay_s)
        batch = self._forming
        scope, kept = current_row.get(None), keeping.get(None)
        member = _Member(request, scope, kept, tokens, loop.create_future(), loop.create_future())
        batch.members[member] = None
        batch.tokens += tokens
        if len(batch.members) >= self._limits.calls or batch.tokens >= self._limits.tokens:
            self._send(batch)
        elif self._ended:
            self._set_timer(batch, min(_LAST_S, self._limits.delay_s))
        return batch, member

    def _takes(self, batch: _Batch, request: Request, tokens: float) -> bool:
        first = next(iter(batch.members)).request
        return batch.tokens + tokens <= self._limits.tokens and first.params == request.params

    def _set_timer(self, batch: _Batch, delay_s: float) -> None:
        if batch.timer is not None:
            batch.timer.cancel()
        batch.timer = asyncio.get_running_loop().call_later(delay_s, self._due, batch)

    def _due(self, batch: _Batch) -> None:
        """It has waited for long enough, unless there is no room for it: then those that come until there is can go with it."""
        batch.timer = None
        if self._out < self._slots():
            self._send(batch)

    def _returned(self, _: asyncio.Task[None]) -> None:
        """There is room for one more batch. The rows that its answers make room for come first."""
        self._out -= 1
        batch = self._forming
        if batch is not None and batch.timer is None:
            self._set_timer(batch, min(_LAST_S, self._limits.delay_s) if self._ended else self._limits.delay_s)

    def _send(self, batch: _Batch) -> None:
        if self._forming is batch:
            self._forming = None
        if batch.timer is not None:
            batch.timer.cancel()
        for member in batch.members:
            if not member.sent.done():
                member.sent.set_result(None)
        # After the members: one that was cancelled in this very moment leaves before the request is made.
        batch.task = asyncio.create_task(_run(batch), context=self._context.copy())
        batch.task.add_done_callback(self._returned)
        self._out += 1

    async def _left(self, batch: _Batch, member: _Member) -> None:
        """A call is over, however it ended. The last one out ends what nobody waits for any more."""
        batch.members.pop(member, None)
        batch.tokens -= member.tokens
        member.sent.cancel()
        member.reply.cancel()
        if batch.members:
            return
        if self._forming is batch:
            self._forming = None
        if batch.timer is not None:
            batch.timer.cancel()
        if batch.task is not None and not batch.task.done():
            batch.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({batch.task})


async def _run(batch: _Batch) -> None:
    """See the batch to its end. Whatever happens, each member hears of it."""
    members = list(batch.members)
    try:
        await _ask(batch.call, members)
    except asyncio.CancelledError:
        for member in _waiting(members):
            if member.scope is not None:
                member.scope.cut_off = True
            member.reply.cancel()
        raise
    except BaseException as error:  # noqa: BLE001 - it is raised again, by each that waits for it
        for member in _waiting(members):
            member.reply.set_exception(error)


async def _ask(call: Call, members: Sequence[_Member]) -> None:
    """One request for all, or where that is refused for what is in it, one for each part of them."""
    members = _waiting(members)
    if not members:
        return
    together = Keeping()
    keeping.set(together)
    try:
        shares = _shares(await call(_together(members)), members)
    except CallFailed as error:
        together.let_go()
        # A cap has no room for the whole batch: a part of it may still fit, and asking costs nothing.
        if len(members) > 1 and (error.failure.kind in SPLIT_FOR or error.failure.budget):
            for part in _parts(members, error.failure):
                await _ask(call, part)
            return
        for member in _waiting(members):
            member.reply.set_exception(CallFailed(error.failure, error.attempts))
        return
    # All of them before the first is told: what follows for 256 rows takes longer than a kill needs to come.
    for member, share in zip(members, shares, strict=True):
        if member.kept is not None:
            member.kept.keep(share)
    together.over(members[-1].kept)
    for member, share in zip(members, shares, strict=True):
        if not member.reply.done():
            member.reply.set_result(share)


def _waiting(members: Sequence[_Member]) -> list[_Member]:
    return [member for member in members if not member.reply.done()]


def _together(members: Sequence[_Member]) -> Request:
    first = members[0].request
    if len(members) == 1:
        return first
    messages: list[Json] = [message for member in members for message in member.request.messages]
    return Request(messages, first.params, step=first.step)


def _parts(members: Sequence[_Member], failure: Failure) -> list[Sequence[_Member]]:
    """The one that the provider names and all others; where it names none, two halves."""
    named = _NAMED.search(failure.message)
    at = int(named[1]) if named else len(members)
    if at < len(members) and all(len(member.request.messages) == 1 for member in members):
        return [[*members[:at], *members[at + 1 :]], [members[at]]]
    middle = len(members) // 2
    return [members[:middle], members[middle:]]


def _shares(reply: Reply, members: Sequence[_Member]) -> list[Reply]:
    """What each of them gets. Tokens and money are shared by weight, so that they sum up to what the request took."""
    said = reply.message.get(REPLIES)
    if not isinstance(said, list) or len(said) != len(members):
        count = len(said) if isinstance(said, list) else 0
        raise CallFailed(Failure(Kind.BAD_BODY, f"{count} answers for {len(members)} inputs", maybe_paid=True))
    whole = sum(member.tokens for member in members) or 1.0
    shares, before, given = [], 0.0, 0
    for member, text in zip(members, said, strict=True):
        before += member.tokens
        until = round(reply.usage.prompt_tokens * before / whole)
        tokens, given = until - given, until
        cost_usd = None if reply.cost_usd is None else reply.cost_usd * member.tokens / whole
        shares.append(replace(reply, text=text, message={}, usage=Usage(tokens), cost_usd=cost_usd, native=None))
    return shares
