from __future__ import annotations

import random
from collections import Counter

import pytest

from lcbatch.simulator import faults
from lcbatch.simulator.faults import FAULTS, FaultPicker, Window, marked_fault, parse_schedule


def picker(rates: tuple[tuple[str, float], ...] = (), schedule: tuple[str, ...] = (), seed: int = 0) -> FaultPicker:
    return FaultPicker(rates, schedule, random.Random(seed))  # noqa: S311  dice, no secrets


def test_a_schedule_reads_seconds_and_request_numbers() -> None:
    assert parse_schedule(["1.5-20:503-slow-down", "#5-#9:html@0.5", "#7:cut"]) == (
        Window(by_number=False, first=1.5, last=20, fault="503-slow-down", rate=1),
        Window(by_number=True, first=5, last=9, fault="html", rate=0.5),
        Window(by_number=True, first=7, last=7, fault="cut", rate=1),
    )


@pytest.mark.parametrize(
    "spec", ["", "5:500", "5-:500", "9-5:500", "1-2:nothing", "#1-2:500", "1-2:500@2", "1.2.3-4:500"]
)
def test_a_bad_schedule_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        parse_schedule([spec])


def test_a_window_in_seconds_excludes_its_end_and_one_in_numbers_does_not() -> None:
    seconds, numbers = parse_schedule(["1-2:500", "#1-#2:500"])
    assert [seconds.covers(at, 9) for at in (0.9, 1, 1.9, 2)] == [False, True, True, False]
    assert [numbers.covers(9, number) for number in (1, 2, 3)] == [True, True, False]


def test_markers_follow_each_other_attempt_by_attempt() -> None:
    text = "x [[fault:500:2]] y [[fault:nonsense]] [[fault:html:1]]"
    assert [marked_fault(text, attempt) for attempt in (1, 2, 3, 4)] == ["500", "500", "html", None]
    assert marked_fault("[[fault:cut]]", 99) == "cut"


def test_attempts_are_counted_for_each_request_by_itself() -> None:
    chosen = picker()
    text = "[[fault:500:1]]"
    assert [chosen.pick(text, digest, 0, 1) for digest in (b"a", b"b", b"a", b"b")] == ["500", "500", None, None]


def test_a_marker_beats_the_schedule_and_the_schedule_the_dice() -> None:
    chosen = picker((("html", 1.0),), ("#1-#2:503",))
    assert chosen.pick("[[fault:cut]]", b"a", 0, 1) == "cut"
    assert chosen.pick("", b"a", 0, 2) == "503"
    assert chosen.pick("", b"a", 0, 3) == "html"


def test_rates_are_kept_and_the_same_seed_gives_the_same_faults() -> None:
    rates = (("500", 0.2), ("html", 0.1))
    drawn = [picker(rates, seed=7).pick("", b"", 0, 1) for _ in range(3)]
    assert len(set(drawn)) == 1
    chosen = picker(rates)
    counts = Counter(chosen.pick("", b"", 0, number) for number in range(5000))
    assert counts["500"] == pytest.approx(1000, rel=0.1)
    assert counts["html"] == pytest.approx(500, rel=0.15)
    assert counts[None] == pytest.approx(3500, rel=0.1)


def test_the_table_in_the_docstring_names_every_fault() -> None:
    rows = [line.split("|")[1].strip() for line in (faults.__doc__ or "").splitlines() if line.startswith("|")]
    assert set(rows[2:]) == set(FAULTS)
