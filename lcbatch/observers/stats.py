"""The only counter: turns events into figures. Everybody else reads its snapshots."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from lcbatch.events import (
    CallEnded,
    CallStarted,
    CallWaits,
    Event,
    Gate,
    InputRead,
    InputSize,
    LimitChanged,
    RowsFinished,
    RowsPlanned,
    RowsShared,
    RowsStarted,
    RunFinished,
    RunStarted,
    Stopping,
    Waited,
)
from lcbatch.observers.figures import CallFigures, ErrorFigure, RowFigures, SlowRow, Snapshot
from lcbatch.observers.histogram import Histogram, RecentRate
from lcbatch.observers.steps import OTHERS, StepCount, Steps
from lcbatch.records import Done, Failed, Outcome

SLOWEST = 5
MODELS = 32
"""Most model names that are told apart. A proxy that puts a request id into the name must not fill the memory."""

OTHER_MODELS = OTHERS
EXAMPLE_CHARS = 500
ETA_ROWS = 5
ETA_SETTLED_S = 30.0
ETA_MAX_S = 30 * 86400.0
"""An ETA beyond a month says only that nothing moves."""


class Stats:
    """An observer that counts. Memory does not grow with the rows; about 1 us a row and 1 us a call.

    Told from one thread only. `max_rows` is --limit: how many rows this run calls at most.
    """

    def __init__(self, max_rows: int | None = None) -> None:
        self._max_rows = max_rows
        self._rows = _Rows()
        self._calls = _Calls()
        self._started: RunStarted | None = None
        self._finished: RunFinished | None = None
        self._limit = 0
        self._stopping: str | None = None
        self._gate: Gate | None = None
        self._held_s: defaultdict[str, float] = defaultdict(float)
        self._handlers: dict[type, Callable[[Any], None]] = {
            RunStarted: self._run_started,
            RowsPlanned: self._rows.planned,
            InputSize: self._rows.input_size,
            InputRead: self._rows.input_read,
            RowsStarted: self._rows.started,
            RowsFinished: self._rows.finished,
            RowsShared: self._rows.shared,
            CallStarted: self._first_call,
            CallEnded: self._calls.ended,
            CallWaits: self._calls.waits,
            LimitChanged: self._limit_changed,
            Waited: self._waited,
            Stopping: self._run_stopping,
            RunFinished: self._run_finished,
        }

    def on_event(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def snapshot(self, now_s: float) -> Snapshot:
        """The figures at `now_s` on the run's clock; after the run's end, those of its end. Takes about 0.1 ms."""
        begun, over = self._started, self._finished
        now_s = over.now_s if over else now_s
        elapsed_s = max(0.0, now_s - begun.now_s) if begun else 0.0
        rows = self._rows.figures(now_s, elapsed_s, self._limit)
        calls = self._calls.figures(now_s, elapsed_s)
        retry_kind, retry_in_s = self._calls.pause(now_s)
        return Snapshot(
            task=begun.task if begun else "",
            model=begun.model if begun else "",
            output=begun.output if begun else "",
            elapsed_s=elapsed_s,
            rows=rows,
            calls=calls,
            eta_s=None if over or self._stopping is not None else _eta_s(rows, elapsed_s, self._max_rows),
            waiting_for="" if over or begun is None else self._waiting_for(now_s),
            held_s=dict(sorted(self._held_s.items(), key=lambda item: -item[1])),
            retry_kind=retry_kind,
            retry_in_s=retry_in_s,
            slowest=self._rows.slowest(),
            errors=self._rows.errors(),
            models=dict(self._rows.models.most_common()),
            steps=self._calls.steps.figures(),
            stopping=self._stopping,
            exit_code=over.exit_code if over else None,
            message=over.message if over else "",
            continue_with=over.continue_with if over else "",
        )

    def _run_started(self, event: RunStarted) -> None:
        self._started = event
        self._limit = event.limit
        self._rows.rate.start(event.now_s)
        self._calls.rate.start(event.now_s)

    def _first_call(self, event: CallStarted) -> None:
        """Rates begin here: minutes of placing reused rows would make them, and the ETA, wrong for a while."""
        self._rows.rate.start(event.now_s)
        self._calls.rate.start(event.now_s)
        self._calls.started(event)
        self._handlers[CallStarted] = self._calls.started

    def _limit_changed(self, event: LimitChanged) -> None:
        self._limit = event.limit

    def _waited(self, event: Waited) -> None:
        self._gate = event.gate
        if self._started is not None and (reason := self._waiting_for(event.now_s)):
            self._held_s[reason] += event.seconds

    def _waiting_for(self, now_s: float) -> str:
        """A gate that holds calls up, as the last sample said; else what the counts say."""
        if self._gate is not None:
            return self._gate.value
        if self._calls.in_flight:
            return Gate.PROVIDER.value
        if self._calls.pause(now_s)[1] > 0.0:
            return Gate.RETRY.value
        if self._rows.in_flight:
            return Gate.LOCAL.value
        return "" if self._rows.all_read else Gate.INPUT.value

    def _run_stopping(self, event: Stopping) -> None:
        self._stopping = event.reason

    def _run_finished(self, event: RunFinished) -> None:
        self._finished = event


def _eta_s(rows: RowFigures, elapsed_s: float, max_rows: int | None) -> float | None:
    """Seconds until the last row, at the recent rate, and at least what a row takes; None while that would mislead.

    That is: while the input's size is unknown, before five rows ended, and while more rows are in flight than have
    ended (the first wave of a wide window would give an ETA many times too long), but the latter for 30 s at most.
    """
    if rows.left is None or rows.ended < ETA_ROWS or rows.per_s <= 0.0:
        return None
    if rows.ended < rows.in_flight and elapsed_s < ETA_SETTLED_S:
        return None
    left = rows.left if max_rows is None else min(rows.left, max(0, max_rows - rows.ended))
    eta_s = max(left / rows.per_s, rows.latency.p50_s or 0.0) if left else 0.0
    return eta_s if eta_s <= ETA_MAX_S else None


class _Rows:
    """Counts of rows."""

    def __init__(self) -> None:
        self.rate = RecentRate()
        self.models: Counter[str] = Counter()
        self.all_read = False
        self._plan = RowsPlanned()
        self._size: int | None = None
        self._passed_over = 0
        self._begun = 0
        self._done = 0
        self._failed = 0
        self._shared_failures = 0
        self._latency = Histogram()
        self._slow: list[tuple[float, int, str, str]] = []
        self._slow_floor_s = 0.0
        self._kinds: Counter[str] = Counter()
        self._examples: dict[str, tuple[str, str, str]] = {}

    def planned(self, event: RowsPlanned) -> None:
        so_far = self._plan
        self._plan = RowsPlanned(
            reused=so_far.reused + event.reused,
            failed_before=so_far.failed_before + event.failed_before,
            pending=so_far.pending + event.pending,
            gone=so_far.gone + event.gone,
        )

    def input_size(self, event: InputSize) -> None:
        self._size = event.rows

    def input_read(self, event: InputRead) -> None:
        self.all_read = True
        self._passed_over = event.passed_over
        if event.to_the_end or self._size is None:
            self._size = event.rows

    def started(self, event: RowsStarted) -> None:
        self._begun += event.count

    def finished(self, event: RowsFinished) -> None:
        outcomes = event.outcomes
        self.rate.add(event.now_s, len(outcomes))
        add_latency = self._latency.add
        models = self.models
        for outcome in outcomes:
            account = outcome.account
            latency_s = account.latency_s
            if type(outcome) is Done:
                self._done += 1
                add_latency(latency_s)
                model = account.model
                if model in models:
                    models[model] += 1
                elif model:
                    models[model if len(models) < MODELS else OTHER_MODELS] += 1
            elif type(outcome) is Failed:
                self._failed += 1
                self._count_error(outcome)
            if latency_s > self._slow_floor_s:
                self._keep_slow(latency_s, outcome)

    def shared(self, event: RowsShared) -> None:
        """Answered without a call, as reused rows are. Their failures are new; the example is that of the row that was run."""
        self.planned(RowsPlanned(reused=event.reused))
        for kind, count in event.failed.items():
            self._kinds[kind.value] += count
            self._shared_failures += count

    def _count_error(self, outcome: Failed) -> None:
        kind = outcome.failure.kind.value
        self._kinds[kind] += 1
        if kind not in self._examples:
            row, message = outcome.row, outcome.failure.message[:EXAMPLE_CHARS]
            self._examples[kind] = (row.id, row.place, message)

    def _keep_slow(self, latency_s: float, outcome: Outcome) -> None:
        """A heap with the fastest of the slow on top. Of equals the earlier row stays; the ordinal also breaks ties."""
        row = outcome.row
        entry = (latency_s, -row.ordinal, row.id, row.place)
        if len(self._slow) < SLOWEST:
            heapq.heappush(self._slow, entry)
        else:
            heapq.heapreplace(self._slow, entry)
        if len(self._slow) == SLOWEST:
            self._slow_floor_s = self._slow[0][0]

    def slowest(self) -> tuple[SlowRow, ...]:
        return tuple(
            SlowRow(row_id, place, latency_s) for latency_s, _, row_id, place in sorted(self._slow, reverse=True)
        )

    def errors(self) -> tuple[ErrorFigure, ...]:
        """Most frequent first."""
        return tuple(ErrorFigure(kind, count, *self._examples[kind]) for kind, count in self._kinds.most_common())

    @property
    def in_flight(self) -> int:
        return max(0, self._begun - self._done - self._failed)

    def figures(self, now_s: float, elapsed_s: float, window: int) -> RowFigures:
        plan = self._plan
        ended = self._done + self._failed
        settled = ended + self._shared_failures + plan.reused + plan.failed_before
        return RowFigures(
            total=self._size,
            done=self._done,
            reused=plan.reused,
            failed=self._failed + self._shared_failures,
            failed_before=plan.failed_before,
            left=None if self._size is None else max(0, self._size - settled),
            in_flight=self.in_flight,
            window=window,
            gone=plan.gone,
            passed_over=self._passed_over,
            per_s=self.rate.per_s(now_s),
            per_s_overall=ended / elapsed_s if elapsed_s else 0.0,
            latency=self._latency.percentiles(),
        )


class _Calls:
    """Counts of attempts, tokens and money."""

    def __init__(self) -> None:
        self.rate = RecentRate()
        self._begun = 0
        self._answered = 0
        self._failed = 0
        self._maybe_paid = 0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._known_cost_usd = 0.0
        self._unpriced = 0
        self._wire_s = 0.0
        self._latency = Histogram()
        self.steps = Steps()
        self._retries: Counter[str] = Counter()
        self._paused_s: defaultdict[str, float] = defaultdict(float)
        self._pause_ends_s = 0.0
        self._pause_kind = ""

    def started(self, _: CallStarted) -> None:
        self._begun += 1

    def ended(self, event: CallEnded) -> None:
        usage, cost_usd, failure = event.usage, event.cost_usd, event.failure
        if event.step != self.steps.only:
            self.steps.count(event, self._so_far)
        tokens = usage.prompt_tokens + usage.completion_tokens
        self._prompt_tokens += usage.prompt_tokens
        self._completion_tokens += usage.completion_tokens
        self._wire_s += event.latency_s
        self.rate.add(event.now_s, tokens)
        if cost_usd is not None:
            self._known_cost_usd += cost_usd
        if failure is None:
            self._answered += 1
            self._latency.add(event.latency_s)
            if cost_usd is None:
                self._unpriced += 1
        else:
            self._failed += 1
            self._maybe_paid += failure.maybe_paid

    def _so_far(self) -> StepCount:
        return StepCount(
            self._answered,
            self._failed,
            self._prompt_tokens,
            self._completion_tokens,
            self._known_cost_usd,
            self._unpriced,
            self._latency.copy(),
        )

    def waits(self, event: CallWaits) -> None:
        kind = event.failure.kind.value
        self._retries[kind] += 1
        self._paused_s[kind] += event.delay_s
        if event.now_s + event.delay_s > self._pause_ends_s:
            self._pause_ends_s = event.now_s + event.delay_s
            self._pause_kind = kind

    def pause(self, now_s: float) -> tuple[str, float]:
        """Why the pause that ends last is made, and how long it still takes: ("", 0.0) for none."""
        left_s = self._pause_ends_s - now_s
        return (self._pause_kind, left_s) if self._pause_kind and left_s > 0.0 else ("", 0.0)

    @property
    def in_flight(self) -> int:
        return max(0, self._begun - self._answered - self._failed)

    def figures(self, now_s: float, elapsed_s: float) -> CallFigures:
        tokens = self._prompt_tokens + self._completion_tokens
        return CallFigures(
            attempts=self._begun,
            answered=self._answered,
            failed=self._failed,
            in_flight=self.in_flight,
            maybe_paid=self._maybe_paid,
            retries=dict(self._retries.most_common()),
            waited_s={"provider": self._wire_s, **self._paused_s},
            latency=self._latency.percentiles(),
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            tokens_per_s=self.rate.per_s(now_s),
            tokens_per_s_overall=tokens / elapsed_s if elapsed_s else 0.0,
            known_cost_usd=self._known_cost_usd,
            unpriced=self._unpriced,
        )
