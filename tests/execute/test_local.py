"""The executor in virtual time: what it bounds, how it stops, and what comes out when something breaks."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcbatch.errors import ConfigError, OutputFailed
from lcbatch.events import RowsStarted
from lcbatch.execute.local import LocalExecutor
from lcbatch.records import Done, Outcome, Row
from lcbatch.testing import Events, check_executor, error_leaves, make_row, rows_of, run_virtual


@dataclass
class Workshop:
    """Work that takes as long as each row says, and keeps count of what is inside."""

    durations: dict[int, float] = field(default_factory=dict)
    otherwise_s: float = 1.0
    inside: int = 0
    most: int = 0
    begun: list[int] = field(default_factory=list)
    tasks: set[int] = field(default_factory=set)

    async def __call__(self, row: Row) -> Outcome:
        self.begun.append(row.ordinal)
        self.tasks.add(id(asyncio.current_task()))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(self.durations.get(row.ordinal, self.otherwise_s))
        finally:
            self.inside -= 1
        return Done(row, row.ordinal)


@dataclass
class Tap:
    """Rows that know how many of them were taken; with `waits` they never end."""

    count: int
    waits: bool = False
    taken: int = 0
    closed: bool = False

    async def __aiter__(self) -> AsyncGenerator[Row]:
        try:
            for ordinal in range(self.count):
                self.taken += 1
                yield make_row(ordinal)
            if self.waits:
                await asyncio.get_running_loop().create_future()
        finally:
            self.closed = True


def executor_of(window: int) -> LocalExecutor:
    return LocalExecutor(window, Events())


async def ended(executor: LocalExecutor, rows: int | Tap, work: Workshop) -> list[int]:
    """The ordinals in the order in which they ended."""
    found: list[int] = []
    async with executor.run(rows_of(rows) if isinstance(rows, int) else aiter(rows), work) as groups:
        async for group in groups:
            found += [outcome.row.ordinal for outcome in group]
    return found


def test_the_local_executor_keeps_the_contract() -> None:
    run_virtual(check_executor(LocalExecutor))


def test_a_window_of_rows_runs_at_once_and_no_more() -> None:
    work = Workshop()

    async def main() -> float:
        assert sorted(await ended(executor_of(8), 40, work)) == list(range(40))
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(5.0)
    assert work.most == 8


def test_rows_come_out_as_they_finish() -> None:
    work = Workshop({0: 3.0, 1: 1.0, 2: 2.0})
    assert run_virtual(ended(executor_of(3), 3, work)) == [1, 2, 0]


def test_workers_are_started_only_as_all_others_are_busy() -> None:
    async def slowly() -> AsyncGenerator[Row]:
        for ordinal in range(10):
            await asyncio.sleep(2)
            yield make_row(ordinal)

    work = Workshop(otherwise_s=3.0)

    async def main() -> None:
        async with executor_of(100).run(slowly(), work) as groups:
            assert [len(group) async for group in groups] == [1] * 10

    run_virtual(main())
    assert len(work.tasks) == 2


def test_each_row_that_enters_is_told() -> None:
    events = Events()
    run_virtual(ended(LocalExecutor(4, events), 9, Workshop()))
    assert sum(event.count for event in events.of(RowsStarted)) == 9


def test_a_drain_lets_rows_in_flight_end_while_the_source_waits_for_ever() -> None:
    executor, work, tap = executor_of(8), Workshop(otherwise_s=10.0), Tap(3, waits=True)

    async def main() -> list[int]:
        asyncio.get_running_loop().call_later(5, executor.drain)
        found = await ended(executor, tap, work)
        assert asyncio.get_running_loop().time() == pytest.approx(10.0)
        return found

    assert sorted(run_virtual(main())) == [0, 1, 2]
    assert tap.closed


def test_a_drain_begins_nothing_more() -> None:
    executor, work = executor_of(4), Workshop()

    async def main() -> list[int]:
        asyncio.get_running_loop().call_later(2.5, executor.drain)
        return await ended(executor, 1000, work)

    assert sorted(run_virtual(main())) == list(range(12)) == work.begun


def test_a_drain_before_the_run_runs_nothing() -> None:
    executor, work = executor_of(4), Workshop()
    executor.drain()
    assert run_virtual(ended(executor, Tap(5, waits=True), work)) == []
    assert work.begun == []


def test_a_cancel_leaves_rows_in_flight_without_outcome() -> None:
    executor, work = executor_of(4), Workshop({0: 0.5}, otherwise_s=100.0)

    async def main() -> list[int]:
        asyncio.get_running_loop().call_later(1, executor.cancel)
        found = await ended(executor, 1000, work)
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)
        return found

    assert run_virtual(main()) == [0]
    assert work.inside == 0


def test_drain_and_cancel_may_come_again_and_again_and_after_the_end() -> None:
    executor = executor_of(2)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for when_s in (0.5, 0.5, 0.7):
            loop.call_later(when_s, executor.drain)
        loop.call_later(0.8, executor.cancel)
        loop.call_later(0.8, executor.cancel)
        assert await ended(executor, 10, Workshop()) == []
        executor.drain()
        executor.cancel()

    run_virtual(main())


def test_a_wider_window_is_filled() -> None:
    executor, work = executor_of(2), Workshop()

    async def main() -> None:
        asyncio.get_running_loop().call_later(2.5, executor.resize, 10)
        assert len(await ended(executor, 36, work)) == 36
        assert asyncio.get_running_loop().time() == pytest.approx(6.0)

    run_virtual(main())
    assert work.most == 10


@pytest.mark.parametrize("window", [1, 3])
def test_a_narrower_window_takes_hold_as_rows_end(window: int) -> None:
    executor, work = executor_of(8), Workshop()
    most_later = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(1.5, executor.resize, window)
        for moment_s in (2.5, 3.5, 4.5):
            loop.call_later(moment_s, lambda: most_later.append(work.inside))
        assert sorted(await ended(executor, 40, work)) == list(range(40))

    run_virtual(main())
    assert most_later == [window] * 3


@pytest.mark.parametrize("error", [ValueError("a bug"), OutputFailed("the store broke")])
def test_an_exception_of_the_work_ends_all_and_surfaces(error: Exception) -> None:
    work = Workshop(otherwise_s=100.0)

    async def breaks(row: Row) -> Outcome:
        if row.ordinal == 3:
            await asyncio.sleep(1)
            raise error
        return await work(row)

    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            async with executor_of(8).run(rows_of(1000), breaks) as groups:
                assert [group async for group in groups] == []
        assert caught.value is error
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)

    run_virtual(main())
    assert work.inside == 0


def test_an_exception_of_the_rows_surfaces_too() -> None:
    async def breaks() -> AsyncGenerator[Row]:
        yield make_row(0)
        raise ConfigError("no such field")

    async def main() -> None:
        with pytest.raises(ConfigError, match="no such field"):
            async with executor_of(8).run(breaks(), Workshop()) as groups:
                assert [group async for group in groups] == []

    run_virtual(main())


def test_several_exceptions_surface_together() -> None:
    async def breaks(row: Row) -> Outcome:
        try:
            await asyncio.sleep(1 if row.ordinal else 100)
        finally:
            raise ValueError(row.ordinal)

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with executor_of(2).run(rows_of(2), breaks) as groups:
                assert [group async for group in groups] == []
        assert sorted(str(leaf) for leaf in error_leaves(caught.value)) == ["0", "1"]

    run_virtual(main())


def test_an_exception_of_the_consumer_is_not_wrapped() -> None:
    async def consume() -> None:
        async with executor_of(2).run(rows_of(10), Workshop()) as groups:
            await anext(groups)
            raise KeyError

    with pytest.raises(KeyError):
        run_virtual(consume())


def test_leaving_early_cancels_what_runs() -> None:
    work, tap = Workshop({0: 1.0}, otherwise_s=50.0), Tap(100)

    async def main() -> None:
        async with executor_of(4).run(aiter(tap), work) as groups:
            assert len(await anext(groups)) == 1
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)

    run_virtual(main())
    assert work.inside == 0


def test_a_slow_consumer_holds_up_rows_and_bounds_outcomes() -> None:
    tap, work, window = Tap(10_000), Workshop(otherwise_s=0.001), 4

    async def main() -> None:
        taken_by_us = 0
        async with executor_of(window).run(aiter(tap), work) as groups:
            async for group in groups:
                assert len(group) <= 3 * window
                taken_by_us += len(group)
                await asyncio.sleep(1)
                assert tap.taken <= taken_by_us + 3 * window + 1
                if taken_by_us > 200:
                    return

    run_virtual(main())


def test_rows_are_not_taken_further_ahead_than_one() -> None:
    tap, window = Tap(100), 5

    async def main() -> None:
        finished = 0
        async with executor_of(window).run(aiter(tap), Workshop()) as groups:
            async for group in groups:
                finished += len(group)
                assert tap.taken <= finished + window + 1

    run_virtual(main())


def test_many_trivial_rows_take_no_more_memory_than_few() -> None:
    async def trivial(row: Row) -> Outcome:
        return Done(row, None)

    async def peak_of(count: int) -> int:
        tracemalloc.reset_peak()
        seen = 0
        async with LocalExecutor(16, lambda _: None).run(rows_of(count), trivial) as groups:
            async for group in groups:
                seen += len(group)
        assert seen == count
        return tracemalloc.get_traced_memory()[1]

    async def main() -> None:
        await peak_of(100)
        assert await peak_of(30_000) < await peak_of(1000) + 20_000

    tracemalloc.start()
    try:
        run_virtual(main())
    finally:
        tracemalloc.stop()


@given(
    window=st.integers(1, 6),
    durations=st.lists(st.integers(0, 5), max_size=25),
    drain_s=st.none() | st.integers(0, 12),
    cancel_s=st.none() | st.integers(0, 12),
    consumer_s=st.integers(0, 3),
    waits=st.booleans(),
    resize=st.none() | st.tuples(st.integers(0, 8), st.integers(1, 6)),
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_each_row_ends_at_most_once_and_nothing_hangs(
    *,
    window: int,
    durations: list[int],
    drain_s: int | None,
    cancel_s: int | None,
    consumer_s: int,
    waits: bool,
    resize: tuple[int, int] | None,
) -> None:
    executor = executor_of(window)
    work = Workshop({ordinal: float(duration) for ordinal, duration in enumerate(durations)})
    tap = Tap(len(durations), waits=waits and (drain_s is not None or cancel_s is not None))

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        if drain_s is not None:
            loop.call_later(drain_s, executor.drain)
        if cancel_s is not None:
            loop.call_later(cancel_s, executor.cancel)
        if resize is not None:
            loop.call_later(resize[0], executor.resize, resize[1])
        found = []
        async with executor.run(aiter(tap), work) as groups:
            async for group in groups:
                found += [outcome.row.ordinal for outcome in group]
                await asyncio.sleep(consumer_s)
        return found

    found = run_virtual(main())
    assert len(found) == len(set(found))
    assert set(found) <= set(work.begun)
    assert work.most <= max(window, resize[1] if resize else 0)
    assert work.inside == 0
    if cancel_s is None:
        assert sorted(found) == sorted(work.begun)
        if drain_s is None:
            assert sorted(found) == list(range(len(durations)))
