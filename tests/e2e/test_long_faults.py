"""Faults that nobody waits for: the whole call stack and the executor in virtual time, fed with the exceptions that the SDK
raises on a real response.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import httpx2
import openai
import pytest

from lcbatch.bounds import Window, bounds_of
from lcbatch.errors import Kind
from lcbatch.events import CallWaits, LimitChanged, Notice
from lcbatch.execute.deadlines import Deadlines, RowTimeout
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.shutdown import Patience
from lcbatch.job import Job
from lcbatch.ports import Call
from lcbatch.records import Answer, Document, Done, Failed, Fields, Json, Outcome, Request, Usage
from lcbatch.testing import Events, FakeChain, MemoryReplies, rows_of, run_virtual
from lcbatch.wiring import Ended, Line, Surroundings, call_stack
from lcbatch.work import make_work

_REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
_REFUSED_S = 0.01

Fault = Callable[[int], Exception | None]
"""What goes wrong with the request of this number (from 1), if anything."""


def refusal(status: int, code: str = "server_error", headers: Mapping[str, str] | None = None) -> openai.APIStatusError:
    """What the SDK raises on a response with this status, error code and headers."""
    body = {"message": "no", "type": "server_error", "code": code}
    response = httpx2.Response(status, headers=headers, json={"error": body}, request=_REQUEST)
    return openai.APIStatusError("no", response=response, body=body)


def out_of_files() -> openai.APIConnectionError:
    """What the SDK raises when there is no descriptor left for a connection."""
    error = openai.APIConnectionError(request=_REQUEST)
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    return error


@dataclass
class _Chain(FakeChain):
    call: Call | None = None

    async def __call__(self, fields: Fields) -> Json:
        assert self.call is not None
        reply = await self.call(Request([{"role": "user", "content": str(fields["text"])}]))
        return reply.text


@dataclass
class Trial:
    """A run of so many rows against a provider with this fault. `sent_s` are the moments of its requests."""

    fault: Fault
    rows: int
    latency_s: float = 1.0
    concurrency: str = "auto"
    sent_s: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    events: Events = field(default_factory=Events)
    in_flight: int = 0
    peak: int = 0
    took_s: float = 0.0

    def run(self) -> Trial:
        random.seed(self.rows)  # the stack's jitter: every run is the same
        run_virtual(self._main())
        assert len({outcome.row.ordinal for outcome in self.outcomes}) == len(self.outcomes) == self.rows
        return self

    @property
    def done(self) -> int:
        return sum(isinstance(outcome, Done) for outcome in self.outcomes)

    @property
    def failed(self) -> list[Kind]:
        return [outcome.failure.kind for outcome in self.outcomes if isinstance(outcome, Failed)]

    def said(self, part: str) -> list[str]:
        return [notice.text for notice in self.events.of(Notice) if part in notice.text]

    async def _ask(self, request: Request) -> Answer:  # noqa: ARG002 - what is asked does not matter
        self.sent_s.append(asyncio.get_running_loop().time())
        error = self.fault(len(self.sent_s))
        if error is not None:
            await asyncio.sleep(_REFUSED_S)
            raise error
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        await asyncio.sleep(self.latency_s)
        self.in_flight -= 1
        return Answer("x", {}, "", None, Usage(5, 5))

    async def _main(self) -> None:
        clock = asyncio.get_running_loop().time
        job, deadlines = Job.of(model="openai:sim", concurrency=self.concurrency), Deadlines()
        executor = LocalExecutor(bounds_of(job).rows, self.events)
        around = Surroundings(
            clock=clock,
            emit=self.events,
            window=Window(executor.resize),
            wait=RowTimeout(None, deadlines).waiting(Patience().wait),
            within=deadlines.within,
        )
        line = Line("openai:sim", (Ended(self._ask, lambda _model, _usage: 0.0),))
        chain = _Chain(call=call_stack(job, [line], MemoryReplies(), around))
        with deadlines.beating():
            async with executor.run(rows_of(self.rows), make_work(chain, _no_document, clock)) as groups:
                async for group in groups:
                    self.outcomes += group
        self.took_s = clock()


async def _no_document(document: Document) -> str:
    raise AssertionError(f"no row has a document, and {document} is one")


_FORMS: dict[str, tuple[Callable[[], Mapping[str, str]], float | None]] = {
    "300 s": (lambda: {"retry-after": "300"}, 300.0),
    "seconds": (lambda: {"retry-after": "7"}, 7.0),
    "ms": (lambda: {"retry-after-ms": "2500"}, 2.5),
    "ms before seconds": (lambda: {"retry-after": "90", "retry-after-ms": "1500"}, 1.5),
    "date": (lambda: {"retry-after": email.utils.formatdate(time.time() + 120.5, usegmt=True)}, 120.0),
    "date that has passed": (lambda: {"retry-after": email.utils.formatdate(time.time() - 120, usegmt=True)}, None),
    "garbage": (lambda: {"retry-after": "soon"}, None),
    "negative": (lambda: {"retry-after": "-5"}, None),
    "absent": (dict[str, str], None),
}
"""Headers, made when they are sent, and the seconds that they ask for."""

_OWN_PAUSE_S = 1.0


@pytest.mark.parametrize(
    ("status", "code"), [(429, "rate_limit_exceeded"), (503, "slow_down"), (529, "overloaded_error")]
)
@pytest.mark.parametrize("form", sorted(_FORMS))
def test_a_throttle_is_waited_out_as_it_asks(form: str, status: int, code: str) -> None:
    headers, asked_s = _FORMS[form]
    throttle = partial(refusal, status, code)
    trial = Trial(lambda number: throttle(headers()) if 9 <= number <= 16 else None, 40, concurrency="8").run()

    assert trial.done == 40
    wait_s = trial.sent_s[16] - trial.sent_s[15] - _REFUSED_S
    assert wait_s == pytest.approx(_OWN_PAUSE_S if asked_s is None else asked_s, rel=0.05), "by whoever is next"
    assert len(trial.sent_s) == 40 + 8, "nobody asks meanwhile, and nobody twice"
    longest_s = max(wait.delay_s for wait in trial.events.of(CallWaits))
    assert longest_s <= (asked_s or _OWN_PAUSE_S) * 1.05, "by those that were refused"
    assert trial.took_s <= wait_s * 1.05 + 9 * trial.latency_s, "it goes on at once"


@pytest.mark.parametrize("form", sorted(_FORMS))
def test_a_single_call_in_flight_waits_no_longer(form: str) -> None:
    headers, asked_s = _FORMS[form]
    trial = Trial(
        lambda number: refusal(429, "rate_limit_exceeded", headers()) if number == 2 else None, 3, concurrency="1"
    ).run()

    assert trial.done == 3
    assert len(trial.sent_s) == 4
    wait_s = trial.sent_s[2] - trial.sent_s[1] - _REFUSED_S
    assert wait_s == pytest.approx(_OWN_PAUSE_S if asked_s is None else asked_s, rel=0.05)


@pytest.mark.parametrize("rows", [300, 3000])
def test_a_third_of_all_calls_failing_costs_retries_and_no_row(rows: int) -> None:
    dice = random.Random(rows)  # noqa: S311 - a provider's mood
    trial = Trial(lambda _: refusal(500) if dice.random() < 0.3 else None, rows).run()

    assert trial.failed == []
    assert len(trial.sent_s) <= 1.6 * rows


def test_open_files_that_run_out_cost_concurrency_and_nothing_else() -> None:
    trial = Trial(lambda _: None, 2000, concurrency="200")
    trial.fault = lambda _: out_of_files() if trial.in_flight >= 17 else None
    trial.run()

    assert trial.failed == []
    assert trial.said("down") == []
    assert trial.peak == 17
    assert len(trial.sent_s) <= 2000 + 200, "each call in flight finds out once"
    assert trial.events.of(LimitChanged)[-1].limit in range(10, 18)
    assert trial.took_s <= 2000 / 17 * trial.latency_s / 0.6


def test_open_files_run_out_on_the_way_up_too() -> None:
    trial = Trial(lambda _: None, 2000)
    trial.fault = lambda _: out_of_files() if trial.in_flight >= 17 else None
    trial.run()

    assert trial.failed == []
    assert trial.events.of(LimitChanged)[-1].limit in range(10, 18)
    assert trial.took_s <= 2000 / 17 * trial.latency_s / 0.6


def test_without_one_open_file_the_rows_fail_for_this_machine_s_reason() -> None:
    trial = Trial(lambda _: out_of_files(), 20).run()

    assert set(trial.failed) == {Kind.LOCAL}
    assert trial.said("down") == []
    assert len(trial.sent_s) <= 20 * 5 + 20, "no busy loop"
