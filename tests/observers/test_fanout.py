from __future__ import annotations

import asyncio

from lcbatch.events import Event, InputSize, Notice, RunFinished
from lcbatch.observers.fanout import Fanout

END = RunFinished(1.0, 0, "done")


class Ear:
    def __init__(self) -> None:
        self.heard: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.heard.append(event)


class Broken(Ear):
    def on_event(self, event: Event) -> None:
        super().on_event(event)
        raise ValueError("no room")


class Clockwork(Ear):
    """Runs until cancelled, or fails at once."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error
        self.cancelled = False

    async def run(self) -> None:
        if self._error:
            raise self._error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def test_every_observer_is_told_in_order() -> None:
    first, second = Ear(), Ear()
    fanout = Fanout([first, second])
    fanout.emit(InputSize(1))
    fanout.emit(END)
    assert first.heard == second.heard == [InputSize(1), END]


def test_an_observer_that_raises_is_removed_and_the_others_are_told_once() -> None:
    broken, ear = Broken(), Ear()
    fanout = Fanout([broken, ear])
    fanout.emit(InputSize(1))
    fanout.emit(InputSize(2))
    notice = Notice("Broken failed and was switched off: ValueError: no room")
    assert ear.heard == [notice, InputSize(1), InputSize(2)]
    assert broken.heard == [InputSize(1)]


def test_two_that_raise_do_not_bring_each_other_back() -> None:
    ear = Ear()
    fanout = Fanout([Broken(), Broken(), ear])
    fanout.emit(InputSize(1))
    fanout.emit(InputSize(2))
    assert [type(event) for event in ear.heard].count(Notice) == 2
    assert ear.heard[-1] == InputSize(2)


def test_the_last_observer_may_break_too() -> None:
    fanout = Fanout([Broken()])
    fanout.emit(InputSize(1))
    fanout.emit(InputSize(2))


def test_a_timer_that_fails_removes_its_observer_and_leaves_the_others_running() -> None:
    async def scenario() -> None:
        bad, good, ear = Clockwork(OSError("gone")), Clockwork(), Ear()
        fanout = Fanout([bad, good, ear])
        async with asyncio.TaskGroup() as group:
            timers = group.create_task(fanout.run())
            for _ in range(5):
                await asyncio.sleep(0)
            assert ear.heard == [Notice("Clockwork failed and was switched off: OSError: gone")]
            assert not timers.done()
            timers.cancel()
        assert good.cancelled

    asyncio.run(scenario())


def test_an_observer_that_raises_loses_its_timer_as_well() -> None:
    class Both(Clockwork):
        def on_event(self, event: Event) -> None:
            raise RuntimeError(event)

    async def scenario() -> None:
        both = Both()
        fanout = Fanout([both])
        async with asyncio.TaskGroup() as group:
            group.create_task(fanout.run())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            fanout.emit(END)
        assert both.cancelled

    asyncio.run(scenario())
