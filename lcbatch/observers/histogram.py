"""Percentiles in fixed memory, and a rate that forgets."""

from __future__ import annotations

import math

from lcbatch.observers.figures import Percentiles

RATIO = 1.04
"""Upper edge of a bucket over its lower edge. Its geometric middle is off by at most sqrt(1.04) - 1 = 1.98 %."""

SMALLEST_S = 1e-4
LARGEST_S = 1e5
_PER_LOG = 1.0 / math.log(RATIO)
_BUCKETS = math.ceil(math.log(LARGEST_S / SMALLEST_S) * _PER_LOG) + 1

_log = math.log


class Histogram:
    """Counts of durations in log-spaced buckets: 530 integers, whatever it is told.

    A quantile is the nearest-rank one, within 2 % for values of 0.1 ms to 100,000 s (28 h). Values beyond count in
    the outermost bucket, and no answer lies outside the smallest and largest value seen.
    """

    __slots__ = ("_counts", "_max_s", "_min_s", "count")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._min_s = math.inf
        self._max_s = 0.0
        self.count = 0

    def add(self, value_s: float) -> None:
        """Count one duration in seconds."""
        self.count += 1
        if value_s > self._max_s:  # noqa: PLR1730 - max() would cost a third of the whole call
            self._max_s = value_s
        if value_s < self._min_s:  # noqa: PLR1730
            self._min_s = value_s
        if value_s <= SMALLEST_S:
            self._counts[0] += 1
        elif value_s >= LARGEST_S:
            self._counts[-1] += 1
        else:
            self._counts[int(_log(value_s / SMALLEST_S) * _PER_LOG)] += 1

    def quantiles(self, *fractions: float) -> list[float | None]:
        """The values below which these fractions lie, in ascending order of fraction; None each while empty."""
        if not self.count:
            return [None] * len(fractions)
        ranks = [max(1, math.ceil(fraction * self.count)) for fraction in fractions]
        found: list[float | None] = []
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            while len(found) < len(ranks) and seen >= ranks[len(found)]:
                middle = SMALLEST_S * RATIO ** (bucket + 0.5)
                found.append(min(max(middle, self._min_s), self._max_s))
            if len(found) == len(ranks):
                break
        return found

    def copy(self) -> Histogram:
        """The same counts, to go on apart."""
        copy = Histogram()
        copy._counts = self._counts.copy()
        copy._max_s, copy._min_s, copy.count = self._max_s, self._min_s, self.count
        return copy

    def percentiles(self) -> Percentiles:
        p50_s, p95_s, p99_s = self.quantiles(0.50, 0.95, 0.99)
        return Percentiles(self.count, p50_s, p95_s, p99_s, self._max_s if self.count else None)


RECENT_S = 30.0
"""Time constant of recent rates. Shorter ones jump with every group commit, longer ones hide a throttle."""


class RecentRate:
    """Events per second with exponentially fading memory: an event counts 1/e after `RECENT_S`.

    Divided by the weight that the time since `start` could have gathered, so that the first seconds are not shown too
    low.
    """

    __slots__ = ("_faded", "_last_s", "_start_s")

    def __init__(self) -> None:
        self._faded = 0.0
        self._start_s = 0.0
        self._last_s = 0.0

    def start(self, now_s: float) -> None:
        """Begin anew: what came before does not count."""
        self._faded = 0.0
        self._start_s = self._last_s = now_s

    def add(self, now_s: float, amount: float) -> None:
        """Count `amount` at `now_s`. Events that come in the wrong order by a little are taken as simultaneous."""
        gone_s = now_s - self._last_s
        if gone_s > 0.0:
            self._faded *= math.exp(-gone_s / RECENT_S)
            self._last_s = now_s
        self._faded += amount

    def per_s(self, now_s: float) -> float:
        elapsed_s = now_s - self._start_s
        if elapsed_s <= 0.0:
            return 0.0
        faded = self._faded * math.exp(-max(0.0, now_s - self._last_s) / RECENT_S)
        return faded / (RECENT_S * -math.expm1(-elapsed_s / RECENT_S))
