"""How much of the torture runs: a part of it in `make test`, the whole in `make torture`, which also keeps the figures."""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

WHOLE = os.environ.get("TORTURE") == "whole"
"""Set by `make torture`."""

FIGURES = Path(__file__).parents[2] / ".venv" / "torture" / "figures.jsonl"
"""Where `make torture` gathers what was seen; docs/make_reliability.py makes docs/reliability.md of it."""


def cases(part: int, whole: int) -> int:
    """How many cases to run: `part` of them within `make test`, `whole` within `make torture`."""
    return whole if WHOLE else part


def most_in_a_second(times_s: Sequence[float]) -> int:
    """How many of these moments, which are sorted, lie within any one second."""
    return max(bisect_left(times_s, at_s + 1.0) - index for index, at_s in enumerate(times_s))


def note(case: str, target: str, seen: str) -> None:
    """Keep one line of docs/reliability.md: what was broken, what has to hold, and the figures that were seen."""
    if WHOLE:
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        with FIGURES.open("a") as file:
            file.write(json.dumps({"case": case, "target": target, "seen": seen}) + "\n")
