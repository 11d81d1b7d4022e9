# ruff: noqa: PLR2004 - the bounds are where rounding gives the next form; a name for each would say no more
"""Figures for people, and text from elsewhere made safe to show."""

from __future__ import annotations

import re

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_CENT = 0.01
_THOUSAND = 1000


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 row`, `12,345 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def compact(number: float) -> str:
    """`950`, `8.2k`, `45k`, `1.3M`, `2.0G`: three characters of figures where the exact count does not matter."""
    value = float(number)
    for suffix in ("", "k", "M", "G"):
        if value < 999.5 or suffix == "G":
            break
        value /= _THOUSAND
    return f"{value:.1f}{suffix}" if suffix and value < 9.95 else f"{value:,.0f}{suffix}"


def duration(seconds: float) -> str:
    """`0.4 ms`, `850 ms`, `3.2 s`, `42 s`, `2m40s`, `3h05m`, `2d04h`. A bound is where rounding gives the next form."""
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.1f} ms" if 0 < milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m{whole % _MINUTE_S:02d}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h{whole % _HOUR_S // _MINUTE_S:02d}m"
    return f"{whole // _DAY_S}d{whole % _DAY_S // _HOUR_S:02d}h"


def eta(seconds: float) -> str:
    """A duration in whole seconds, at least one: an estimate has no milliseconds."""
    return duration(max(1, round(seconds))).replace(".0 s", " s")


def dollars(usd: float) -> str:
    """`$0`, `<$0.0001`, `$0.0034`, `$0.12`, `$1,234`: never zero for what is not."""
    if usd == 0:
        return "$0"
    if usd < 0.0001:
        return "<$0.0001"
    if usd < _CENT:
        return f"${usd:.4f}"
    return f"${usd:,.2f}" if usd < _THOUSAND else f"${usd:,.0f}"


def rate(per_s: float) -> str:
    """`0`, `0.04`, `5.5`, `55.1`, `1,234`: without a unit."""
    if per_s < 0.005:
        return "0"
    if per_s < 0.995:
        return f"{per_s:.2f}"
    return f"{per_s:.1f}" if per_s < 99.95 else f"{per_s:,.0f}"


def percent(part: int, whole: int) -> str:
    """Rounded down, so that 100 % means all of it."""
    return f"{100 * part // whole if whole else 100} %"


_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC: all of it
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]"  # two-character escapes
)
_SPACE = re.compile(r"[\s\x00-\x1f\x7f\x85\u2028\u2029]+")
_INVISIBLE = re.compile(
    r"[\x80-\x84\x86-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean_text(text: str, limit: int = 200) -> str:
    """`text` on one line, safe for a terminal, at most `limit` characters.

    Escape sequences go with what they carry (an OSC could set the clipboard), control characters and line breaks
    become one space, direction marks and invisible tags go (they make a line read as another), lone surrogates become
    U+FFFD, which any encoding error handler survives.
    """
    visible = _ESCAPE_SEQUENCE.sub("", text[: 8 * limit])
    visible = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", visible))
    line = _SPACE.sub(" ", visible).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def clean_block(text: str) -> str:
    """`text` as safe for a terminal as `clean_text` makes it, with its spaces, tabs and line breaks."""
    visible = _INVISIBLE.sub("", _ESCAPE_SEQUENCE.sub("", text))
    return _CONTROL.sub("", _SURROGATE.sub("\ufffd", visible))
