from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.observers import format as fmt


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.85, "850 ms"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
        (9.96, "10 s"),
        (42.4, "42 s"),
        (59.6, "1m00s"),
        (160, "2m40s"),
        (3599.7, "1h00m"),
        (11_100, "3h05m"),
        (86_399.9, "1d00h"),
        (187_300, "2d04h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0"),
        (0.00001, "<$0.0001"),
        (0.0034, "$0.0034"),
        (0.12, "$0.12"),
        (12.345, "$12.35"),
        (1234.5, "$1,234"),
    ],
)
def test_dollars(usd: float, text: str) -> None:
    assert fmt.dollars(usd) == text


@pytest.mark.parametrize(
    ("per_s", "text"), [(0, "0"), (0.04, "0.04"), (0.999, "1.0"), (5.5, "5.5"), (99.97, "100"), (1234.5, "1,234")]
)
def test_rates(per_s: float, text: str) -> None:
    assert fmt.rate(per_s) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (999.6, "1.0k"), (8_200, "8.2k"), (45_300, "45k"), (1_300_000, "1.3M"), (2e9, "2.0G")],
)
def test_compact_counts(number: float, text: str) -> None:
    assert fmt.compact(number) == text


def test_an_eta_has_whole_seconds_and_at_least_one() -> None:
    assert [fmt.eta(seconds) for seconds in (0.02, 6.6, 100.0)] == ["1 s", "7 s", "1m40s"]


def test_percent_is_100_only_for_all() -> None:
    assert [fmt.percent(9999, 10_000), fmt.percent(10, 10), fmt.percent(0, 0)] == ["99 %", "100 %", "100 %"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]not markup[/bold]", "plain [bold]not markup[/bold]"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]52;c;ZXZpbA==\x07clipboard", "clipboard"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("a\r\nb\tc\x00d", "a b c d"),
        ("right\u202eto left", "rightto left"),
        ("half \ud83d emoji", "half \ufffd emoji"),
        ("family \U0001f469\u200d\U0001f467", "family \U0001f469\u200d\U0001f467"),
        ("\x1b]0;never ended", "0;never ended"),
    ],
)
def test_text_from_elsewhere_is_made_safe(text: str, shown: str) -> None:
    assert fmt.clean_text(text) == shown


@given(st.text(max_size=300), st.integers(1, 100))
def test_clean_text_is_one_short_line_without_controls(text: str, limit: int) -> None:
    shown = fmt.clean_text(text, limit)
    assert len(shown) <= limit
    assert not any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in shown)


@given(st.text(max_size=300))
def test_clean_block_keeps_lines_and_nothing_else_that_controls(text: str) -> None:
    shown = fmt.clean_block(text)
    assert not any(unicodedata.category(char) in {"Cc", "Cs"} for char in shown if char not in "\n\t")


def test_clean_block_leaves_a_command_as_it_is() -> None:
    command = "lcbatch run -p 'two  spaces\n\tand a line'"
    assert fmt.clean_block(command) == command
