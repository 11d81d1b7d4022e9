"""Counters of a simulator. The only place where anything is counted, except the ledger's sums."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, Final

_SECONDS: Final = 60
# Distinct Authorization headers kept; more than that is a fuzzer, and must not eat memory.
_MAX_KEYS: Final = 1000


class Stats:
    """What has come in. `now` is the server's monotonic clock in seconds."""

    def __init__(self, now: float) -> None:
        self._started_s = now
        self._second = int(now)
        self._by_second = [0] * _SECONDS
        self._keys: set[str] = set()
        self.requests = 0
        self.first_request_at_s: float | None = None
        self.in_flight = 0
        self.in_flight_peak = 0
        self.connections = 0
        self.connections_now = 0
        self.rejected: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def arrived(self, now: float) -> int:
        """Count a model request; returns its number, from 1."""
        second = int(now)
        if second != self._second:
            self._roll(second)
        self._by_second[second % _SECONDS] += 1
        if self.first_request_at_s is None:
            self.first_request_at_s = now
        self.requests += 1
        return self.requests

    def started(self) -> None:
        """A request was admitted."""
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def saw_key(self, authorization: str) -> None:
        """Remember an Authorization header, hashed."""
        if len(self._keys) < _MAX_KEYS:
            self._keys.add(hashlib.sha256(authorization.encode()).hexdigest()[:16])

    def as_json(self, now: float) -> dict[str, Any]:
        """All counters. `requests_by_second` ends with the current second and covers the last minute.

        `first_request_at_s` is on the server's monotonic clock, which a client on the same machine shares.
        """
        self._roll(int(now))
        place = (self._second + 1) % _SECONDS
        return {
            "uptime_s": now - self._started_s,
            "requests": self.requests,
            "first_request_at_s": self.first_request_at_s,
            "rejected": dict(self.rejected),
            "faults": dict(self.faults),
            "in_flight": self.in_flight,
            "in_flight_peak": self.in_flight_peak,
            "connections": self.connections,
            "connections_now": self.connections_now,
            "requests_by_second": self._by_second[place:] + self._by_second[:place],
            "authorization_sha256": sorted(self._keys),
        }

    def _roll(self, second: int) -> None:
        for passed in range(self._second + 1, min(second, self._second + _SECONDS) + 1):
            self._by_second[passed % _SECONDS] = 0
        self._second = max(second, self._second)
