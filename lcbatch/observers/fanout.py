"""One event to many observers, none of which can hurt the run or each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from lcbatch.events import Event, Notice
from lcbatch.ports import Observer


@runtime_checkable
class Display(Observer, Protocol):
    """An observer with a timer of its own. `run` ends after RunFinished, or when it is cancelled."""

    async def run(self) -> None: ...


class Fanout:
    """Tells each observer in the order given (put Stats first: the others read it).

    One that raises, in `on_event` or in its timer, is removed, and the others are told so once.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers: tuple[Observer, ...] = tuple(observers)
        self._timers: dict[int, asyncio.Task[None]] = {}

    def emit(self, event: Event) -> None:
        """Tell everybody. Lets KeyboardInterrupt through and nothing else; for the loop's thread only."""
        for observer in self._observers:
            try:
                observer.on_event(event)
            except Exception as error:  # noqa: BLE001 - whatever a display does wrong, the run goes on
                self._remove(observer, error)

    async def run(self) -> None:
        """Run the timers of those that have one, until RunFinished was emitted. Cancelling ends them all."""
        async with asyncio.TaskGroup() as group:
            for observer in self._observers:
                if isinstance(observer, Display):
                    self._timers[id(observer)] = group.create_task(self._guarded(observer))

    async def _guarded(self, display: Display) -> None:
        try:
            await display.run()
        except Exception as error:  # noqa: BLE001 - as in emit
            self._timers.pop(id(display), None)
            self._remove(display, error)

    def _remove(self, observer: Observer, error: Exception) -> None:
        if observer not in self._observers:
            return
        self._observers = tuple(other for other in self._observers if other is not observer)
        timer = self._timers.pop(id(observer), None)
        if timer is not None:
            timer.cancel()
        name = type(observer).__name__
        self.emit(Notice(f"{name} failed and was switched off: {type(error).__name__}: {error}"))
