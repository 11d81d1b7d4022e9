"""Requests and tokens a minute, kept to before the provider has to say no.

Each limit is a leaky bucket as a meter (ITU-T I.371, the generic cell rate algorithm): a call is let through at the moment when
all calls before it have been paid for at the allowed rate. That is first come, first served whatever the calls' sizes, so
that a large one is not starved by a stream of small ones. Tokens are reserved by an estimate and settled by the usage. What
waits for a limit is the provider's queue (`provider.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lcbatch.calls.limits import Allowance, limits_of
from lcbatch.errors import Failure, Kind
from lcbatch.events import Gate
from lcbatch.records import Json, Reply, Request

_SHARE = 0.99
"""Of a limit that was only read from headers: at its full rate every hiccup of the network would be a rejected request."""

_BURST_S = 1.0
"""How far calls may run ahead of the rate: enough to use what a pause of the machine left over."""

FIRST_OUTPUT_TOKENS = 256.0
"""Assumed of an answer before any was seen."""

CHARS_PER_TOKEN = 4.0
"""OpenAI's rule of thumb for English; languages in other scripts take more tokens, lists of numbers too."""

_MEMORY = 0.05
"""Weight of the newest usage in the estimates: some twenty calls are remembered."""


@dataclass(slots=True)
class Meter:
    """One limit. `per_s` None: not limited. Amounts are requests or tokens."""

    per_s: float | None = None
    fixed: bool = False
    _paid_until_s: float = 0.0

    @property
    def per_minute(self) -> float | None:
        """The limit that calls are kept to, a minute."""
        return None if self.per_s is None else self.per_s * 60.0

    def reserve(self, amount: float, now_s: float) -> float:
        """Take the amount; the seconds to wait until it may be used."""
        if self.per_s is None:
            return 0.0
        start_s = max(self._paid_until_s, now_s - _BURST_S)
        self._paid_until_s = start_s + amount / self.per_s
        return max(0.0, start_s - now_s)

    def give_back(self, amount: float) -> None:
        """Correct a reservation by what it was too much (or, negative, too little)."""
        if self.per_s is not None:
            self._paid_until_s -= amount / self.per_s

    def learn(self, allowance: Allowance, now_s: float) -> None:
        """Take up what the provider says, unless the user has said otherwise."""
        if self.fixed or not allowance.limit:
            return
        per_s = allowance.limit * _SHARE / 60.0
        if self.per_s is None:
            self._paid_until_s = now_s
        self.per_s = per_s
        if allowance.remaining is not None and allowance.remaining < per_s * _BURST_S:
            self._paid_until_s = max(self._paid_until_s, now_s)

    def holds_back(self, now_s: float) -> float:
        """Seconds by which calls are held back now."""
        return 0.0 if self.per_s is None else max(0.0, self._paid_until_s - now_s)


@dataclass(slots=True)
class Estimate:
    """Tokens of a call before it is made, calibrated on the usage of those before it."""

    tokens_per_char: float = 1.0 / CHARS_PER_TOKEN
    output_tokens: float = FIRST_OUTPUT_TOKENS
    _seen: int = 0

    def of(self, request: Request) -> float:
        """Prompt and answer together."""
        most = request.params.get("max_tokens")
        output = min(self.output_tokens, most) if isinstance(most, int) else self.output_tokens
        return max(1.0, _chars(request) * self.tokens_per_char + output)

    def learn(self, request: Request, reply: Reply) -> None:
        """Take up one call's usage; the first few count as the plain mean."""
        if not reply.usage.prompt_tokens:
            return
        self._seen += 1
        weight = max(_MEMORY, 1.0 / self._seen)
        per_char = reply.usage.prompt_tokens / max(1, _chars(request))
        self.tokens_per_char += weight * (per_char - self.tokens_per_char)
        self.output_tokens += weight * (reply.usage.completion_tokens - self.output_tokens)


class RateLimits:
    """The meters of one provider, and what they learn."""

    def __init__(self, *, rpm: float | None, tpm: float | None) -> None:
        self.requests = Meter(rpm / 60.0 if rpm else None, fixed=rpm is not None)
        self.tokens = Meter(tpm / 60.0 if tpm else None, fixed=tpm is not None)
        self.estimate = Estimate()

    def heard(self, headers: Mapping[str, str], now_s: float, unix_s: float) -> None:
        """Take up the limits in a response's headers."""
        limits = limits_of(headers, unix_s)
        if limits is not None:
            self.requests.learn(limits.requests, now_s)
            self.tokens.learn(limits.tokens, now_s)

    def known(self) -> Mapping[str, Json]:
        """The limits as they are known now, a minute; None where there is none or nobody said."""
        return {"rpm": self.requests.per_minute, "tpm": self.tokens.per_minute}

    def opens_in(self, now_s: float) -> tuple[float, Gate]:
        """(seconds until one more call may go out, which of the limits says so)."""
        for_requests_s, for_tokens_s = self.requests.holds_back(now_s), self.tokens.holds_back(now_s)
        return max(for_requests_s, for_tokens_s), Gate.RPM if for_requests_s >= for_tokens_s else Gate.TPM

    def too_large(self, request: Request) -> Failure | None:
        """The verdict on a request that no waiting can make fit."""
        limit = self.tokens.per_minute
        if limit is None or (tokens := self.estimate.of(request)) <= limit:
            return None
        return Failure(
            Kind.INVALID_REQUEST, f"about {tokens:.0f} tokens in one request, of {limit:.0f} allowed a minute"
        )

    def reserve(self, request: Request, now_s: float) -> float:
        """A call goes out: the tokens that are reserved for it."""
        tokens = self.estimate.of(request) if self.tokens.per_s is not None else 0.0
        self.requests.reserve(1.0, now_s)
        self.tokens.reserve(tokens, now_s)
        return tokens

    def settle(self, request: Request, reply: Reply | None, reserved: float) -> None:
        """The call is over: a failed one is taken not to have counted."""
        if reply is None:
            self.tokens.give_back(reserved)
            return
        used = reply.usage.prompt_tokens + reply.usage.completion_tokens
        if used:
            self.tokens.give_back(reserved - used)
        self.estimate.learn(request, reply)


def _chars(request: Request) -> int:
    return sum(_length(message) for message in request.messages)


def _length(value: Json) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_length(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(_length(inner) for inner in value)
    return 0
