"""How many calls are in flight: fixed, or found by itself.

The found limit follows throughput, never latency (which follows the length of the answers): it doubles as long as a doubling
pays, creeps after that, and is cut once for each episode of throttling. What holds the calls is in `provider.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

START = 4
"""Few enough that a wrong key or address costs no more than four requests."""

MOST = 1000

_GROWTH = 1.05
"""A step of the slow growth: small, since each step past the limit costs rejected requests."""

_CUT = 0.7
"""Deep enough to end an episode with one cut, shallow enough to win the loss back within eight clean rounds."""

_USED = 0.8
"""A limit that is not used says nothing about what more would bring."""

_PAYS = 1.05
"""A doubling that gives less throughput than this has met the server's own limit."""

_CLEARLY_PAYS = 1.4
"""Below it the round is measured for longer: a short round's throughput is a sample, not the truth."""

_LONGER = 5

_SPREAD = 0.5
"""Coefficient of variation that is assumed of latencies: throughput over n answers is known to about _SPREAD / sqrt(n)."""

_HOLD_S = 30.0
"""A found limit is tried again after this long, then after twice as long each time: servers grow, and samples err."""

_LONGEST_HOLD_S = 600.0

_COOLDOWN_S = 10.0
"""Requests already on their way report the same throttle again: within this time they are one episode."""

_FAULT_PAUSE_S = 5.0
"""A server in trouble gets no more load; its trouble is no reason to give up the load that it carried."""

_FAULT_COOLDOWN_S = 30.0
"""Where a third of all calls fails for hours, faults say nothing about the load: throughput does, and only answers count."""


class _Phase(Enum):
    DOUBLING = "doubling"
    CREEPING = "creeping"
    HELD = "held"


@dataclass(slots=True)
class _Round:
    """Completions under one limit. The first `limit` of them began under the one before, and are not measured."""

    limit: int
    skip: int
    wanted: int
    began_s: float | None = None
    answered: int = 0
    used: int = 0
    longer: bool = False
    throughput: float = 0.0

    def close(self, now_s: float) -> None:
        """Take the throughput, in answers a second."""
        self.throughput = self.answered / max(now_s - (self.began_s or 0.0), 1e-9)

    def pays_over(self, before: _Round) -> tuple[float, float]:
        """(gain over the round before, the least that would pay, given how little two samples say)."""
        doubt = _SPREAD * math.sqrt(1 / self.answered + 1 / before.answered)
        return self.throughput / before.throughput, _PAYS + doubt


@dataclass(slots=True)
class ConcurrencyPolicy:
    """The limit, and what changes it. Plain state; every method takes `now_s` and returns the reason of a change, if any."""

    least: int = 1
    most: int = MOST
    limit: int = START
    _phase: _Phase = _Phase.DOUBLING
    _before: _Round | None = None
    _hold_s: float = _HOLD_S
    _round: _Round = field(init=False)
    _quiet_until_s: float = -math.inf
    _cooldown_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.limit = max(self.least, min(self.limit, self.most))
        self._begin_round()

    @property
    def binds(self) -> bool:
        """Whether a higher limit would let more through, as far as is known: the user's own, or one that still grows."""
        return self.limit == self.most or self._phase is _Phase.DOUBLING

    def answered(self, in_flight: int, now_s: float) -> str | None:
        """A call was answered while `in_flight` calls were out (itself among them)."""
        round_ = self._round
        if round_.skip > 0:
            round_.skip -= 1
            return None
        if round_.began_s is None:
            round_.began_s = now_s
            return None
        round_.answered += 1
        round_.used += in_flight >= _USED * self.limit
        if round_.answered < round_.wanted:
            return None
        return self._round_over(now_s)

    def throttled(self, now_s: float, *, for_s: float = 0.0) -> str | None:
        """The provider said "slow down"; it is asked for nothing during `for_s`."""
        if now_s < self._cooldown_until_s:
            return None
        self._cooldown_until_s = now_s + for_s + _COOLDOWN_S
        self._phase = _Phase.CREEPING
        return self._change(int(self.limit * _CUT), "throttled")

    def faulted(self, now_s: float) -> None:
        """A 5xx or a timeout: no growth for a while, and this round does not count. Not all the time where they never end."""
        if now_s < self._quiet_until_s + _FAULT_COOLDOWN_S:
            return
        self._quiet_until_s = now_s + _FAULT_PAUSE_S
        self._begin_round()

    def ran_out(self, in_flight: int) -> str | None:
        """This machine had no open file or memory left for one of `in_flight` calls: the others are what it carries.

        Counted, and not cut by a share: a hundred calls that find this out together would cut a hundred times. It holds
        against a -j that asks for more, too.
        """
        self.most = max(1, min(self.most, in_flight - 1))
        self.least = min(self.least, self.most)
        return self._change(self.limit, "this machine's own limit")

    def _round_over(self, now_s: float) -> str | None:
        round_ = self._round
        round_.close(now_s)
        if now_s < self._quiet_until_s or round_.used < _USED * round_.answered:
            self._begin_round()
            return None
        if self._phase is _Phase.CREEPING:
            return self._change(max(self.limit + 1, int(self.limit * _GROWTH)), "a clean round")
        if self._phase is _Phase.HELD:
            return self._held(now_s)
        return self._doubled()

    def _doubled(self) -> str | None:
        """A round of the doubling is over: go on, measure for longer, or go back to where more brought nothing."""
        round_ = self._round
        if self._before is not None:
            gain, pays = round_.pays_over(self._before)
            if gain < _CLEARLY_PAYS and not round_.longer:
                round_.longer = True
                round_.wanted *= _LONGER
                return None
            if gain < pays:
                self._phase = _Phase.HELD
                return self._change(
                    self._before.limit, f"{self.limit} in flight gave no more than {self._before.limit}"
                )
        self._before = round_
        return self._change(self.limit * 2, "a clean round")

    def _held(self, now_s: float) -> str | None:
        """The limit is found; the round goes on as the measure of it, until it is time to try again."""
        round_ = self._round
        if now_s - (round_.began_s or 0.0) < self._hold_s:
            round_.wanted += self.limit
            return None
        self._hold_s = min(2 * self._hold_s, _LONGEST_HOLD_S)
        self._phase, self._before = _Phase.DOUBLING, round_
        return self._change(self.limit * 2, "trying for more")

    def _change(self, limit: int, reason: str) -> str | None:
        limit = max(self.least, min(limit, self.most))
        if limit == self.most and self._phase is _Phase.DOUBLING:
            self._phase = _Phase.CREEPING
        changed = limit != self.limit
        self.limit = limit
        self._begin_round()
        return reason if changed else None

    def _begin_round(self) -> None:
        self._round = _Round(limit=self.limit, skip=self.limit, wanted=max(self.limit, START * 3))


@dataclass(slots=True)
class PausePolicy:
    """One throttle stops everybody until its time, once: those that report it late do not start another.

    Without a time from the provider the pause doubles from 1 s with each episode that follows without an answer between.
    """

    until_s: float = 0.0
    _began_s: float = -1.0
    _episodes: int = 0

    def throttled(self, retry_after_s: float | None, *, sent_s: float, now_s: float) -> None:
        """A call sent at `sent_s` was throttled."""
        if sent_s <= self._began_s and retry_after_s is None:
            return
        wait_s = min(2.0**self._episodes, _LONGEST_PAUSE_S) if retry_after_s is None else retry_after_s
        if sent_s > self._began_s:
            self._episodes += 1
            self._began_s = now_s
        self.until_s = max(self.until_s, now_s + wait_s)

    def answered(self) -> None:
        """The provider answers again."""
        self._episodes = 0


_LONGEST_PAUSE_S = 60.0
