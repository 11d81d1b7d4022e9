"""Progress for programs (`--progress json`): one JSON object a line.

Every object has `event` and `elapsed_s` (seconds since the run began). By event:

| event | further keys |
| --- | --- |
| `run_started` | `task`, `model`, `output`, `rows_window` (rows that may be in flight) |
| `progress` | the figures of `summary_json`, at most once a second and only when something changed |
| `notice` | `text` |
| `stopping` | `reason`, `cancel` (rows in flight are cut off as well) |
| `run_finished` | the figures of `summary_json`, now with `exit_code`, `message` and `continue_with` |

New keys may come; those that are here stay and keep their units. Texts are as they came, escaped by JSON alone.
"""

from __future__ import annotations

from typing import TextIO

from lcbatch.events import Event, Notice, RunFinished, RunStarted, Stopping
from lcbatch.jsontext import dumps
from lcbatch.observers.stats import Stats
from lcbatch.observers.summary import summary_json
from lcbatch.observers.ticker import Ticker
from lcbatch.ports import Clock, Sleep
from lcbatch.records import Json

INTERVAL_S = 1.0


class JsonLog:
    """Writes the lines that this module documents. `stats` must be told of an event before this is."""

    def __init__(
        self, stats: Stats, stream: TextIO, clock: Clock, sleep: Sleep, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._stats = stats
        self._stream = stream
        self._clock = clock
        self._changed = False
        self._ticker = Ticker(self._tick, interval_s, sleep)

    def on_event(self, event: Event) -> None:
        self._changed = True
        if isinstance(event, RunStarted):
            started = {"task": event.task, "model": event.model, "output": event.output}
            self._write("run_started", {**started, "rows_window": event.limit})
        elif isinstance(event, Notice):
            self._write("notice", {"text": event.text})
        elif isinstance(event, Stopping):
            self._write("stopping", {"reason": event.reason, "cancel": event.cancel})
        elif isinstance(event, RunFinished):
            self._ticker.stop()
            self._write("run_finished", summary_json(self._stats.snapshot(event.now_s)))

    async def run(self) -> None:
        await self._ticker.run()

    def _tick(self) -> None:
        if self._changed:
            self._changed = False
            self._write("progress", summary_json(self._stats.snapshot(self._clock())))

    def _write(self, name: str, keys: dict[str, Json]) -> None:
        elapsed_s = round(self._stats.snapshot(self._clock()).elapsed_s, 3)
        self._stream.write(dumps({"event": name, "elapsed_s": elapsed_s, **keys}) + "\n")
        self._stream.flush()
