"""The loop: committed before anyone is told, stopped in order, and nothing stored that the next run has to redo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from lcbatch import pipeline
from lcbatch.errors import (
    AccessDenied,
    ConfigError,
    Failure,
    Kind,
    MoneyStop,
    OutputClosed,
    OutputFailed,
    SystemLimit,
    TooManyFailures,
    TryLater,
)
from lcbatch.events import RowsFinished, RowsShared, Stopping
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.shutdown import Patience, Shutdown
from lcbatch.records import Done, Failed, Outcome, Row
from lcbatch.rules import StopRules
from lcbatch.sinks.projector import Projector
from lcbatch.store.run_store import RunStore
from lcbatch.testing import Events, rows_of, run_virtual


@dataclass
class Committed:
    """The store's part in the loop: what was put, and when it breaks. A commit takes a while."""

    breaks_after: int = 1_000_000
    rows: list[Outcome] = field(default_factory=list)
    reserve: list[Outcome] = field(default_factory=list)

    async def put(self, outcomes: Sequence[Outcome]) -> RowsShared:
        await asyncio.sleep(0.01)
        if len(self.rows) >= self.breaks_after:
            self.reserve += outcomes
            raise OutputFailed("the disk is full")
        self.rows += outcomes
        return RowsShared()


@dataclass
class Reader:
    """The projector's part: how many rows it was told of, and how far behind it may be."""

    woken: int = 0
    waits_s: float = 0.0
    fails: Exception | None = None

    def wake(self, rows: int) -> None:
        self.woken += rows

    async def caught_up(self, within: int) -> None:
        assert within > 0
        await asyncio.sleep(self.waits_s)
        if self.fails is not None:
            raise self.fails


Answer = Callable[[Row], Outcome]


@dataclass
class Trial:
    """One run of the loop in virtual time over fakes."""

    store: Committed = field(default_factory=Committed)
    reader: Reader = field(default_factory=Reader)
    events: Events = field(default_factory=Events)
    begun: int = 0
    shutdown: Shutdown | None = None

    def run(self, answer: Answer, rows: int = 100, window: int = 4, **rules: Any) -> Trial:
        async def work(row: Row) -> Outcome:
            self.begun += 1
            await asyncio.sleep(1)
            return answer(row)

        async def main() -> None:
            executor = LocalExecutor(window, self.events)
            self.shutdown = Shutdown(executor, Patience(), self.emit, drain_timeout_s=None, sleep=asyncio.sleep)
            parts = pipeline.Parts(
                executor=executor,
                work=work,
                store=cast(RunStore, self.store),
                projectors=[cast(Projector, self.reader)],
                rules=StopRules("sim", **rules),
                shutdown=self.shutdown,
                clock=asyncio.get_running_loop().time,
                emit=self.emit,
            )
            await pipeline.run(parts, self._counted(rows))

        run_virtual(main())
        return self

    async def _counted(self, rows: int) -> AsyncIterator[Row]:
        async for row in rows_of(rows):
            yield row

    def emit(self, event: Any) -> None:
        if isinstance(event, RowsFinished):
            assert all(outcome in self.store.rows for outcome in event.outcomes), "told before it was committed"
        self.events(event)

    @property
    def told(self) -> int:
        return sum(len(event.outcomes) for event in self.events.of(RowsFinished))

    @property
    def reason(self) -> Any:
        assert self.shutdown is not None
        return self.shutdown.reason


def yes(row: Row) -> Outcome:
    return Done(row, "yes")


def failing(kind: Kind, message: str = "no") -> Answer:
    return lambda row: Failed(row, Failure(kind, message))


def test_every_row_is_committed_and_then_told() -> None:
    trial = Trial().run(yes)
    assert len(trial.store.rows) == trial.told == trial.reader.woken == 100
    assert trial.reason is None


def test_rows_that_ended_together_are_committed_together() -> None:
    trial = Trial().run(yes, rows=40, window=10)
    assert [len(event.outcomes) for event in trial.events.of(RowsFinished)] == [10] * 4


def test_a_slow_reader_of_the_output_holds_up_rows() -> None:
    trial = Trial(reader=Reader(waits_s=1000.0)).run(yes, rows=40, window=4)
    finished = trial.events.of(RowsFinished)
    assert finished[1].now_s - finished[0].now_s >= 1000
    assert max(len(event.outcomes) for event in finished) <= 3 * 4


def test_a_store_that_breaks_drains_the_run_and_nobody_is_told_of_the_rest() -> None:
    trial = Trial(store=Committed(breaks_after=20)).run(yes, window=10)
    assert isinstance(trial.reason, OutputFailed)
    assert trial.told == 20
    assert len(trial.store.rows) + len(trial.store.reserve) == trial.begun, "no answer is dropped"
    assert trial.begun <= 40
    assert {event.cancel for event in trial.events.of(Stopping)} == {False}


def test_an_output_that_breaks_drains_the_run_and_answers_are_stored_still() -> None:
    trial = Trial(reader=Reader(fails=OutputClosed("the reader has gone"))).run(yes, window=10)
    assert isinstance(trial.reason, OutputClosed)
    assert len(trial.store.rows) == trial.begun <= 30


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.QUOTA, MoneyStop),
        (Kind.AUTH, AccessDenied),
        (Kind.NOT_FOUND, ConfigError),
        (Kind.THROTTLE, TryLater),
        (Kind.LOCAL, SystemLimit),
    ],
)
def test_rows_that_failed_for_the_runs_own_reason_are_left_undone(kind: Kind, error: type[Exception]) -> None:
    trial = Trial().run(failing(kind))
    assert type(trial.reason) is error
    assert trial.store.rows == []
    assert trial.begun <= 8


def test_rows_in_flight_at_such_a_stop_are_kept_when_they_end_well() -> None:
    trial = Trial().run(lambda row: failing(Kind.QUOTA)(row) if row.ordinal == 5 else yes(row), window=4)
    assert isinstance(trial.reason, MoneyStop)
    assert len(trial.store.rows) == trial.begun - 1


def test_many_first_rows_that_fail_alike_are_no_rows_fault() -> None:
    trial = Trial().run(lambda row: failing(Kind.CHAIN, f"KeyError in row {row.ordinal}")(row))
    assert isinstance(trial.reason, ConfigError)
    assert trial.store.rows == []
    assert 20 <= trial.begun <= 28


def test_a_few_rows_that_fail_alike_are_stored_at_the_end() -> None:
    trial = Trial().run(failing(Kind.CHAIN), rows=10)
    assert trial.reason is None
    assert len(trial.store.rows) == trial.told == 10


def test_more_failures_than_allowed_stop_the_run_and_are_stored() -> None:
    trial = Trial().run(lambda row: failing(Kind.CHAIN)(row) if row.ordinal else yes(row), max_failures="9")
    assert isinstance(trial.reason, TooManyFailures)
    assert len(trial.store.rows) == trial.begun <= 16


def test_the_first_reason_to_stop_is_the_one_that_counts() -> None:
    trial = Trial(store=Committed(breaks_after=0))
    trial.run(lambda row: failing(Kind.QUOTA)(row) if row.ordinal > 3 else yes(row), window=4)
    assert isinstance(trial.reason, OutputFailed)
