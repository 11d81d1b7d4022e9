"""What is measured, and how repetitions become one figure. Plain values that travel as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One run of one contestant.

    `wall_s` and `cpu_s` (user and system, children that it waited for included) are of the whole process, from its start to its
    end; `start_s` is the time to its first request on the wire, None where none came. `peak_rss_mb` is the largest process of
    it in MB of 10^6 bytes. `problem` says why the run does not count.
    """

    scenario: str
    contestant: str
    rows: int
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    start_s: float | None = None
    connections: int = 0
    requests: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The medians of one contestant's runs in one scenario; `of` of them counted. None where nothing can be said."""

    scenario: str
    contestant: str
    rows: int
    of: int
    wall_s: float
    run_s: float
    start_s: float | None
    cpu_s: float
    peak_rss_mb: float
    connections: int
    problem: str | None

    @property
    def rows_a_second(self) -> float:
        """From the first request on to the end of the process."""
        return self.rows / self.run_s

    @property
    def rows_a_second_whole(self) -> float:
        """From the start of the process to its end."""
        return self.rows / self.wall_s

    @property
    def cpu_ms_a_row(self) -> float:
        """Of the whole process, its start included."""
        return 1000 * self.cpu_s / self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run of the harness: where, with what, and all that was measured."""

    when: str
    machine: Mapping[str, str]
    versions: Mapping[str, Mapping[str, str]]
    skipped: Mapping[str, str]
    quick: bool
    took_s: float
    measures: tuple[Measure, ...]

    def summary(self, scenario: str, contestant: str) -> Summary | None:
        """None where it did not run. Where no run counted, the last one with its problem."""
        runs = [m for m in self.measures if (m.scenario, m.contestant) == (scenario, contestant)]
        good = [m for m in runs if m.problem is None]
        return _summed(good or runs[-1:]) if runs else None

    def contestants(self, scenario: str) -> list[str]:
        """Those that ran in it, in the order of their first runs."""
        return list(dict.fromkeys(m.contestant for m in self.measures if m.scenario == scenario))

    def cpu_ms_a_row_beyond_start(self, scenario: str, contestant: str) -> float | None:
        """What one more row costs: the CPU of a long run less that of a run of a handful of rows."""
        long, short = self.summary(scenario, contestant), self.summary("start", contestant)
        if long is None or short is None or long.problem or short.problem or long.rows <= short.rows:
            return None
        return 1000 * (long.cpu_s - short.cpu_s) / (long.rows - short.rows)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """Raises OSError where there are none."""
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Results(**raw | {"measures": tuple(Measure(**one) for one in raw["measures"])})


def _summed(runs: list[Measure]) -> Summary:
    first = runs[0]
    starts = [m.start_s for m in runs if m.start_s is not None]
    return Summary(
        scenario=first.scenario,
        contestant=first.contestant,
        rows=first.rows,
        of=sum(m.problem is None for m in runs),
        wall_s=_median(runs, lambda m: m.wall_s),
        run_s=_median(runs, lambda m: m.wall_s - (m.start_s or 0.0)),
        start_s=statistics.median(starts) if starts else None,
        cpu_s=_median(runs, lambda m: m.cpu_s),
        peak_rss_mb=_median(runs, lambda m: m.peak_rss_mb),
        connections=round(_median(runs, lambda m: m.connections)),
        problem=first.problem,
    )


def _median(runs: Iterable[Measure], figure: Callable[[Measure], float]) -> float:
    return statistics.median(map(figure, runs))
