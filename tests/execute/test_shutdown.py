"""Stopping: what the first and the second reason do, who wins, and how long a drain may take."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from lcbatch.errors import Interrupted, OutputFailed, TimeIsUp, TooManyFailures
from lcbatch.events import Stopping
from lcbatch.execute.shutdown import TERM_DRAIN_S, Patience, Shutdown, on_time
from lcbatch.ports import Work
from lcbatch.records import Outcome, Row
from lcbatch.testing import Events, run_virtual


class Stopped:
    """An executor that only notes when it was stopped, in virtual seconds."""

    def __init__(self) -> None:
        self.drained: list[float] = []
        self.cancelled: list[float] = []

    def run(self, rows: AsyncIterator[Row], work: Work) -> AbstractAsyncContextManager[AsyncIterator[list[Outcome]]]:
        raise NotImplementedError

    def drain(self) -> None:
        self.drained.append(asyncio.get_running_loop().time())

    def cancel(self) -> None:
        self.cancelled.append(asyncio.get_running_loop().time())


Story = Callable[[Shutdown], Awaitable[None]]


def told(
    story: Story, *, drain_timeout_s: float | None = None, for_s: float = 1000.0
) -> tuple[Shutdown, Stopped, Events]:
    """Let a story happen while the shutdown listens, and `for_s` more seconds pass."""
    executor, events = Stopped(), Events()

    async def main() -> Shutdown:
        shutdown = Shutdown(executor, Patience(), events, drain_timeout_s=drain_timeout_s, sleep=asyncio.sleep)
        async with shutdown.listening():
            await story(shutdown)
            await asyncio.sleep(for_s)
        return shutdown

    return run_virtual(main()), executor, events


def signals(*numbers: signal.Signals) -> Story:
    async def story(shutdown: Shutdown) -> None:
        for number in numbers:
            shutdown._on_signal(number)
            await asyncio.sleep(1)

    return story


def test_the_first_signal_drains_and_the_second_cuts_off() -> None:
    shutdown, executor, events = told(signals(signal.SIGINT, signal.SIGINT))
    assert executor.drained == [0.0]
    assert executor.cancelled == [1.0]
    assert [event.cancel for event in events.of(Stopping)] == [False, True]
    assert isinstance(shutdown.reason, Interrupted)
    assert shutdown.reason.signal_number == signal.SIGINT


def test_ctrl_c_waits_for_calls_in_flight_as_long_as_they_take() -> None:
    assert told(signals(signal.SIGINT))[1].cancelled == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_service_manager_gets_an_end_in_time(number: signal.Signals) -> None:
    assert told(signals(number))[1].cancelled == [TERM_DRAIN_S]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("within_s", [0.0, 3.0])
def test_the_users_drain_timeout_holds_for_every_signal(number: signal.Signals, within_s: float) -> None:
    assert told(signals(number), drain_timeout_s=within_s)[1].cancelled == [within_s]


def test_the_first_stop_reason_stays() -> None:
    first, second = TooManyFailures("too many"), TimeIsUp("time is up")

    async def story(shutdown: Shutdown) -> None:
        shutdown.request(first)
        shutdown.request(second)

    shutdown, executor, _ = told(story)
    assert shutdown.reason is first
    assert executor.cancelled == []


def test_a_signal_beats_a_stop_reason_and_still_only_drains() -> None:
    async def story(shutdown: Shutdown) -> None:
        shutdown.request(OutputFailed("the disk is full"))
        shutdown._on_signal(signal.SIGTERM)

    shutdown, executor, _ = told(story, for_s=10)
    assert isinstance(shutdown.reason, Interrupted)
    assert executor.cancelled == []


def test_the_same_term_again_at_once_is_one_signal() -> None:
    async def story(shutdown: Shutdown) -> None:
        shutdown._on_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        shutdown._on_signal(signal.SIGTERM)

    assert told(story, for_s=10)[1].cancelled == []
    assert told(signals(signal.SIGTERM, signal.SIGINT), for_s=10)[1].cancelled == [1.0]


def test_who_only_waits_is_cut_off_by_a_stop_and_who_works_is_not() -> None:
    async def main() -> list[str]:
        ended: list[str] = []
        patience = Patience()
        shutdown = Shutdown(Stopped(), patience, Events(), drain_timeout_s=None, sleep=asyncio.sleep)

        async def waits(name: str, delay_s: float) -> None:
            await patience.sleep(delay_s)
            ended.append(name)

        async def works() -> None:
            await patience.sleep(1)
            await asyncio.sleep(10)
            ended.append("worked")

        tasks = [asyncio.create_task(one) for one in (waits("short", 1), waits("long", 3600), works())]
        await asyncio.sleep(2)
        shutdown.request(TimeIsUp("time is up"))
        late = asyncio.create_task(waits("late", 0))
        await asyncio.gather(*tasks, late, return_exceptions=True)
        assert [task.cancelled() for task in (*tasks, late)] == [False, True, False, True]
        return ended

    assert run_virtual(main()) == ["short", "worked"]


def test_time_that_is_up_asks_for_the_stop() -> None:
    async def story(shutdown: Shutdown) -> None:
        task = on_time(shutdown, 60.0, lambda: TimeIsUp("time is up"), asyncio.sleep)
        await asyncio.sleep(59)
        assert shutdown.reason is None
        await task

    shutdown, executor, _ = told(story)
    assert isinstance(shutdown.reason, TimeIsUp)
    assert executor.drained == [60.0]


_PROGRAM = """
import asyncio
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.shutdown import Patience, Shutdown
from lcbatch.testing import make_row, rows_of
from lcbatch.records import Done

async def work(row):
    print("begun", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input)
    return Done(row, None)

async def main():
    executor = LocalExecutor(1, lambda event: None)
    say = lambda event: print(event.reason, flush=True)
    shutdown = Shutdown(executor, Patience(), say, drain_timeout_s=None, sleep=asyncio.sleep)
    async with shutdown.listening(), executor.run(rows_of(1000), work) as groups:
        ended = [outcome async for group in groups for outcome in group]
    print(len(ended), shutdown.reason.signal_number)

asyncio.run(main())
"""


def test_a_real_signal_drains_the_process() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.readline() == "stopped by SIGTERM\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == f"1 {signal.SIGTERM.value}\n"
        assert process.wait(timeout=10) == 0
