"""How much at once: calls in flight, rows in flight, rows in one call, as the options say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from lcbatch.calls.concurrency import MOST, START
from lcbatch.errors import UsageError
from lcbatch.job import EMBED, EXTRACTIVE, SUMMARIZE, Job
from lcbatch.models.embedders import MOST_INPUTS

_EMBEDDED_CALLS = 4
"""The embedded model works on this machine's cores: more calls in flight only take memory."""

_ROWS_PER_CALL = 2
"""Rows in flight for each call: while one row's call is out, the next one's document is read."""

_FIRST_ROWS = 16
"""Rows in flight at the start, also where no call ever says that more would do: a user's own chain without a model."""

_MOST_BATCHED_ROWS = 16_384
"""Rows in flight where many go out in one request: beyond it they would only take memory, for no more throughput."""

MOST_CALLS = 100_000
"""Beyond it no machine has ports."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What -j says: calls in flight between `least` and `most`, beginning with `start`; the first window of rows.

    `batch` is how many rows go out in one call.
    """

    least: int
    most: int
    start: int
    batch: int = 1

    @property
    def rows(self) -> int:
        """Rows in flight at the start."""
        if self.batch > 1:
            return self.rows_for(self.start)
        return self.start if self.least == self.most else _FIRST_ROWS

    @property
    def answers(self) -> int:
        """Answers of ordinary length in flight at the start: eight vectors are shorter than one of these can be."""
        return self.rows if self.batch == 1 else -(-self.rows // 8)

    def rows_for(self, calls: int) -> int:
        """Rows in flight for so many calls: while a batch is out, the next one gathers."""
        rows = _ROWS_PER_CALL * calls * self.batch
        return max(_FIRST_ROWS, rows if self.batch == 1 else min(rows, max(_MOST_BATCHED_ROWS, self.batch)))

    def within(self, most: int) -> Bounds:
        """These, but never more than `most`."""
        return Bounds(min(self.least, most), min(self.most, most), min(self.start, most), self.batch)


_AUTO = Bounds(1, MOST, START)


class Window:
    """The executor's window of rows, which follows how many calls the providers take together."""

    def __init__(self, resize: Callable[[int], None], bounds: Bounds = _AUTO) -> None:
        self._resize = resize
        self._bounds = bounds
        self._limits: dict[object, int] = {}

    @property
    def calls(self) -> int:
        """Calls that the providers take together, as far as they have said."""
        return sum(self._limits.values()) or self._bounds.start

    def of(self, who: object) -> Callable[[int], None]:
        """Takes one provider's limit on calls in flight, whenever it changes."""

        def changed(limit: int) -> None:
            self._limits[who] = limit
            self._resize(self._bounds.rows_for(self.calls))

        return changed


def model_name(job: Job) -> str | None:
    """The model that the job names; `summarize` has one by default."""
    return job.model.model or (EXTRACTIVE if job.task == SUMMARIZE else None)


def bounds_of(job: Job) -> Bounds:
    """What -j says: auto, N or MIN-MAX. Raises UsageError for anything else."""
    text, batch = job.run.concurrency, batch_size(job)
    if text == "auto":
        if model_name(job) == EXTRACTIVE:
            return Bounds(_EMBEDDED_CALLS, _EMBEDDED_CALLS, _EMBEDDED_CALLS)
        return replace(_AUTO, batch=batch)
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most <= MOST_CALLS:
        raise UsageError(f"-j cannot be {text!r}", hint="auto, a number of calls in flight, or a range like 4-200")
    return Bounds(least, most, least, batch)


def batch_size(job: Job) -> int:
    """Rows in one request. Raises UsageError for what no provider takes."""
    if job.task != EMBED:
        return 1
    if not 1 <= job.run.batch_size <= MOST_INPUTS:
        raise UsageError(f"--batch-size cannot be {job.run.batch_size}", hint=f"a number from 1 to {MOST_INPUTS}")
    return job.run.batch_size


def rows_in_a_call(job: Job, row_tokens: float) -> float:
    """How many rows of so many tokens share a request, when there are enough of them."""
    if job.task != EMBED:
        return 1.0
    return max(1.0, min(float(batch_size(job)), job.run.batch_tokens / max(1.0, row_tokens)))
