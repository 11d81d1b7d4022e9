"""Holds ratios inside one run against the targets: `python -m bench.gate [RESULTS.json]`.

Exit 0 when all that was measured is met, 1 with what misses. What was not measured is said and misses nothing.

Where a choice had to be made it is the one against us: our figures are of the whole process, start and end included; the CPU of
others is what a row costs beyond their start, their rows a second count from their first request.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.contestants import BY_NAME
from bench.measures import Measure, Results, Summary, load
from bench.report import RESULTS
from bench.scenarios import FIXED_5000, ideal_s

MOST_CPU_MS = 0.35
MOST_CPU_MS_OF_A_CHAIN = 0.45
LESS_THAN_ABATCH = 9
LEAST_ROWS_A_SECOND = 2_500
MOST_OF_RAW_SOCKETS = 1.06
LEAST_OF_IDEAL = 0.95
MOST_RSS_MB = 130
MOST_RSS_GROWTH = 1.05
"""From 100,000 rows to ten times as many: what is called flat."""
MOST_AGAIN_S = 30

ABATCH_CPU_MS = 3.3
"""Of LangChain's abatch, a row, where the targets were set. A machine on which that takes twice as long takes twice as long for a
row of ours: targets in ms and rows a second are held against what was found, taken at that pace."""

Verdict = Literal["met", "MISSED", "not measured"]


@dataclass(frozen=True, slots=True)
class Check:
    """One target, what was found, and whether it will do."""

    name: str
    found: str
    target: str
    verdict: Verdict


class NotMeasuredError(Exception):
    """Something that a check needs is not in the results, or failed; the message says what."""


def main(argv: Sequence[str]) -> int:
    results = load(Path(argv[0]) if argv else RESULTS / "results.json")
    checks = list(checked(results))
    for check in checks:
        sys.stdout.write(f"{check.verdict:13} {check.name}: {check.found} (target: {check.target})\n")
    return 1 if any(check.verdict == "MISSED" for check in checks) else 0


def checked(results: Results) -> Iterator[Check]:
    """Every target held against the results."""
    for check in _CHECKS:
        name, target, judge = check
        try:
            found, met = judge(results)
        except NotMeasuredError as exc:
            yield Check(name, str(exc), target, "not measured")
        else:
            yield Check(name, found, target, "met" if met else "MISSED")


def _of(results: Results, scenario: str, contestant: str) -> Summary:
    summary = results.summary(scenario, contestant)
    if summary is None:
        raise NotMeasuredError(f"no run of {contestant} in {scenario}")
    if summary.problem and BY_NAME[contestant].role != "ours":
        raise NotMeasuredError(f"{contestant} in {scenario}: {summary.problem}")
    return summary


Judgement = tuple[str, bool]


def _abatch_cpu_ms(results: Results) -> float:
    found = results.cpu_ms_a_row_beyond_start("zero-64", "abatch")
    if found is None:
        raise NotMeasuredError("no runs of abatch in zero-64 and start")
    return found


def _faster(results: Results) -> float:
    """How many times faster the machine was on which the targets were set; 1 where that was not measured."""
    return (results.cpu_ms_a_row_beyond_start("zero-64", "abatch") or ABATCH_CPU_MS) / ABATCH_CPU_MS


def _pace(results: Results, there: str) -> str:
    faster = _faster(results)
    return (
        "" if faster == 1.0 else f" with abatch at {faster * ABATCH_CPU_MS:.2f} ms, {there} with it at {ABATCH_CPU_MS}"
    )


def _cpu_of(results: Results, contestant: str, most_ms: float) -> Judgement:
    ours = _of(results, "zero-64", contestant)
    at_pace = ours.cpu_ms_a_row / _faster(results)
    return _good(ours, f"{ours.cpu_ms_a_row:.3f} ms{_pace(results, f'{at_pace:.3f} ms')}", at_pace <= most_ms)


def _cpu(results: Results) -> Judgement:
    return _cpu_of(results, "lcbatch", MOST_CPU_MS)


def _cpu_beside_abatch(results: Results) -> Judgement:
    ours, theirs = _of(results, "zero-64", "lcbatch"), _abatch_cpu_ms(results)
    ratio = theirs / ours.cpu_ms_a_row
    return _good(ours, f"abatch {theirs:.2f} ms, {ratio:.1f} times ours", ratio > LESS_THAN_ABATCH)


def _speed(results: Results) -> Judgement:
    ours = _of(results, "zero-64", "lcbatch")
    speed = ours.rows_a_second_whole
    at_pace = speed * _faster(results)
    return _good(ours, f"{speed:,.0f} rows/s{_pace(results, f'{at_pace:,.0f}')}", at_pace >= LEAST_ROWS_A_SECOND)


def _ahead(results: Results) -> Judgement:
    ours = _of(results, "zero-64", "lcbatch")
    speeds = {
        name: _of(results, "zero-64", name).rows_a_second
        for name in results.contestants("zero-64")
        if BY_NAME[name].role in {"langchain", "script", "peer"} and not _of_failed(results, name)
    }
    if not speeds:
        raise NotMeasuredError("no others in zero-64")
    best = max(speeds, key=lambda name: speeds[name])
    found = f"{ours.rows_a_second_whole:,.0f} rows/s, best of others {BY_NAME[best].title} {speeds[best]:,.0f}"
    return _good(ours, found, ours.rows_a_second_whole > speeds[best])


def _of_failed(results: Results, name: str) -> bool:
    summary = results.summary("zero-64", name)
    return summary is None or summary.problem is not None


def _latency(results: Results) -> Judgement:
    ours, floor = _of(results, "lognormal-1000", "lcbatch"), _of(results, "lognormal-1000", "raw-sockets")
    ratio = ours.run_s / floor.run_s
    found = f"{ours.run_s:.2f} s from first request to end, raw sockets {floor.run_s:.2f} s: {ratio:.3f}"
    return _good(ours, f"{found} (with start {ours.wall_s / floor.wall_s:.3f})", ratio <= MOST_OF_RAW_SOCKETS)


def _ideal(results: Results) -> Judgement:
    ours = _of(results, FIXED_5000.name, "lcbatch")
    ideal = ideal_s(FIXED_5000)
    share = ideal / ours.run_s
    return _good(ours, f"{share:.1%} ({ours.run_s:.1f} s, ideal {ideal:.1f} s)", share >= LEAST_OF_IDEAL)


def _connections(results: Results) -> Judgement:
    ours = _of(results, FIXED_5000.name, "lcbatch")
    return _good(ours, f"{ours.connections:,}", ours.connections <= FIXED_5000.concurrency)


def _chain(results: Results) -> Judgement:
    return _cpu_of(results, "lcbatch-chain", MOST_CPU_MS_OF_A_CHAIN)


def _start(results: Results) -> Judgement:
    """By the best of their runs: what disturbs a start can only make it later."""
    ours = [m.start_s for m in _good_runs(results, "start", "lcbatch") if m.start_s is not None]
    imported = [m.wall_s for m in _good_runs(results, "start", "import")]
    if not ours or not imported:
        raise NotMeasuredError("no runs of both in start")
    return f"{min(ours):.2f} s, the import {min(imported):.2f} s", min(ours) <= min(imported)


def _good_runs(results: Results, scenario: str, contestant: str) -> list[Measure]:
    return [m for m in results.measures if (m.scenario, m.contestant, m.problem) == (scenario, contestant, None)]


def _memory(results: Results) -> Judgement:
    ours = _of(results, "million", "lcbatch")
    return _good(ours, f"{ours.peak_rss_mb:.0f} MB", ours.peak_rss_mb <= MOST_RSS_MB)


def _flat(results: Results) -> Judgement:
    few, many = _of(results, "100k", "lcbatch"), _of(results, "million", "lcbatch")
    growth = many.peak_rss_mb / few.peak_rss_mb
    found = f"{few.peak_rss_mb:.0f} MB at 100,000 rows, {many.peak_rss_mb:.0f} MB at a million"
    return _good(many, found, growth <= MOST_RSS_GROWTH)


def _again(results: Results) -> Judgement:
    ours = _of(results, "million-again", "lcbatch")
    return _good(ours, f"{ours.wall_s:.1f} s, no call", ours.wall_s < MOST_AGAIN_S)


def _good(ours: Summary, found: str, met: bool) -> Judgement:  # noqa: FBT001 - a judgement is a bool
    """A run of ours that failed meets nothing."""
    return (f"failed: {ours.problem}", False) if ours.problem else (found, met)


_CHECKS: tuple[tuple[str, str, Callable[[Results], Judgement]], ...] = (
    ("CPU a row, whole process", f"at most {MOST_CPU_MS} ms", _cpu),
    ("CPU a row beside LangChain's abatch", f"below 1/{LESS_THAN_ABATCH}", _cpu_beside_abatch),
    ("rows a second on one core", f"at least {LEAST_ROWS_A_SECOND:,}", _speed),
    ("rows a second beside all others", "ahead", _ahead),
    ("5,000 calls of 1 s, 1,000 at once", f"at most {MOST_OF_RAW_SOCKETS} of raw sockets", _latency),
    ("5,000 at once in one process", f"at least {LEAST_OF_IDEAL:.0%} of ideal scheduling", _ideal),
    ("its connections", f"at most {FIXED_5000.concurrency:,}", _connections),
    ("CPU a row of a user's own chain", f"at most {MOST_CPU_MS_OF_A_CHAIN} ms", _chain),
    ("first request on the wire", "no later than a bare import langchain_openai", _start),
    ("peak memory of a million rows", f"at most {MOST_RSS_MB} MB", _memory),
    ("memory does not grow with the rows", f"at most {MOST_RSS_GROWTH - 1:.0%}", _flat),
    ("a million rows that are done already", f"under {MOST_AGAIN_S} s, no call", _again),
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
