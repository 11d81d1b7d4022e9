"""What a provider says about its limits in the headers of its answers, errors included.

OpenAI's form (also Azure's, Groq's, OpenRouter's): `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, reset as `6m0s`.
Anthropic's: `anthropic-ratelimit-{requests,tokens,input-tokens}-{limit,remaining,reset}`, reset as an RFC 3339 moment.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PART = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d)")
"""Bounded, since it is tried at every place: 8 kB of digits without a unit took two seconds."""
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?")


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit as the provider states it: `limit` a minute, `remaining` now, full again in `reset_s`. None: not said."""

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """A provider's limits on requests and on tokens."""

    requests: Allowance
    tokens: Allowance


def limits_of(headers: Mapping[str, str], now_s: float) -> Limits | None:
    """The limits in these headers, None where there are none. `now_s` is Unix time. Never raises."""
    lowered = {name.lower(): value.strip() for name, value in headers.items() if "ratelimit" in name.lower()}
    if not lowered:
        return None
    requests = _openai(lowered, "requests") or _anthropic(lowered, "requests", now_s)
    tokens = (
        _openai(lowered, "tokens") or _anthropic(lowered, "tokens", now_s) or _anthropic(lowered, "input-tokens", now_s)
    )
    if requests is None and tokens is None:
        return None
    return Limits(requests or Allowance(), tokens or Allowance())


def _openai(headers: Mapping[str, str], what: str) -> Allowance | None:
    found = Allowance(
        _number(headers.get(f"x-ratelimit-limit-{what}")),
        _number(headers.get(f"x-ratelimit-remaining-{what}")),
        _duration_s(headers.get(f"x-ratelimit-reset-{what}")),
    )
    return found if found != Allowance() else None


def _anthropic(headers: Mapping[str, str], what: str, now_s: float) -> Allowance | None:
    prefix = f"anthropic-ratelimit-{what}"
    found = Allowance(
        _number(headers.get(f"{prefix}-limit")),
        _number(headers.get(f"{prefix}-remaining")),
        _until_s(headers.get(f"{prefix}-reset"), now_s),
    )
    return found if found != Allowance() else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _duration_s(text: str | None) -> float | None:
    """`6m0s`, `120ms`, or a plain number of seconds."""
    if text is None:
        return None
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(float(number) * _UNITS_S[unit] for number, unit in parts))


def _until_s(text: str | None, now_s: float) -> float | None:
    """Seconds until an RFC 3339 moment, 0 for one that has passed."""
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, moment.timestamp() - now_s)
