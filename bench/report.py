"""Results as Markdown tables and a picture; `python -m bench.report --write-docs` puts them into docs/performance.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import environments, plot
from bench.contestants import BY_NAME
from bench.measures import Results, Summary, load
from bench.scenarios import MILLION, SCENARIOS, START

RESULTS = environments.FOLDER / "results"
DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_SCENARIOS = {one.name: one for one in (*SCENARIOS, *MILLION)}
_START_COLUMNS = ("first request s", "whole run s", "CPU s", "peak MB", "runs")
_SPEED_COLUMNS = ("rows", "rows/s", "with start", "CPU ms a row", "with start", "peak MB", "connections", "runs")
_LATENCY_COLUMNS = ("calls", "s", "with start", "to raw sockets", "CPU ms a row", "peak MB", "connections", "runs")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Tables of the last run.")
    parser.add_argument("--write-docs", action="store_true", help="put tables and plot into docs/")
    options = parser.parse_args(argv)
    results = load(RESULTS / "results.json")
    text = markdown(results)
    if options.write_docs:
        page = DOCS / "performance.md"
        page.write_text(spliced(page.read_text(encoding="utf-8"), text), encoding="utf-8")
        (DOCS / "performance.svg").write_text(plot.drawn(results), encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0


def write(results: Results) -> str:
    """Save results, tables and plot; returns the tables."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    results.save(RESULTS / "results.json")
    text = markdown(results)
    (RESULTS / "table.md").write_text(text + "\n", encoding="utf-8")
    (RESULTS / "plot.svg").write_text(plot.drawn(results), encoding="utf-8")
    return text


def spliced(page: str, text: str) -> str:
    """The page with what stands between its markers replaced. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def markdown(results: Results) -> str:
    """All tables, and what they were measured on."""
    parts = [_preamble(results)]
    parts += [_table(results, name) for name in _SCENARIOS if results.contestants(name)]
    return "\n\n".join([*parts, _versions(results), *_skipped(results)])


def _preamble(results: Results) -> str:
    kind = "A quick run (fewer rows, one repetition)" if results.quick else "A run"
    machine = "; ".join(f"{key} {value}" for key, value in results.machine.items())
    return f"{kind} of {results.when}, {results.took_s / 60:.0f} minutes. {machine[0].upper()}{machine[1:]}."


def _table(results: Results, scenario: str) -> str:
    columns, row = _kind(scenario)
    lines = [f"### {_SCENARIOS[scenario].title}", "", _line(["contestant", *columns])]
    lines.append(_line(["---", *["---:"] * len(columns)]))
    for name in results.contestants(scenario):
        summary = results.summary(scenario, name)
        assert summary is not None
        title = f"**{BY_NAME[name].title}**" if BY_NAME[name].role == "ours" else BY_NAME[name].title
        cells = [f"failed: {summary.problem}"] if summary.problem else row(results, summary)
        lines.append(_line([title, *cells, *[""] * (len(columns) - len(cells))]))
    return "\n".join(lines)


def _kind(scenario: str) -> tuple[Sequence[str], Callable[[Results, Summary], list[str]]]:
    if scenario == START.name:
        return _START_COLUMNS, _start_row
    return (_LATENCY_COLUMNS, _latency_row) if _SCENARIOS[scenario].provider else (_SPEED_COLUMNS, _speed_row)


def _start_row(_: Results, summary: Summary) -> list[str]:
    start = "" if summary.start_s is None else f"{summary.start_s:.2f}"
    return [start, f"{summary.wall_s:.2f}", f"{summary.cpu_s:.2f}", f"{summary.peak_rss_mb:.0f}", str(summary.of)]


def _speed_row(results: Results, summary: Summary) -> list[str]:
    more = results.cpu_ms_a_row_beyond_start(summary.scenario, summary.contestant)
    return [
        f"{summary.rows:,}",
        f"{summary.rows_a_second:,.0f}",
        f"{summary.rows_a_second_whole:,.0f}",
        "" if more is None else f"{more:.3f}",
        f"{summary.cpu_ms_a_row:.3f}",
        *_resources(summary),
    ]


def _latency_row(results: Results, summary: Summary) -> list[str]:
    floor = results.summary(summary.scenario, "raw-sockets")
    ratio = summary.run_s / floor.run_s if floor and not floor.problem else None
    return [
        f"{summary.rows:,}",
        f"{summary.run_s:.2f}",
        f"{summary.wall_s:.2f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{summary.cpu_ms_a_row:.3f}",
        *_resources(summary),
    ]


def _resources(summary: Summary) -> list[str]:
    return [f"{summary.peak_rss_mb:.0f}", f"{summary.connections:,}", str(summary.of)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _versions(results: Results) -> str:
    """Those that share lcbatch's environment on one line, each peer on its own."""
    shared: dict[str, str] = {}
    lines: list[str] = []
    for name, found in results.versions.items():
        if BY_NAME[name].environment is None:
            shared |= found
        else:
            lines.append(f"- {BY_NAME[name].title}: {_listed(found)}")
    return "\n".join(["### Versions", "", f"- in lcbatch's environment: {_listed(shared)}", *lines])


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def _skipped(results: Results) -> list[str]:
    if not results.skipped:
        return []
    return ["\n".join(["### Not run", "", *(f"- {BY_NAME[n].title}: {why}" for n, why in results.skipped.items())])]


if __name__ == "__main__":
    sys.exit(main())
