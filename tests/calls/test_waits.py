"""How long a provider asks to be left alone, in every form that one has been seen to use."""

from __future__ import annotations

import email.utils
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.calls.waits import retry_after, wait_asked

_NOW_S = 1_760_000_000.0


def _at(seconds: float) -> str:
    """An HTTP date, so long after this machine's now."""
    return email.utils.formatdate(_NOW_S + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": " 0.25 "}, 0.25),
        ({"retry-after": "300"}, 300.0),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": email.utils.formatdate(_NOW_S + 90, usegmt=True)}, 90.0),
        ({"retry-after": email.utils.formatdate(_NOW_S - 90, usegmt=True)}, None),
        ({"retry-after": _at(90), "date": _at(0)}, 90.0),
        ({"Retry-After": _at(86_430), "Date": _at(86_400)}, 30.0),
        ({"retry-after": _at(-86_370), "date": _at(-86_400)}, 30.0),
        ({"retry-after": _at(0), "date": _at(30)}, None),
        ({"retry-after": _at(90), "date": "garbage"}, 90.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "garbage"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, None),
        ({}, None),
    ],
)
def test_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, _NOW_S) == (None if seconds is None else pytest.approx(seconds))


_DATES = st.datetimes().map(email.utils.format_datetime)
_VALUES = (
    st.text(max_size=30) | st.floats().map(str) | st.integers().map(str) | _DATES | st.none() | st.binary(max_size=9)
)


@given(st.dictionaries(st.sampled_from(["retry-after", "Retry-After-MS", "x"]), _VALUES), st.floats(0, 1e11))
def test_no_header_raises_or_asks_for_the_past(headers: dict[str, Any], now_s: float) -> None:
    wait_s = retry_after(headers, now_s)

    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Please try again in 20s. Visit https://platform.openai.com", 20.0),
        ("Please try again in 2.064s.", 2.064),
        ("Please try again in 120ms.", 0.12),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 1h12m30s.", 4350.0),
        ("Please retry after 26 seconds.", 26.0),
        ("Rate limit is exceeded. Try again in 1 second.", 1.0),
        ("Please retry in 31.2s.", 31.2),
        ("Please try again later.", None),
        ("try again in 5 days", None),
        ("try again in 3 attempts", None),
    ],
)
def test_sentences(said: str, seconds: float | None) -> None:
    assert wait_asked({}, None, said, _NOW_S) == (None if seconds is None else pytest.approx(seconds))


def test_headers_win_over_the_body_and_the_body_over_the_sentence() -> None:
    body = {"details": ["odd", {"retryDelay": 3}, {"retryDelay": "4s"}]}

    assert wait_asked({"retry-after": "5"}, body, "try again in 6s", _NOW_S) == 5.0
    assert wait_asked({"retry-after": "-5"}, body, "try again in 6s", _NOW_S) == 4.0
    assert wait_asked({}, {"details": "none"}, "try again in 6s", _NOW_S) == 6.0


@given(st.text(max_size=60))
def test_no_sentence_raises_or_asks_for_the_past(said: str) -> None:
    wait_s = wait_asked({}, {"details": [said, {"retryDelay": said}]}, f"try again in {said}", _NOW_S)

    assert wait_s is None or wait_s >= 0
