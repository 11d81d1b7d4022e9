"""The gate of one provider: a single queue in front of one or several endpoints.

Calls wait here, first come, first served, until an endpoint takes one: it has a free slot, its limits a minute allow it, it is
not paused by a throttle and not taken to be down. Of several that would, the least loaded does. A call that met an endpoint in
an outage goes back to the front of the queue and uses up no attempt; while it lasts that endpoint gets one probe at a time.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from lcbatch import jsontext
from lcbatch.calls.breaker import Asked, BreakerPolicy
from lcbatch.calls.concurrency import ConcurrencyPolicy, PausePolicy
from lcbatch.calls.keeping import keeping
from lcbatch.calls.rate import RateLimits
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Gate, LimitChanged, Notice
from lcbatch.ports import Call, Clock, Emit, Wait
from lcbatch.records import Reply, Request, current_row

ENDPOINTS_OWN = frozenset({Kind.AUTH, Kind.QUOTA, Kind.NOT_FOUND})
"""What an endpoint is left out for: it would say the same to every call. Others may well take the key, or know the model."""

_MILDEST_FIRST = (Gate.PROVIDER, Gate.CONCURRENCY, Gate.RPM, Gate.TPM, Gate.PAUSE)


class ProviderDown(CallFailed):
    """Nobody answers, and it makes no sense to go on trying."""

    final = True


@dataclass(slots=True)
class Endpoint:
    """One address: the policies that say when it takes a call, and the call (budget · direct) itself.

    After a failure of the kinds `leaves_out` it is asked no more. Where it is the only one, every call that has not gone out yet
    fails with the same verdict.
    """

    call: Call
    concurrency: ConcurrencyPolicy
    breaker: BreakerPolicy
    limits: RateLimits
    label: str = ""
    pause: PausePolicy = field(default_factory=PausePolicy)
    in_flight: int = 0
    probing: bool = False
    leaves_out: frozenset[Kind] = ENDPOINTS_OWN
    left_out: Failure | None = None

    @property
    def closed(self) -> Failure | None:
        """Why it takes no calls any more, None while it may."""
        return self.left_out or self.breaker.gave_up

    @property
    def load(self) -> float:
        """Share of its limit that is in use."""
        return self.in_flight / self.concurrency.limit

    @property
    def is_down(self) -> bool:
        """Whether it takes no calls but probes."""
        return self.closed is not None or self.breaker.open_since_s is not None

    def opens_in(self, now_s: float) -> tuple[float, Gate]:
        """(seconds until it takes a call, what for): 0 takes one now, infinity says that something has to end first."""
        if self.closed is not None:
            return math.inf, Gate.OUTAGE
        if self.pause.until_s > now_s:
            return self.pause.until_s - now_s, Gate.PAUSE
        full = self.in_flight >= self.concurrency.limit
        if self.breaker.open_since_s is not None:
            wait_s = max(0.0, self.breaker.next_probe_s - now_s)
            return (math.inf if self.probing or full else wait_s), Gate.OUTAGE
        wait_s, gate = self.limits.opens_in(now_s)
        if wait_s > 0.0:
            return wait_s, gate
        return (math.inf if full else 0.0), (Gate.CONCURRENCY if self.concurrency.binds else Gate.PROVIDER)


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place at an endpoint, with so many tokens reserved; `probe`: given in an outage, to see whether that is over."""

    endpoint: Endpoint
    probe: bool
    tokens: float


class Provider:
    """A Call over endpoints that serve the same model.

    At most `most` calls are in flight over all of them. `resize` is told how many may be, whenever that changes. With
    `hands_on` a call does not wait for the end of an outage but fails at once (there is a fallback to take it); probes go out
    as ever. A call that is cancelled while it waits gives its place up, one that is cancelled inside frees its slot. The slot of
    an answered call is free once the answer is committed: a killed process has lost no more than it had slots.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        most: int,
        clock: Clock,
        emit: Emit,
        resize: Callable[[int], None],
        wait: Wait,
        hands_on: bool = False,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._most = most
        self._clock = clock
        self._emit = emit
        self._resize = resize
        self._wait = wait
        self._hands_on = hands_on
        self._queue: deque[tuple[Request, asyncio.Future[_Slot]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight = 0
        self._said: set[str] = set()

    async def __call__(self, request: Request) -> Reply:
        self._refuse_too_large(request)
        first = False
        while True:
            slot = await self._enter(request, first=first)
            endpoint, sent_s = slot.endpoint, self._clock()
            reply: Reply | None = None
            try:
                reply = await endpoint.call(request)
            except CallFailed as error:
                if not self._failed(endpoint, error.failure, request, sent_s):
                    raise
                first = True
            else:
                self._answered(endpoint)
                return reply
            finally:
                endpoint.limits.settle(request, reply, slot.tokens)
                kept = keeping.get(None)
                if reply is None or kept is None:
                    self._leave(slot)
                else:
                    kept.hold(partial(self._leave, slot))

    @property
    def limit(self) -> int:
        """How many calls may be in flight now."""
        return min(self._most, sum(one.concurrency.limit for one in self.endpoints if one.closed is None) or 1)

    async def _enter(self, request: Request, *, first: bool) -> _Slot:
        """Wait for an endpoint that takes a call, and take a place at it."""
        self._refuse_when_down()
        if not self._queue and (endpoint := self._choose(self._clock())) is not None:
            return self._taken(endpoint, request)
        turn: asyncio.Future[_Slot] = asyncio.get_running_loop().create_future()
        (self._queue.appendleft if first else self._queue.append)((request, turn))
        self._admit()
        try:
            await self._wait(turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                slot = turn.result()
                slot.endpoint.limits.settle(request, None, slot.tokens)
                self._leave(slot)
            raise
        return turn.result()

    def _refuse_too_large(self, request: Request) -> None:
        """Raise for a request that is beyond every endpoint's limit: no waiting would help."""
        verdicts = [one.limits.too_large(request) for one in self.endpoints]
        if verdicts[0] is not None and all(verdicts):
            raise CallFailed(verdicts[0], attempts=0)

    def _refuse_when_down(self) -> None:
        """Raise when no endpoint will ever answer, or when none does now and somebody else can take the call."""
        failure = next((one.closed for one in reversed(self.endpoints) if one.closed is not None), None)
        if failure is not None and all(one.closed is not None for one in self.endpoints):
            raise ProviderDown(failure)
        if self._hands_on and self._choose(self._clock()) is None and all(one.is_down for one in self.endpoints):
            last = next((one.breaker.last for one in self.endpoints if one.breaker.last is not None), failure)
            assert last is not None
            raise ProviderDown(last)

    def _taken(self, endpoint: Endpoint, request: Request) -> _Slot:
        endpoint.in_flight += 1
        self._in_flight += 1
        tokens = endpoint.limits.reserve(request, self._clock())
        slot = _Slot(endpoint, probe=endpoint.breaker.open_since_s is not None, tokens=tokens)
        endpoint.probing = endpoint.probing or slot.probe
        return slot

    def _leave(self, slot: _Slot) -> None:
        slot.endpoint.in_flight -= 1
        if slot.probe:
            slot.endpoint.probing = False
        self._in_flight -= 1
        self._admit()

    def _choose(self, now_s: float) -> Endpoint | None:
        """The least loaded of the endpoints that take a call now."""
        if self._in_flight >= self._most:
            return None
        able = [one for one in self.endpoints if one.opens_in(now_s)[0] <= 0.0]
        return min(able, key=lambda one: one.load, default=None)

    def _admit(self) -> None:
        """Let in whoever may go now. Where all places are taken the next call that leaves looks again, and tells of an outage."""
        while self._queue and self._in_flight < self._most:
            now_s = self._clock()
            endpoint = self._choose(now_s)
            if endpoint is None:
                self._give_up_waiting()
                self._look_again(now_s)
                return
            request, turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(self._taken(endpoint, request))

    def _give_up_waiting(self) -> None:
        """Tell all that wait when nobody will take them."""
        try:
            self._refuse_when_down()
        except ProviderDown as error:
            while self._queue:
                _, turn = self._queue.popleft()
                if not turn.done():
                    turn.set_exception(ProviderDown(error.failure))

    def _look_again(self, now_s: float) -> None:
        """Come back when the next endpoint opens by itself: at the end of a pause, or for a probe.

        `now_s` is when none was found open: read anew, the clock could say that one has opened since, and nobody would come.
        """
        wait_s = min((one.opens_in(now_s)[0] for one in self.endpoints), default=math.inf)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and 0.0 < wait_s < math.inf:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._admit)

    def held_up_by(self) -> Gate | None:
        """What the first in the queue waits for: the mildest of what keeps the endpoints."""
        if all(turn.done() for _, turn in self._queue):
            return None
        now_s = self._clock()
        if self._in_flight >= self._most:
            return Gate.CONCURRENCY
        gates = {one.opens_in(now_s)[1] for one in self.endpoints}
        return next((gate for gate in _MILDEST_FIRST if gate in gates), Gate.OUTAGE)

    def _answered(self, endpoint: Endpoint) -> None:
        now_s = self._clock()
        endpoint.pause.answered()
        self._changed(endpoint, endpoint.concurrency.answered(endpoint.in_flight, now_s))
        self._up(endpoint, now_s)

    def _up(self, endpoint: Endpoint, now_s: float) -> None:
        """It said something, were it a refusal: it is there."""
        if endpoint.breaker.answered(now_s):
            self._emit(Notice(f"{self._name(endpoint)} answers again"))
            self._admit()

    def _failed(self, endpoint: Endpoint, failure: Failure, request: Request, sent_s: float) -> bool:
        """Take note of a failure; whether the call is to wait for another turn instead of failing."""
        now_s = self._clock()
        self._slow_down(endpoint, failure, sent_s, now_s)
        if failure.kind in endpoint.leaves_out and not failure.budget:
            endpoint.left_out = endpoint.left_out or failure
            self._say_left_out(endpoint, failure)
            return len(self.endpoints) > 1
        if failure.kind is Kind.LOCAL and endpoint.in_flight > 1:
            return True  # the limit is below what is in flight now: its turn comes when one of the others has ended
        if not endpoint.breaker.counts(failure):
            if failure.status is not None:
                self._up(endpoint, now_s)
            return False
        if failure.kind is Kind.BAD_BODY:
            endpoint.breaker.bad_body(failure, _asked(request), now_s)
        elif endpoint.breaker.faulted(failure, now_s):
            rest = "its calls go elsewhere" if self._others(endpoint) or self._hands_on else "rows wait"
            self._emit(Notice(f"{self._name(endpoint)} is down ({failure.message}); {rest}, one probe at a time"))
        if endpoint.breaker.gave_up is not None:
            self._say_left_out(endpoint, endpoint.breaker.gave_up)
            return True
        return endpoint.is_down and failure.kind is not Kind.BAD_BODY

    def _slow_down(self, endpoint: Endpoint, failure: Failure, sent_s: float, now_s: float) -> None:
        if failure.kind is Kind.THROTTLE:
            endpoint.pause.throttled(failure.retry_after_s, sent_s=sent_s, now_s=now_s)
            reason = endpoint.concurrency.throttled(now_s, for_s=endpoint.pause.until_s - now_s)
            self._changed(endpoint, reason)
        elif failure.kind is Kind.LOCAL:
            self._changed(endpoint, endpoint.concurrency.ran_out(endpoint.in_flight))
        elif failure.kind in {Kind.SERVER, Kind.TIMEOUT, Kind.CONNECTION}:
            endpoint.concurrency.faulted(now_s)

    def _say_left_out(self, endpoint: Endpoint, failure: Failure) -> None:
        if self._others(endpoint) and endpoint.label not in self._said:
            self._said.add(endpoint.label)
            self._emit(Notice(f"{endpoint.label} is left out: {failure.kind}: {failure.message}"))

    def _others(self, endpoint: Endpoint) -> bool:
        return any(one is not endpoint and not one.is_down for one in self.endpoints)

    def _changed(self, endpoint: Endpoint, reason: str | None) -> None:
        if reason is not None:
            if len(self.endpoints) > 1:
                reason = f"{endpoint.label}: {reason}"
            self._emit(LimitChanged(self._clock(), self.limit, reason))
            self._resize(self.limit)
            self._admit()

    def _name(self, endpoint: Endpoint) -> str:
        return endpoint.label if len(self.endpoints) > 1 else "the provider"


def _asked(request: Request) -> Asked:
    """Whose request this is; of several rows' it is its own."""
    said = jsontext.digest_of([request.messages])
    scope = current_row.get(None)
    return Asked(scope.row.key if scope is not None else said, said)
