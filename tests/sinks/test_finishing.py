"""An output's end: what the next run finds, what is appended no more, and waits that are cut off."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lcbatch.errors import OutputClosed, OutputFailed
from lcbatch.job import RUN, OutputOptions
from lcbatch.ports import SETTLED, Order
from lcbatch.sinks import open_sink
from lcbatch.sinks.faults import RewriteNeeded
from lcbatch.sinks.projector import STALE

from .fakes import FakeStore, Ledger, ListSink, entry, play, projector_of, running, until

# --- what is left for the next run


def test_only_a_finished_output_is_taken_for_one_that_nobody_else_changed() -> None:
    """The run's end alone says nothing: it comes after a failed write too."""

    async def scene() -> None:
        store, ledger = FakeStore([entry(1)]), Ledger()
        sink = ListSink(ledger)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            assert SETTLED not in ledger.state
            await projector.finish(complete=True)
            assert ledger.state == {"rows": 1, SETTLED: True}
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(ledger.position, ledger.state)
            assert sink.opened == ({"rows": 1}, True)
            assert ledger.state == {"rows": 1}, "from here on the next run finds what a crash has left"
            sink.fails = OutputFailed("full")
            store.put(entry(2))
            with pytest.raises(OutputFailed):
                await projector.finish(complete=True)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(ledger.position, ledger.state)
            assert sink.opened == ({"rows": 1}, False)

    play(scene)


def test_nothing_is_appended_after_the_end() -> None:
    """A rebuild of a pipe writes nothing and has no position: one more append would write everything again."""

    async def scene() -> None:
        reader, writer = os.pipe()
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        sink = open_sink(OutputOptions(), task=RUN, stdout_fd=writer, stdout_is_terminal=False)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            projector.mark_stale()
            await projector.finish(complete=True)
            commits = len(ledger.commits)
            async with running(projector):
                projector.wake()
                await until(lambda: len(ledger.commits) > commits)
            assert ledger.state[SETTLED]
        os.close(writer)
        assert os.read(reader, 999).count(b"\n") == 2
        os.close(reader)

    play(scene)


def test_an_output_can_be_finished_again() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        sink = ListSink(ledger)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            await projector.finish(complete=True)
            sink.rows.clear()
            projector.mark_stale()
            await projector.finish(complete=True)
        assert sink.rows == [0, 1]
        assert (ledger.position, ledger.state) == (2, {"rows": 2, SETTLED: True})

    play(scene)


# --- rows that stay although they are gone from the input


@pytest.mark.parametrize("dies", [False, True])
def test_an_ordered_output_that_is_made_anew_shows_kept_rows_at_the_end(dies: bool) -> None:  # noqa: FBT001
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2), entry(3, ordinal=-1)]), Ledger()
        sink = ListSink(ledger, Order.INPUT, takes=False)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(2, {"rows": 3})
            assert sink.rows == [0, 1]
            assert ledger.position == STALE
            store.put(entry(4, ordinal=2))
            projector.wake()
            await projector.caught_up()
            assert sink.rows == [0, 1, 2]
            if not dies:
                await projector.finish(complete=True)
        if dies:
            sink.takes = True
            async with projector_of(sink, store, ledger) as projector:
                await projector.start(ledger.position, ledger.state)
                await projector.finish(complete=True)
        assert sink.rows == [0, 1, 2, -1]
        assert ledger.position == 3

    play(scene)


def test_a_table_that_is_rewritten_on_the_way_shows_kept_rows_at_the_end() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2, ordinal=-1)]), Ledger()
        sink = ListSink(ledger, Order.INPUT, fails=RewriteNeeded(now=True))
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            projector.wake()
            await projector.caught_up()
            assert sink.rows == [0]
            sink.fails = None
            await projector.finish(complete=True)
        assert sink.rows == [0, -1]

    play(scene)


def test_an_ordered_output_without_kept_rows_is_made_anew_once() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        sink = ListSink(ledger, Order.INPUT, takes=False)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(2, {"rows": 2})
            assert ledger.position == 2
            await projector.finish(complete=True)
        assert ledger.events.count("rebuild") == 1

    play(scene)


# --- waits


def test_a_wait_for_a_reader_can_be_ended_while_the_output_is_being_opened(tmp_path: Path) -> None:
    async def scene() -> None:
        os.mkfifo(tmp_path / "fifo")
        options = OutputOptions(output=str(tmp_path / "fifo"))
        sink = open_sink(options, task=RUN, stdout_fd=None, stdout_is_terminal=False)
        async with asyncio.timeout(10), projector_of(sink, FakeStore(), Ledger()) as projector:
            starting = asyncio.ensure_future(projector.start())
            await asyncio.sleep(0)
            projector.abort()
            with pytest.raises(OutputClosed):
                await starting

    play(scene)
