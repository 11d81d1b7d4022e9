"""Random schedules of faults against the whole call stack and the executor, in virtual time.

Whatever the provider does: each row ends once, everything ends, no more calls are in flight than allowed, nothing stays reserved.
`LCBATCH_EXAMPLES=10000 pytest tests/test_schedules.py` tries so many instead of a few.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcbatch.bounds import Window, bounds_of
from lcbatch.calls.budget import Budget, BudgetPolicy, Spend
from lcbatch.calls.provider import Provider
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.execute.deadlines import Deadlines, RowTimeout
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.shutdown import Patience, Shutdown
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.job import Job
from lcbatch.optionvalues import Endpoint
from lcbatch.ports import Call
from lcbatch.records import Answer, Document, Fields, Json, Outcome, Request, Usage
from lcbatch.rules import StopRules
from lcbatch.testing import FakeChain, MemoryReplies, rows_of
from lcbatch.wiring import Ended, Line, Surroundings, call_stack
from lcbatch.work import make_work

_EXAMPLES = int(os.environ.get("LCBATCH_EXAMPLES", "120"))
_HANGS = 1e6

_FAULTS = {
    "ok": None,
    "throttle": Failure(Kind.THROTTLE, "slow", status=429),
    "throttle 5 s": Failure(Kind.THROTTLE, "slow", retry_after_s=5.0, status=429),
    "server": Failure(Kind.SERVER, "500", status=500),
    "connection": Failure(Kind.CONNECTION, "refused"),
    "truncated": Failure(Kind.TRUNCATED, "cut", maybe_paid=True),
    "bad body": Failure(Kind.BAD_BODY, "html", status=200, maybe_paid=True),
    "invalid": Failure(Kind.INVALID_REQUEST, "no", status=400),
    "filtered": Failure(Kind.CONTENT_FILTER, "no", status=400),
    "local": Failure(Kind.LOCAL, "open files"),
    "quota": Failure(Kind.QUOTA, "no money", status=429),
    "auth": Failure(Kind.AUTH, "no", status=401),
    "hang": None,
}

_MOSTLY_WELL = st.sampled_from(sorted({*_FAULTS} - {"quota", "auth", "local"}))
_STEPS = st.lists(
    st.tuples(st.just("ok") | _MOSTLY_WELL | st.sampled_from(sorted(_FAULTS)), st.floats(0.0, 5.0)), max_size=60
)
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "concurrency": st.sampled_from(["auto", "1", "3", "2-9", "50"]),
        "rpm": st.sampled_from([30.0, 600.0]),
        "tpm": st.sampled_from([1000.0, 60000.0]),
        "max_cost": st.floats(0.0, 5.0),
        "max_failures": st.sampled_from(["3", "50%"]),
        "row_timeout": st.sampled_from([3.0, 60.0]),
        "max_wait": st.sampled_from([10.0, 3600.0]),
        "outage_timeout": st.sampled_from([30.0, 3600.0]),
    },
)


@dataclass
class _World:
    """One endpoint that does what the schedule says, call after call, then only what is right."""

    steps: list[tuple[str, float]]
    in_flight: int = 0
    worst_excess: int = 0
    provider: list[Provider] = field(default_factory=list)
    number: int = 0
    answered: int = 0
    noted: tuple[float, int] = (0.0, 0)
    limit_before: int = 0

    def limit(self) -> int:
        """The limit now, or just before now: a call that was let in goes out although the limit falls in that moment."""
        now_s, limit = asyncio.get_running_loop().time(), self.provider[0].endpoints[self.number].concurrency.limit
        if now_s > self.noted[0]:
            self.limit_before = self.noted[1]
            self.noted = now_s, limit
        self.noted = now_s, max(limit, self.noted[1])
        return max(limit, self.limit_before, self.noted[1])

    async def ask(self, request: Request) -> Answer:  # noqa: ARG002 - what is asked does not matter
        self.in_flight += 1
        self.worst_excess = max(self.worst_excess, self.in_flight - self.limit())
        kind, latency_s = self.steps.pop(0) if self.steps else ("ok", 0.5)
        try:
            await asyncio.sleep(_HANGS if kind == "hang" else latency_s)
            failure = _FAULTS[kind]
            if failure is not None:
                raise CallFailed(failure)
        finally:
            self.in_flight -= 1
            self.limit()
        self.answered += 1
        return Answer("x", {}, "", None, Usage(5, 5))


@dataclass
class _Chain(FakeChain):
    """Two calls a row, at once."""

    call: Call | None = None

    async def __call__(self, fields: Fields) -> Json:
        assert self.call is not None
        both = (Request([{"role": "user", "content": f"{fields['text']} {part}"}]) for part in range(2))
        return [reply.text for reply in await asyncio.gather(*map(self.call, both))]


@settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    options=_OPTIONS,
    models=st.lists(st.lists(_STEPS, min_size=1, max_size=3), min_size=1, max_size=2),
    rows=st.integers(0, 40),
    stop_after_s=st.none() | st.floats(0.0, 60.0),
    cuts_off=st.booleans(),
)
def test_whatever_happens_each_row_ends_once_and_nothing_leaks(
    options: Mapping[str, Any],
    models: list[list[list[tuple[str, float]]]],
    rows: int,
    stop_after_s: float | None,
    cuts_off: bool,  # noqa: FBT001 - drawn
) -> None:
    job = Job.of(model="a:b", timeout=20.0, **options)
    trial = _Trial(job, models, rows)
    run_virtual(trial.run(stop_after_s, cuts_off=cuts_off))

    ordinals = [outcome.row.ordinal for outcome in trial.outcomes]
    assert len(ordinals) == len(set(ordinals))
    if trial.shutdown is not None and trial.shutdown.reason is None and stop_after_s is None:
        assert sorted(ordinals) == list(range(rows))
    if not cuts_off or stop_after_s is None:
        assert len(trial.replies.kept) == sum(world.answered for world in trial.worlds), "a paid answer was lost"
    for world in trial.worlds:
        assert world.in_flight == 0
        if job.run.max_cost is None:  # near a cap, calls that were let in wait for the purse while the limit may fall
            assert world.worst_excess <= 0
        assert all(endpoint.in_flight == 0 and not endpoint.probing for endpoint in world.provider[0].endpoints)
    assert trial.around is not None
    assert trial.around.waiting.binding() is None
    if trial.around.purse is not None:
        assert trial.around.purse.policy.reserved == Spend()
        assert trial.around.purse.policy.calls == 0
        assert trial.around.purse.policy.spent.usd <= (job.run.max_cost or 0.0) + 1e-9
    for limits in trial.around.limits.values():
        assert limits.tokens.holds_back(trial.ended_s + 3600.0) == 0.0


class _Trial:
    def __init__(self, job: Job, models: list[list[list[tuple[str, float]]]], rows: int) -> None:
        self.job = job
        self.rows = rows
        self.models = models
        self.worlds: list[_World] = []
        self.outcomes: list[Outcome] = []
        self.replies = MemoryReplies()
        self.shutdown: Shutdown | None = None
        self.around: Surroundings | None = None
        self.ended_s = 0.0

    async def run(self, stop_after_s: float | None, *, cuts_off: bool) -> None:
        loop = asyncio.get_running_loop()
        job, patience, deadlines = self.job, Patience(), Deadlines()
        executor = LocalExecutor(bounds_of(job).rows, lambda _: None)
        row_timeout = RowTimeout(job.run.row_timeout, deadlines)
        self.shutdown = Shutdown(executor, patience, lambda _: None, drain_timeout_s=None, sleep=asyncio.sleep)
        self.around = around = Surroundings(
            clock=loop.time,
            emit=lambda _: None,
            window=Window(executor.resize),
            wait=row_timeout.waiting(patience.wait),
            within=deadlines.within,
        )
        if job.run.max_cost is not None:
            purse = Budget(BudgetPolicy(job.run.max_cost), wait=around.wait, waiting=around.waiting)
            self.around = around = Surroundings(
                clock=around.clock, emit=around.emit, window=around.window, wait=around.wait, within=around.within,
                waiting=around.waiting, purse=purse,
            )  # fmt: skip
        chain = _Chain(call=call_stack(job, self._lines(), self.replies, around))
        for queue, worlds in zip(around.waiting._queues, self._by_model(), strict=True):
            provider = queue.__self__  # type: ignore[attr-defined]
            for world in worlds:
                world.provider.append(provider)
        work = make_work(chain, _no_document, loop.time, patience.settled, row_timeout.row)
        rules = StopRules(model="a:b", max_failures=job.run.max_failures)
        if stop_after_s is not None:
            loop.call_later(stop_after_s, executor.cancel if cuts_off else executor.drain)
            loop.call_later(stop_after_s, patience.end)
        with deadlines.beating():
            async with executor.run(rows_of(self.rows), work) as groups:
                async for group in groups:
                    self.outcomes += rules.judge(group)
                    if rules.stop is not None and self.shutdown.reason is None:
                        self.shutdown.request(rules.stop)
            self.outcomes += rules.rest()
        self.ended_s = loop.time()

    def _lines(self) -> list[Line]:
        lines = []
        for name, endpoints in zip("ab", self.models, strict=False):
            ends = []
            for number, steps in enumerate(endpoints):
                world = _World(list(steps), number=number)
                self.worlds.append(world)
                at = Endpoint(base_url=f"http://{name}{number}")
                ends.append(Ended(world.ask, _price, 5, url=at.base_url))
            lines.append(Line(f"{name}:model", tuple(ends)))
        return lines

    def _by_model(self) -> list[list[_World]]:
        worlds = iter(self.worlds)
        return [[next(worlds) for _ in endpoints] for endpoints in self.models]


def _price(model: str, usage: Usage) -> float:  # noqa: ARG001 - a Price by its shape
    return (usage.prompt_tokens + usage.completion_tokens) * 1e-3


async def _no_document(document: Document) -> str:
    raise AssertionError(f"no row has a document, and {document} is one")
