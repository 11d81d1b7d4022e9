"""The circuit breaker: a provider that is down gets one probe at a time, and rows wait instead of failing.

States as in M. Nygard, "Release It!" (2007): closed, open, and half-open while one probe is out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lcbatch.errors import Failure, Kind

_DOWN = frozenset({Kind.CONNECTION, Kind.SERVER})
"""What a provider that is down looks like. A timeout is not among them: it may have been paid, and has its own two attempts."""


_TRIES_BEFORE_FIRST_SUCCESS = 3
_ROWS_BEFORE_FIRST_SUCCESS = 2
"""One row may draw bad bodies for ever from a provider that answers all others."""
_FAULTS_TO_OPEN = 4
_SILENCE_TO_OPEN_S = 2.0
"""Both are needed: four faults in a row happen by chance where a third of all calls fails, but then others succeed meanwhile."""

_FIRST_PROBE_S = 1.0
_LONGEST_PROBE_S = 60.0
_HOPELESS_S = 60.0
"""A server that answered nothing but errors since the start is given up after this long."""


class Asked(NamedTuple):
    """Whose call it was, and what it said: two equal rows say the same, and one row may say several things."""

    row: bytes = b""
    said: bytes = b""


@dataclass(slots=True)
class BreakerPolicy:
    """Whether the provider is taken to be down, and when to look again. Plain state.

    `hopeful` says that it has answered before, in this run or an earlier one; `outage_timeout_s` bounds an outage. `last` is
    the latest sign that nobody is there.
    """

    hopeful: bool
    outage_timeout_s: float = 3600.0
    open_since_s: float | None = None
    next_probe_s: float = 0.0
    gave_up: Failure | None = None
    last: Failure | None = None
    _in_a_row: int = 0
    _bad_for: set[Asked] = field(default_factory=set)
    _last_success_s: float | None = None
    _probe_wait_s: float = _FIRST_PROBE_S

    def answered(self, now_s: float) -> bool:
        """The provider gave an answer (a refusal is one, too); whether that ends an outage."""
        was_open = self.open_since_s is not None
        self.hopeful = True
        self._in_a_row = 0
        self._last_success_s = now_s
        self.open_since_s = None
        self._probe_wait_s = _FIRST_PROBE_S
        return was_open

    def bad_body(self, failure: Failure, asked: Asked, now_s: float) -> None:
        """Something came that is no answer, where none has come yet. It is the row's failure, until others draw the same."""
        self._bad_for.add(asked)
        self.last = replace(failure, outage=True)
        rows, said = (len({one[part] for one in self._bad_for}) for part in (0, 1))
        if min(rows, said) >= _ROWS_BEFORE_FIRST_SUCCESS:
            self.gave_up = self.last
        elif self.open_since_s is None:
            self._open(now_s)
        else:
            self.next_probe_s = max(self.next_probe_s, now_s + _FIRST_PROBE_S)

    def faulted(self, failure: Failure, now_s: float) -> bool:
        """A call met no provider; whether that begins an outage (or was a probe that prolongs it)."""
        self._in_a_row += 1
        self.last = replace(failure, outage=True)
        if self._is_elsewhere(failure) and self._in_a_row >= _TRIES_BEFORE_FIRST_SUCCESS:
            self.gave_up = self.last
            return False
        if self.open_since_s is not None:
            self._probe_failed(now_s)
            return False
        if self._is_elsewhere(failure):
            self._open(now_s)
            return False
        silent = self._last_success_s is None or now_s - self._last_success_s >= _SILENCE_TO_OPEN_S
        if failure.kind not in _DOWN or self._in_a_row < _FAULTS_TO_OPEN or not silent:
            return False
        self._open(now_s)
        return True

    def _open(self, now_s: float) -> None:
        self.open_since_s = now_s
        self.next_probe_s = now_s + self._probe_wait_s

    def _probe_failed(self, now_s: float) -> None:
        if now_s < self.next_probe_s:
            return  # a call that was under way when the breaker opened
        self._probe_wait_s = min(2 * self._probe_wait_s, _LONGEST_PROBE_S)
        self.next_probe_s = now_s + self._probe_wait_s
        patience_s = self.outage_timeout_s if self.hopeful else min(_HOPELESS_S, self.outage_timeout_s)
        if self.open_since_s is not None and now_s - self.open_since_s >= patience_s:
            self.gave_up = self.last

    def counts(self, failure: Failure) -> bool:
        """Whether a failure speaks of the provider's being down rather than of the call."""
        return failure.kind in _DOWN or self._is_elsewhere(failure)

    def _is_elsewhere(self, failure: Failure) -> bool:
        """Whether it looks like a wrong address: nobody there, or somebody else.

        Nobody there is an outage where an earlier run met the provider, and a bad body is a row's own there; a page instead of
        an answer, before this run has seen an answer, is neither. Asked for each row, it might be billed for each.
        """
        if self._last_success_s is not None or (self.hopeful and not failure.page):
            return False
        return failure.kind in {Kind.BAD_BODY, Kind.CONNECTION}
