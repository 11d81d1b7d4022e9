"""What observers are told. All are frozen; times are seconds on the run's monotonic clock unless said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from lcbatch.errors import Failure, Kind
from lcbatch.records import Outcome, Usage


class Gate(StrEnum):
    """What keeps a run from going faster. Public: the progress display, the summary and `status` use these names."""

    PROVIDER = "provider"
    CONCURRENCY = "concurrency"
    RPM = "rpm"
    TPM = "tpm"
    PAUSE = "pause"
    OUTAGE = "outage"
    BUDGET = "budget"
    RETRY = "retry"
    CPU = "cpu"
    INPUT = "input"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run has its input, store and model. `model` is its label; `limit` is the window of rows."""

    now_s: float
    task: str
    model: str
    output: str
    limit: int


@dataclass(frozen=True, slots=True)
class RowsPlanned:
    """A batch of the input was placed.

    `reused` rows stand answered already, `failed_before` stand failed and are left so, `pending` will be run. `gone` rows
    are in the store and no longer in the input (known at the input's end only).
    """

    reused: int = 0
    failed_before: int = 0
    pending: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class InputRead:
    """The input has been read to its end (or to where the run stopped reading it): `rows` in all."""

    rows: int
    to_the_end: bool
    passed_over: int = 0


@dataclass(frozen=True, slots=True)
class InputSize:
    """How many rows the input holds, known before it is read."""

    rows: int


@dataclass(frozen=True, slots=True)
class RowsStarted:
    """Rows entered the window."""

    count: int


@dataclass(frozen=True, slots=True)
class RowsFinished:
    """Rows ended and are committed. One event carries all that were committed together."""

    now_s: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class RowsShared:
    """Rows stand with the outcome of an equal row that was run: `reused` answered, `failed` by kind of failure. Committed."""

    reused: int = 0
    failed: Mapping[Kind, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallStarted:
    """One attempt went on the wire."""

    now_s: float


@dataclass(frozen=True, slots=True)
class CallEnded:
    """One attempt ended: with an answer (`failure` is None) or without. `latency_s` is the attempt's own.

    `step` is the Request's: the part of the chain that asked.
    """

    now_s: float
    latency_s: float
    usage: Usage
    cost_usd: float | None
    failure: Failure | None
    step: str = ""


@dataclass(frozen=True, slots=True)
class CallWaits:
    """A call will be tried again after `delay_s`, because of `failure`."""

    now_s: float
    delay_s: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Waited:
    """A sample: for the last `seconds` calls were held up at `gate`. None: at none of theirs, whatever else there is."""

    now_s: float
    gate: Gate | None
    seconds: float


@dataclass(frozen=True, slots=True)
class LimitChanged:
    """The number of calls in flight is bounded anew; `reason` is one clause."""

    now_s: float
    limit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """No more rows are begun. `cancel` says that those in flight are cut off as well."""

    reason: str
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence for the user, said once; `always`: under -q too, since data leaves this machine."""

    text: str
    always: bool = False


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over and everything is on disk."""

    now_s: float
    exit_code: int
    message: str
    continue_with: str = ""


Event: TypeAlias = (
    RunStarted
    | RowsPlanned
    | InputRead
    | InputSize
    | RowsStarted
    | RowsFinished
    | RowsShared
    | CallStarted
    | CallEnded
    | CallWaits
    | Waited
    | LimitChanged
    | Stopping
    | Notice
    | RunFinished
)
