"""The figures of a run at one moment: frozen, small, and the only thing that displays and summaries read.

Money is in US dollars, times are in seconds, rates are per second. Tokens, cost and latency count the calls of *this*
run: a reused row adds none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Where most values lie; None each while `count` is 0. p50 to p99 are within 2 %, `max_s` is exact."""

    count: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float | None


@dataclass(frozen=True, slots=True)
class SlowRow:
    """One of the rows that took longest in this run, done or failed."""

    id: str
    place: str
    latency_s: float


@dataclass(frozen=True, slots=True)
class ErrorFigure:
    """How many rows of this run failed with this kind, and the first of them."""

    kind: str
    count: int
    id: str
    place: str
    message: str


@dataclass(frozen=True, slots=True)
class RowFigures:
    """Rows by outcome.

    `total` is None while the input's size is unknown, and `left` with it; `left` is what is still neither answered
    nor failed, rows in flight included. `window` is how many calls may be in flight (of the
    user's own chain: rows). `per_s` weighs the last 30 s most,
    `per_s_overall` is since the start; both count rows that ended in this run, done or failed. `latency` is of done
    rows.
    """

    total: int | None
    done: int
    reused: int
    failed: int
    failed_before: int
    left: int | None
    in_flight: int
    window: int
    gone: int
    passed_over: int
    per_s: float
    per_s_overall: float
    latency: Percentiles

    @property
    def answered(self) -> int:
        """Rows that stand answered, whenever that happened."""
        return self.done + self.reused

    @property
    def ended(self) -> int:
        """Rows that ended in this run."""
        return self.done + self.failed

    @property
    def settled(self) -> int:
        """Rows that need nothing more from this run."""
        return self.answered + self.failed + self.failed_before


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Model calls of this run, attempt by attempt.

    `attempts` went on the wire: `answered` came back with an answer, `failed` without one, `in_flight` are out.
    `maybe_paid` of the failed ones may have been billed. `retries` counts waits before another attempt by kind of
    failure. `waited_s` is in call-seconds: `provider` is time on the wire, the other keys are kinds of failure and
    the pauses that they caused (as announced: a pause that a stop cut short counts in full). `latency` is of answered
    attempts.

    `cost_usd` is None as soon as one answered call had no known price (`unpriced` of them); `known_cost_usd` is the
    rest.
    """

    attempts: int
    answered: int
    failed: int
    in_flight: int
    maybe_paid: int
    retries: Mapping[str, int]
    waited_s: Mapping[str, float]
    latency: Percentiles
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float
    tokens_per_s_overall: float
    known_cost_usd: float
    unpriced: int

    @property
    def cost_usd(self) -> float | None:
        return None if self.unpriced else self.known_cost_usd

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The calls of this run that one step of the chain made. Fields are as in CallFigures: `failed` are attempts, too."""

    answered: int
    failed: int
    latency: Percentiles
    prompt_tokens: int
    completion_tokens: int
    known_cost_usd: float
    unpriced: int

    @property
    def cost_usd(self) -> float | None:
        return None if self.unpriced else self.known_cost_usd


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The run at one moment.

    `model` is the label that was asked for, `models` what answered: rows by name. `waiting_for` is the name of an
    `events.Gate` (for `retry`, `retry_kind` says after what and `retry_in_s` how long still; `local` says that rows are
    in flight and no call is: reading, the user's chain, the disk) or `` (nothing); `held_s` are the seconds of the run
    by gate, longest first, as sampled. `steps` tells calls by the step of the chain that made them, in the order of their first
    answers; it is empty as long as there is only one. `eta_s` is None until it means something.
    `exit_code` is None while running.
    """

    task: str
    model: str
    output: str
    elapsed_s: float
    rows: RowFigures
    calls: CallFigures
    eta_s: float | None
    waiting_for: str
    held_s: Mapping[str, float]
    retry_kind: str
    retry_in_s: float
    slowest: tuple[SlowRow, ...]
    errors: tuple[ErrorFigure, ...]
    models: Mapping[str, int]
    steps: Mapping[str, StepFigures]
    stopping: str | None
    exit_code: int | None
    message: str
    continue_with: str

    @property
    def in_flight(self) -> int:
        """What the limit bounds: calls, or rows where the calls are not seen."""
        return self.calls.in_flight if self.calls.attempts else self.rows.in_flight
