"""When a run has to stop: going on would be pointless, or the user said so. Plain state, no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lcbatch.errors import (
    AccessDenied,
    ConfigError,
    Failure,
    Kind,
    LcbatchError,
    MoneyStop,
    ProviderUnreachable,
    SystemLimit,
    TooManyFailures,
    TryLater,
    UsageError,
)
from lcbatch.records import Done, Failed, Outcome

_ALIKE = 20
"""So many first rows failing alike are no coincidence."""

_ROWS_OWN = frozenset({Kind.BAD_ROW, Kind.NO_TEXT, Kind.CONTENT_FILTER, Kind.REFUSAL, Kind.CONTEXT_LENGTH, Kind.PARSE})
_LEAST_FOR_SHARE = 20


@dataclass(slots=True)
class StopRules:
    """Judges outcomes as they come. `hopeful` says that this store has seen a success before."""

    model: str
    max_failures: str | None = None
    hopeful: bool = False
    row_models: bool = False
    own_chain: bool = False
    stop: LcbatchError | None = None
    _done: int = 0
    _failed: int = 0
    _held: list[Failed] = field(default_factory=list)
    _settled: bool = False

    def judge(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """What is to be stored of these; sets `stop` when the run has to end.

        A row that failed for the run's own reason is left undone, so that the next run takes it up again.
        """
        kept: list[Outcome] = []
        for outcome in outcomes:
            if isinstance(outcome, Done):
                self._done += 1
                self.hopeful = True
                kept += self._release()
                kept.append(outcome)
            elif (error := self._fatal(outcome.failure)) is not None:
                self.stop = self.stop or error
            else:
                kept += self._failing(outcome)
        return kept

    def rest(self) -> list[Outcome]:
        """At the run's end: failures that were held back and turned out to be the rows' own."""
        return self._release()

    def _failing(self, outcome: Failed) -> list[Outcome]:
        self._failed += 1
        if self._too_many():
            self.stop = self.stop or TooManyFailures(
                f"{self._failed} of {self._done + self._failed} rows failed: --max-failures {self.max_failures} is reached",
                hint="look at the errors file; the same command goes on with the rest",
            )
        if self._settled or outcome.failure.kind in _ROWS_OWN:
            return [outcome]
        if self._held and _likeness(self._held[0].failure) != _likeness(outcome.failure):
            return [*self._release(), outcome]
        self._held.append(outcome)
        if len(self._held) >= _ALIKE and not self.stop:
            failure = outcome.failure
            self.stop = ConfigError(
                f"the first {_ALIKE} rows all failed alike: {failure.kind}: {failure.message}",
                hint="mend that and run the same command again; nothing was marked as failed",
            )
        return []

    def _release(self) -> list[Outcome]:
        """Let go of what was held. When the run stops because of it, these rows stay undone, whatever ends after that."""
        self._settled = True
        held, self._held = self._held, []
        return [] if isinstance(self.stop, ConfigError) else list(held)

    def _too_many(self) -> bool:
        limit = self.max_failures
        if limit is None:
            return False
        if limit.endswith("%"):
            seen = self._done + self._failed
            return seen >= _LEAST_FOR_SHARE and self._failed >= seen * float(limit[:-1]) / 100
        return self._failed >= int(limit)

    def _outage(self, failure: Failure) -> LcbatchError:
        if failure.kind is Kind.BAD_BODY:
            address = "the address that the chain gives its model" if self.own_chain else "--base-url"
            hint = f"is {address} right? It ends in /v1 for most"
            return ConfigError(f"what answers there is no model provider: {failure.message}", hint=hint)
        if self.hopeful:
            hint = "the same command continues when it is back; --outage-timeout gives it longer"
            return ProviderUnreachable(f"the provider is down: {failure.message}", hint=hint)
        address = "the address that the chain gives its model" if self.own_chain else "--base-url"
        hint = f"is it running, and is {address} right?"
        return ProviderUnreachable(f"nobody answers for {self.model}: {failure.message}", hint=hint)

    def _untrusted(self, said: str) -> LcbatchError:
        if "[SSL" in said and "CERTIFICATE_VERIFY" not in said:
            address = "the address that the chain gives its model" if self.own_chain else "--base-url"
            hint = f"does that port speak https? Look at {address}, and at a proxy in between"
            return ConfigError(f"there is no TLS with the provider: {said}", hint=hint)
        hint = "install ca-certificates, or point SSL_CERT_FILE at the authority that vouches for it"
        return ConfigError(f"the provider's TLS certificate is not trusted: {said}", hint=hint)

    def _fatal(self, failure: Failure) -> LcbatchError | None:
        said = failure.message
        if failure.outage:
            return self._outage(failure)
        if failure.untrusted:
            return self._untrusted(said)
        if failure.budget:
            return MoneyStop(said, hint="the same command goes on with a higher cap; what was answered is kept")
        match failure.kind:
            case Kind.QUOTA:
                return MoneyStop(f"the provider's quota is used up: {said}", hint="add credit, then run it again")
            case Kind.AUTH:
                hint = "look at the key's variable (--api-key-env) and at --base-url"
                if self.own_chain:
                    hint = "look at the key and the address that the chain gives its model"
                return AccessDenied(f"the provider refused the key: {said}", hint=hint)
            case Kind.NOT_FOUND if not self.row_models:
                hint = f"{self.model} is not served there: look at -m and --base-url"
                return ConfigError(f"the provider does not know that: {said}", hint=hint)
            case Kind.THROTTLE:
                hint = "the same command continues later; --max-wait gives it longer"
                return TryLater(f"throttled for too long: {said}", hint=hint)
            case Kind.LOCAL:
                hint = "raise the limit (ulimit -n) or lower -j; the same command continues"
                return SystemLimit(f"this machine ran out: {said}", hint=hint)
        return None


def check_max_failures(text: str | None) -> None:
    """Raise UsageError unless it reads `N` or `N%`."""
    if text is not None and not re.fullmatch(r"\d+|\d+(\.\d+)?%", text):
        raise UsageError(f"--max-failures cannot be {text!r}", hint="write it like 50 or 2%")


def check_fail_on(text: str) -> None:
    """Raise UsageError unless it reads any, new, N% or never."""
    if not re.fullmatch(r"any|new|never|\d+(\.\d+)?%", text):
        raise UsageError(f"--fail-on cannot be {text!r}", hint="any, new, never, or a share like 5%")


def fails(rule: str, *, failed_new: int, failed: int, rows: int) -> bool:
    """Whether a finished run counts as failed under --fail-on."""
    if rule == "never":
        return False
    if rule == "new":
        return failed_new > 0
    return failed > (rows * float(rule[:-1]) / 100 if rule.endswith("%") else 0)


def _likeness(failure: Failure) -> tuple[Kind, str]:
    """Kind and message without its numbers: request ids and positions differ from row to row."""
    return failure.kind, re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", failure.message[:1000])[:200]
