"""What can go wrong: the verdict on a row (`Failure`, a value) and what ends a run (`LcbatchError`, raised).

LcbatchError                      1  a bug, or a base to catch
 +- UsageError                    2  the command line or the config file is wrong
 +- RowsFailed                    3  finished, some rows failed
 +- TooManyFailures               4  --max-failures
 +- MoneyStop                     8  provider quota, or --max-cost
 +- TimeIsUp                     10  --max-time
 +- RefusedError                 65  the chain changed, too many rows gone, the store is damaged
 +- InputMissing                 66  no such input, a folder without documents
 |   +- InputDamaged             66  what could not be read behind the rows that could
 +- ProviderUnreachable          69  nobody answers
 +- SystemLimit                  71  open files, memory
 +- CannotCreateOutput           73  the output cannot be created
 +- OutputFailed                 74  the output or the store cannot be written
 +- TryLater                     75  locked, or --max-wait passed
 +- AccessDenied                 77  401, 403
 +- ConfigError                  78  wrong model, URL, chain or template
 +- Interrupted          128+signal  HUP, INT, TERM, drained
 +- OutputClosed                141  whoever read stdout has gone
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """Why a row failed. Public and stable: `--kind`, the errors file and the summary use these names."""

    THROTTLE = "throttle"
    QUOTA = "quota"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER = "server"
    TRUNCATED = "truncated"
    BAD_BODY = "bad_body"
    PARSE = "parse"
    NO_TEXT = "no_text"
    BAD_ROW = "bad_row"
    LOCAL = "local"
    CHAIN = "chain"
    UNKNOWN = "unknown"


TRANSIENT = frozenset(
    {Kind.THROTTLE, Kind.TIMEOUT, Kind.CONNECTION, Kind.SERVER, Kind.TRUNCATED, Kind.BAD_BODY, Kind.LOCAL}
)
"""Kinds that a plain rerun tries again; all others are final until `lcbatch retry`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The verdict on one failed call or row.

    `retry_after_s` is what the provider asked for, in seconds from the moment of the verdict; `maybe_paid` says that the
    call may have been billed although no answer came; `outage` that the provider is given up, `budget` that the user's own
    cap is reached, and `untrusted` that who answers there is not known for the provider, which are the run's failures and not
    the row's. `page` says that a web page came in place of an answer.
    """

    kind: Kind
    message: str
    retry_after_s: float | None = None
    maybe_paid: bool = False
    status: int | None = None
    outage: bool = False
    budget: bool = False
    untrusted: bool = False
    page: bool = False


class CallFailed(Exception):
    """One model call failed for good. Travels through the user's chain as an exception, and becomes a failed row."""

    final: ClassVar[bool] = False
    """Whether trying again is pointless, whatever the kind says."""

    def __init__(self, failure: Failure, attempts: int = 1) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.attempts = attempts


class LcbatchError(Exception):
    """Ends a run. `hint` is one sentence that says what to do; `exit_code` is the process's."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LcbatchError):
    """The command line or the config file is wrong."""

    exit_code = 2


class RowsFailed(LcbatchError):
    """The run came to its end, and some rows failed."""

    exit_code = 3


class TooManyFailures(LcbatchError):
    """More rows failed than --max-failures allows."""

    exit_code = 4


class MoneyStop(LcbatchError):
    """The provider's quota or the user's cap is used up."""

    exit_code = 8


class TimeIsUp(LcbatchError):
    """--max-time has passed."""

    exit_code = 10


class RefusedError(LcbatchError):
    """Going on would damage what is there; nothing was touched."""

    exit_code = 65


class InputMissing(LcbatchError):
    """There is no such input, or nothing to read in it."""

    exit_code = 66


class InputDamaged(InputMissing):
    """Inputs that could not be read, or not to their ends; raised behind the last row of all that could be.

    What stands in them is unknown, so no row counts as gone from them.
    """


class ProviderUnreachable(LcbatchError):
    """Nobody answers at the provider's address."""

    exit_code = 69


class SystemLimit(LcbatchError):
    """The machine ran out of open files or memory."""

    exit_code = 71


OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Errors of the system that say nothing of the file or the address at hand: this machine has no more of something."""


def ran_out(what: str) -> SystemLimit:
    """The stop for an error of OUT_OF_RESOURCES."""
    return SystemLimit(what, hint="raise the limit (ulimit -n) or lower -j; the same command continues")


class CannotCreateOutput(LcbatchError):
    """The output or its store cannot be created."""

    exit_code = 73


class OutputFailed(LcbatchError):
    """Writing the output or the store failed."""

    exit_code = 74


class TryLater(LcbatchError):
    """Somebody else holds this output, or waiting took longer than --max-wait."""

    exit_code = 75


class AccessDenied(LcbatchError):
    """The provider refused the key."""

    exit_code = 77


class ConfigError(LcbatchError):
    """Model, URL, chain or template is wrong."""

    exit_code = 78


class OutputClosed(LcbatchError):
    """Whoever read our stdout has gone."""

    exit_code = 141


class Interrupted(LcbatchError):
    """A signal ended the run; what was in flight was drained."""

    def __init__(self, signal_number: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.signal_number = signal_number


def exit_code_of(error: LcbatchError) -> int:
    """The process's exit code for an error that ended a run."""
    return 128 + error.signal_number if isinstance(error, Interrupted) else error.exit_code


CONTINUABLE = frozenset({10, 69, 71, 74, 75, 129, 130, 141, 143})
"""Exit codes after which the same command again simply continues."""
