"""How long a provider asks to be left alone: from its headers, from Google's RetryInfo, or from the sentence that it says."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"\d{1,9}(\.\d+)?")
_SENTENCE = re.compile(
    r"(?:try again|retry)(?: in| after)? ((?:\d{1,9}(?:\.\d+)?(?:ms|[hms]))+|\d{1,9}(?:\.\d+)?(?= ?sec))(?![a-z])",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[hms]?)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def wait_asked(headers: Mapping[str, Any], body: Any, message: str, now_s: float) -> float | None:
    """Seconds to wait, None where nothing is asked for. The headers win over the body, the body over the sentence."""
    asked_s = retry_after(headers, now_s)
    if asked_s is None and isinstance(body, Mapping):
        asked_s = _retry_info(body)
    if asked_s is None and (match := _SENTENCE.search(message)) is not None:
        asked_s = _seconds(match[1])
    return asked_s


def retry_after(headers: Mapping[str, Any], now_s: float) -> float | None:
    """Seconds to wait from `retry-after-ms` or `retry-after` (seconds, or an HTTP date).

    A date is taken against the response's own `date`, as this machine's clock may be a day off; without one against Unix time
    `now_s`. None where there is none or it makes no sense (negative, garbage).
    """
    lowered = {str(name).lower(): str(value).strip() for name, value in headers.items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = lowered.get(name, "")
        if _NUMBER.fullmatch(value):
            return float(value) * unit_s
    until_s = _moment_s(lowered.get("retry-after", ""))
    if until_s is None:
        return None
    said_s = _moment_s(lowered.get("date", ""))
    wait_s = until_s - (now_s if said_s is None else said_s)
    return wait_s if wait_s >= 0 else None


def _moment_s(date: str) -> float | None:
    """An HTTP date in Unix time, None where it is none."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None  # the standard library's parser raises all of these on one garbage or another


def _retry_info(body: Mapping[str, Any]) -> float | None:
    """Google's: `details` hold a RetryInfo with `retryDelay` as `"30s"`."""
    details = body.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(delay, str) and re.fullmatch(r"\d{1,9}(\.\d+)?s", delay):
            return _seconds(delay)
    return None


def _seconds(text: str) -> float:
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text.lower()))
