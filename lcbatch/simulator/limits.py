"""Rate limits as providers keep them: continuously refilled buckets, and the headers that tell of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Literal

from lcbatch.simulator.choices import RateHeaders, RetryAfterForm


class Bucket:
    """A token bucket.

    Refilled at `per_minute` / 60 a second up to `burst_s` seconds' worth. `now` is any monotonic clock in seconds.
    """

    __slots__ = ("_level", "_rate", "_updated_s", "capacity", "per_minute")

    def __init__(self, per_minute: float, burst_s: float, now: float) -> None:
        self.per_minute = per_minute
        self._rate = per_minute / 60
        # A capacity below 1 would never let a single request through.
        self.capacity = max(1.0, self._rate * burst_s)
        self._level = self.capacity
        self._updated_s = now

    def level(self, now: float) -> float:
        """What can be taken now."""
        if now > self._updated_s:
            self._level = min(self.capacity, self._level + (now - self._updated_s) * self._rate)
            self._updated_s = now
        return self._level

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` can be taken; 0 if now; infinite if it never fits."""
        missing = amount - self.level(now)
        # Summing refills leaves errors of 1e-13 of the capacity, which must not refuse the last request that is due.
        if missing <= 1e-9 * self.capacity:
            return 0.0
        return missing / self._rate if amount <= self.capacity else math.inf

    def take(self, amount: float, now: float) -> None:
        """Take it; an empty bucket stays at zero."""
        self._level = max(0.0, self.level(now) - amount)

    def reset_s(self, now: float) -> float:
        """Seconds until it is full again."""
        return (self.capacity - self.level(now)) / self._rate

    def retuned(self, per_minute: float, burst_s: float, now: float) -> Bucket:
        """A bucket with another rate that holds what this one holds, as far as it fits."""
        bucket = Bucket(per_minute, burst_s, now)
        bucket._level = min(bucket.capacity, self.level(now))
        return bucket


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which limit a request ran into, and the seconds until it would pass (infinite: never)."""

    what: Literal["requests", "tokens", "concurrency"]
    limit: float
    requested: float
    wait_s: float


class Limiter:
    """The request and the token bucket together. A rate of 0 is no limit."""

    def __init__(self, rpm: float, tpm: float, burst_s: float, now: float) -> None:
        self._requests = Bucket(rpm, burst_s, now) if rpm else None
        self._tokens = Bucket(tpm, burst_s, now) if tpm else None

    def retune(self, rpm: float, tpm: float, burst_s: float, now: float) -> None:
        """Change the rates; what was used stays used."""
        requests, tokens = self._requests, self._tokens
        self._requests = _retuned(requests, rpm, burst_s, now)
        self._tokens = _retuned(tokens, tpm, burst_s, now)

    def admit(self, tokens: int, now: float, *, count_rejected: bool = False) -> Exceeded | None:
        """Take one request and its tokens, both or (unless `count_rejected`) neither."""
        requests, bucket = self._requests, self._tokens
        if requests is not None:
            wait_s = requests.wait_s(1, now)
            if wait_s:
                if count_rejected:
                    requests.take(1, now)
                return Exceeded("requests", requests.per_minute, 1, wait_s)
        if bucket is not None:
            wait_s = bucket.wait_s(tokens, now)
            if wait_s:
                if count_rejected and requests is not None:
                    requests.take(1, now)
                return Exceeded("tokens", bucket.per_minute, tokens, wait_s)
            bucket.take(tokens, now)
        if requests is not None:
            requests.take(1, now)
        return None

    def headers(self, style: RateHeaders, now: float, wall_s: float) -> bytes:
        """Header lines that tell what is left.

        `wall_s` is the same instant in Unix time, which Anthropic's form needs.
        """
        if style == "none":
            return b""
        lines = ""
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is None:
                continue
            limit, left, reset_s = int(bucket.per_minute), int(bucket.level(now)), bucket.reset_s(now)
            if style == "openai":
                lines += (
                    f"x-ratelimit-limit-{name}: {limit}\r\nx-ratelimit-remaining-{name}: {left}\r\n"
                    f"x-ratelimit-reset-{name}: {go_duration(reset_s)}\r\n"
                )
            else:
                reset = datetime.fromtimestamp(wall_s + reset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                lines += (
                    f"anthropic-ratelimit-{name}-limit: {limit}\r\nanthropic-ratelimit-{name}-remaining: {left}\r\n"
                    f"anthropic-ratelimit-{name}-reset: {reset}\r\n"
                )
        return lines.encode()


def _retuned(bucket: Bucket | None, per_minute: float, burst_s: float, now: float) -> Bucket | None:
    if not per_minute:
        return None
    return bucket.retuned(per_minute, burst_s, now) if bucket else Bucket(per_minute, burst_s, now)


def go_duration(seconds: float) -> str:
    """A duration as OpenAI writes it in x-ratelimit-reset-*: `0s`, `120ms`, `8.64s`, `6m0s`, `1h0m0s`."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms <= 0:
        return "0s"
    if seconds < 1:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    text = f"{ms / 1000:g}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"


def retry_after(form: RetryAfterForm, wait_s: float, wall_s: float) -> bytes:
    """The header lines that say to come back in `wait_s` seconds. `wall_s` is now, in Unix time."""
    if form == "absent" or math.isinf(wait_s):
        return b""
    whole = math.ceil(wait_s - 1e-9)
    exact = f"retry-after-ms: {math.ceil(wait_s * 1000 - 1e-6)}\r\n"
    lines = {
        "seconds": f"retry-after: {whole}\r\n",
        "ms": exact,
        "both": f"retry-after: {whole}\r\n{exact}",
        "date": f"retry-after: {formatdate(math.ceil(wall_s + wait_s), usegmt=True)}\r\n"
        f"date: {formatdate(math.floor(wall_s), usegmt=True)}\r\n",
        "garbage": "retry-after: soon\r\n",
        "negative": "retry-after: -5\r\n",
    }
    return lines[form].encode()
