from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from lcbatch.errors import OutputClosed, OutputFailed
from lcbatch.job import RUN, OutputOptions
from lcbatch.ports import Name, Order
from lcbatch.records import Json
from lcbatch.sinks import Projector, errors_sink, open_sink
from lcbatch.sinks.faults import RewriteNeeded
from lcbatch.sinks.projector import STALE, Rhythm

from .fakes import FakeStore, Ledger, ListSink, StillClock, entry, play, projector_of, running, until


def test_rows_are_appended_then_synced_then_committed() -> None:
    async def scene() -> None:
        store, ledger = FakeStore(), Ledger()
        async with projector_of(ListSink(ledger), store, ledger) as projector:
            await projector.start()
            ledger.events.clear()
            async with running(projector):
                store.put(entry(1), entry(2))
                projector.wake(2)
                await until(lambda: ledger.position == 2)
        assert ledger.events == ["append", "sync", "commit", "close"]
        assert ledger.state == {"rows": 2}

    play(scene)


def test_a_first_state_is_committed_before_the_first_row() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1)]), Ledger()
        async with projector_of(ListSink(ledger), store, ledger) as projector:
            await projector.start()
        assert ledger.events == ["open", "sync", "commit", "close"]
        assert ledger.position == 0

    play(scene)


def test_commits_come_at_most_once_per_interval_and_nothing_happens_when_idle() -> None:
    async def scene() -> None:
        store, ledger, clock = FakeStore(), Ledger(), StillClock()
        async with projector_of(ListSink(ledger), store, ledger, clock) as projector:
            await projector.start()
            async with running(projector):
                for seq in range(1, 4):
                    store.put(entry(seq))
                    projector.wake()
                    await until(lambda seq=seq: ledger.position == seq)  # type: ignore[misc]
                await until(lambda: len(clock.slept) == 3)
                reads, events = store.reads, len(ledger.events)
                for _ in range(50):
                    await asyncio.sleep(0)
                assert (store.reads, len(ledger.events)) == (reads, events)
        assert clock.slept == [0.1, 0.1, 0.1]

    play(scene)


def test_many_wakes_make_one_pass() -> None:
    async def scene() -> None:
        store, ledger = FakeStore(group=100), Ledger()
        sink = ListSink(ledger)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            async with running(projector):
                for seq in range(1, 51):
                    store.put(entry(seq))
                    projector.wake()
                await until(lambda: ledger.position == 50)
        assert ledger.events.count("append") == 1

    play(scene)


def test_a_producer_waits_until_the_sink_has_caught_up() -> None:
    async def scene() -> None:
        store, ledger = FakeStore(), Ledger()
        sink = ListSink(ledger)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            store.put(*(entry(seq) for seq in range(1, 9)))
            projector.wake(8)
            await projector.caught_up(within=8)
            assert sink.rows == []
            await projector.caught_up(within=7)
            assert projector.lag == 0
            assert len(sink.rows) == 8

    play(scene)


def test_input_order_waits_at_a_gap_and_goes_on_when_it_is_filled() -> None:
    async def scene() -> None:
        store, ledger = FakeStore(), Ledger()
        sink = ListSink(ledger, Order.INPUT)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            store.put(entry(1, ordinal=2), entry(2, ordinal=0))
            projector.wake(2)
            await projector.caught_up()
            assert sink.rows == [0]
            store.put(entry(3, ordinal=1))
            await projector.finish(complete=True)
        assert sink.rows == [0, 1, 2]
        assert ledger.position == 3
        assert "rebuild" not in ledger.events

    play(scene)


def test_a_stopped_run_in_input_order_shows_all_answers_and_is_rebuilt_next_time() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1, ordinal=0), entry(2, ordinal=2)]), Ledger()
        sink = ListSink(ledger, Order.INPUT)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            await projector.finish(complete=False)
        assert sink.rows == [0, 2]
        assert ledger.position == STALE
        store.put(entry(3, ordinal=1))
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(ledger.position, ledger.state)
            assert sink.rows == [0, 2]
            await projector.finish(complete=True)
        assert sink.rows == [0, 1, 2]
        assert ledger.position == 3

    play(scene)


def test_a_stopped_run_without_a_gap_keeps_its_position() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        async with projector_of(ListSink(ledger, Order.INPUT), store, ledger) as projector:
            await projector.start()
            await projector.finish(complete=False)
        assert ledger.position == 2
        assert "rebuild" not in ledger.events

    play(scene)


def test_an_output_that_is_not_as_left_is_rebuilt_at_once_and_the_intent_recorded_first() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        sink = ListSink(ledger, takes=False)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(2, {"rows": 2})
        assert ledger.events[:4] == ["open", "commit", "rebuild", "sync"]
        assert [(position, state) for _, position, state in ledger.commits] == [
            (STALE, {"rows": 2, "rebuilding": True}),
            (2, {"rows": 2}),
        ]

    play(scene)


@pytest.mark.parametrize("how", ["told", "recorded"])
def test_a_stale_output_in_finished_order_is_rebuilt_at_once(how: str) -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(4, ordinal=0), entry(2, ordinal=1)]), Ledger()
        sink = ListSink(ledger)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(2 if how == "told" else STALE, {}, stale=how == "told")
            assert sink.rows == [1, 0]
            assert ledger.position == 4

    play(scene)


def test_a_stale_output_in_input_order_is_left_alone_until_the_end() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1, ordinal=1), entry(2, ordinal=0)]), Ledger()
        sink = ListSink(ledger, Order.INPUT, rows=[7])
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(1, {"rows": 1}, stale=True)
            assert ledger.position == STALE
            projector.wake(2)
            await projector.caught_up()
            assert sink.rows == [7]
            await projector.finish(complete=True)
        assert sink.rows == [0, 1]
        assert ledger.position == 2

    play(scene)


def test_rows_that_leave_are_discarded_now_and_rebuilt_away_at_the_end() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        sink = ListSink(ledger)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            projector.wake(2)
            await projector.caught_up()
            await projector.discard([Name("0")])
            del store.rows[0]
            await projector.finish(complete=True)
        assert "discard 0" in ledger.events
        assert sink.rows == [1]

    play(scene)


@pytest.mark.parametrize("error", [OutputFailed("full"), OutputClosed("gone")])
def test_an_error_of_the_sink_comes_out_of_run_and_of_finish(error: Exception) -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1)]), Ledger()
        async with projector_of(ListSink(ledger, fails=error), store, ledger) as projector:
            await projector.start()
            projector.wake()
            with pytest.raises(type(error)):
                await projector.run()
            with pytest.raises(type(error)):
                await projector.finish(complete=False)
        assert ledger.position == 0

    play(scene)


def test_a_sink_that_cannot_append_is_rebuilt_with_what_stands_so_far() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2), entry(3, ordinal=5)]), Ledger()
        sink = ListSink(ledger, Order.INPUT, fails=RewriteNeeded(now=True))
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            projector.wake(3)
            await projector.caught_up()
            assert sink.rows == [0, 1]
            assert projector.position == 2

    play(scene)


def test_a_sink_written_at_the_end_waits_for_it_and_a_kill_before_is_made_good() -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        sink = ListSink(ledger, Order.INPUT, fails=RewriteNeeded(now=False))
        async with projector_of(sink, store, ledger) as projector:
            await projector.start()
            async with running(projector):
                projector.wake(2)
                await until(lambda: ledger.position == STALE)
            assert sink.rows == []
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(ledger.position, ledger.state)
            await projector.finish(complete=True)
        assert sink.rows == [0, 1]
        assert ledger.position == 2

    play(scene)


FILES = ["out.jsonl", "out.csv", "out.parquet", "out/"]
ROWS = [
    entry(seq, ordinal=seq * 7 % 11 - 1, fields={"n": seq, **({"late": 1} if seq > 6 else {})}) for seq in range(1, 11)
]


class Killed(Exception):
    pass


async def live(output: str, store: FakeStore, ledger: Ledger, commits: int) -> None:
    """One run over ROWS, which dies at its commit after the first `commits`."""
    left = iter(range(commits))

    async def commit(view: str, position: int, state: Mapping[str, Json]) -> None:
        if next(left, None) is None:
            raise Killed
        await ledger.commit(view, position, state)

    sink = open_sink(OutputOptions(output=output), task=RUN, stdout_fd=None, stdout_is_terminal=False)
    position, state = (ledger.position, ledger.state) if ledger.commits else (0, None)
    async with (
        Projector(sink, store=store, commit=commit, rhythm=Rhythm(0.0)) as projector,
        asyncio.TaskGroup() as group,
    ):
        await projector.start(position, state)
        task = group.create_task(projector.run())
        for row in ROWS[len(store.rows) :]:
            store.put(row)
            projector.wake()
            await until(lambda: projector.lag == 0)
        task.cancel()
        await projector.finish(complete=True)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kills", [(0,), (1,), (2,), (3,), (6,), (9,), (12,), (5, 1, 0, 2)])
def test_killed_anywhere_the_next_run_makes_the_output_right(tmp_path: Path, name: str, kills: tuple[int, ...]) -> None:
    async def scene() -> None:
        store, ledger = FakeStore(), Ledger()
        for commits in kills:
            try:
                await live(f"{tmp_path}/killed/{name}", store, ledger, commits)
            except* Killed:
                pass
        await live(f"{tmp_path}/killed/{name}", store, ledger, 1000)
        await live(f"{tmp_path}/whole/{name}", FakeStore(), Ledger(), 1000)

    play(scene)
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_the_errors_file_loses_rows_that_were_answered_since(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "out.errors.jsonl"
        store, ledger = (
            FakeStore([entry(1, kind="timeout", message="slow"), entry(2, kind="server", message="502")]),
            Ledger(),
        )
        async with projector_of(errors_sink(path), store, ledger) as projector:
            await projector.start()
            projector.wake(2)
            await projector.caught_up()
            assert path.read_bytes().count(b"\n") == 2
            store.rows[0] = entry(3, ordinal=0)
            await projector.finish(complete=True)
            assert path.read_bytes().count(b"\n") == 1
        assert ledger.position == 2

    play(scene)


def test_rows_that_a_waiting_producer_appended_are_committed_all_the_same(tmp_path: Path) -> None:
    async def scene() -> None:
        store, ledger = FakeStore([entry(1, kind="timeout", message="slow")]), Ledger()
        async with projector_of(errors_sink(tmp_path / "e.jsonl"), store, ledger) as projector:
            await projector.start()
            projector.wake()
            await projector.caught_up()
            assert ledger.position == 0
            async with running(projector):
                await until(lambda: ledger.position == 1)

    play(scene)


def test_stdout_begins_at_the_beginning_whatever_was_committed() -> None:
    async def scene() -> None:
        reader, writer = os.pipe()
        store, ledger = FakeStore([entry(1), entry(2)]), Ledger()
        sink = open_sink(OutputOptions(ordered=True), task=RUN, stdout_fd=writer, stdout_is_terminal=False)
        async with projector_of(sink, store, ledger) as projector:
            await projector.start(2, {}, stale=True)
            await projector.finish(complete=True)
        os.close(writer)
        assert os.read(reader, 999).count(b"\n") == 2
        os.close(reader)

    play(scene)


def test_leaving_by_a_cancel_ends_the_wait_for_a_reader_that_takes_nothing() -> None:
    async def scene() -> None:
        reader, writer = os.pipe()
        store, ledger = FakeStore([entry(1, output="x" * 500_000)]), Ledger()
        sink = open_sink(OutputOptions(), task=RUN, stdout_fd=writer, stdout_is_terminal=False)

        async def blocked() -> None:
            async with projector_of(sink, store, ledger) as projector:
                await projector.start()
                projector.wake()
                await projector.finish(complete=True)

        task = asyncio.ensure_future(blocked())
        await until(lambda: store.reads > 0)
        task.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await task
        os.close(reader)
        os.close(writer)

    play(scene)
