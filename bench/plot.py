"""The picture of a run: one row a contestant, one panel a figure. Plain SVG; white ground, so that it reads on dark pages too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bench.contestants import BY_NAME
from bench.measures import Results, Summary

_NAMES_WIDTH = 236
_PANEL_WIDTH, _PANEL_GAP = 172, 26
_LABEL_WIDTH = 46
_ROW_HEIGHT, _BAR_HEIGHT = 24, 14
_TOP, _BOTTOM, _MARGIN = 74, 44, 20
_LEAST_BAR = 2.0
_FILL = {"ours": "#1f6feb", "floor": "#c9d1d9"}
_OTHERS = "#8c96a3"
_INK, _FAINT = "#1f2328", "#656d76"
_FONT = "font-family='-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of every contestant that has it. `logarithmic` where they are worlds apart."""

    title: str
    note: str
    values: Mapping[str, float]
    shown: Callable[[float], str]
    logarithmic: bool

    def length(self, name: str) -> float:
        """The bar's, as a share of the longest. A logarithmic one begins at half of the least value."""
        longest = max(self.values.values())
        if not self.logarithmic:
            return self.values[name] / longest
        least = min(self.values.values()) / 2
        return math.log(self.values[name] / least) / math.log(longest / least)


def drawn(results: Results) -> str:
    """The picture as SVG; with no run that counts it says so."""
    panels = [panel for panel in _panels(results) if panel.values]
    names = _ordered(panels)
    width = 2 * _MARGIN + _NAMES_WIDTH + len(panels) * (_PANEL_WIDTH + _PANEL_GAP) - _PANEL_GAP
    height = _TOP + max(1, len(names)) * _ROW_HEIGHT + _BOTTOM
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' {_FONT}>",
        f"<rect width='{width}' height='{height}' rx='6' fill='#ffffff'/>",
        *_stripes(len(names), width),
        *(_name(name, place) for place, name in enumerate(names)),
    ]
    for number, panel in enumerate(panels):
        left = _MARGIN + _NAMES_WIDTH + number * (_PANEL_WIDTH + _PANEL_GAP)
        parts += _panel(panel, names, left)
    foot = f"lcbatch's bench, {results.when}. Light grey: limits that parse and keep nothing."
    parts.append(_text(_MARGIN, height - 18, foot if panels else "No run counted.", 11, _FAINT))
    return "\n".join([*parts, "</svg>", ""])


def _panels(results: Results) -> list[Panel]:
    def of(scenario: str, figure: Callable[[Summary], float]) -> dict[str, float]:
        summaries = [results.summary(scenario, name) for name in results.contestants(scenario)]
        return {one.contestant: figure(one) for one in summaries if one and not one.problem}

    costs = {
        name: results.cpu_ms_a_row_beyond_start("zero-64", name)
        for name in of("zero-64", lambda summary: summary.cpu_s)
    }
    cost = {name: value for name, value in costs.items() if value is not None and value > 0}
    return [
        Panel("CPU a row", "ms, beyond start; log scale", cost, _figure, logarithmic=True),
        Panel("Rows a second", "one core, no latency; log", of("zero-64", _speed), _thousands, logarithmic=True),
        Panel("5,000 calls of 1 s", "s, 1,000 at once", of("lognormal-1000", _run_s), _figure, logarithmic=False),
        Panel("Peak memory", "MB, no latency, 64 at once", of("zero-64", _memory), _thousands, logarithmic=False),
    ]


def _speed(summary: Summary) -> float:
    return summary.rows_a_second


def _run_s(summary: Summary) -> float:
    return summary.run_s


def _memory(summary: Summary) -> float:
    return summary.peak_rss_mb


def _ordered(panels: Sequence[Panel]) -> list[str]:
    """By the first panel that has them, least first; limits stand before all."""
    names = list(dict.fromkeys(name for panel in panels for name in sorted(panel.values, key=panel.values.__getitem__)))
    return sorted(names, key=lambda name: BY_NAME[name].role != "floor")


def _panel(panel: Panel, names: Sequence[str], left: float) -> list[str]:
    parts = [_text(left, 34, panel.title, 13, _INK, bold=True), _text(left, 52, panel.note, 11, _FAINT)]
    for place, name in enumerate(names):
        if name not in panel.values:
            continue
        top = _TOP + place * _ROW_HEIGHT + (_ROW_HEIGHT - _BAR_HEIGHT) / 2
        length = max(_LEAST_BAR, panel.length(name) * (_PANEL_WIDTH - _LABEL_WIDTH))
        fill = _FILL.get(BY_NAME[name].role, _OTHERS)
        parts.append(
            f"<rect x='{left}' y='{top:.1f}' width='{length:.1f}' height='{_BAR_HEIGHT}' rx='2' fill='{fill}'/>"
        )
        value = panel.shown(panel.values[name])
        bold = BY_NAME[name].role == "ours"
        parts.append(_text(left + length + 5, top + _BAR_HEIGHT - 3, value, 11, _INK, bold=bold))
    return parts


def _stripes(count: int, width: float) -> list[str]:
    return [
        f"<rect x='0' y='{_TOP + place * _ROW_HEIGHT}' width='{width}' height='{_ROW_HEIGHT}' fill='#f6f8fa'/>"
        for place in range(0, count, 2)
    ]


def _name(name: str, place: int) -> str:
    baseline = _TOP + place * _ROW_HEIGHT + _ROW_HEIGHT / 2 + 4
    return _text(_MARGIN, baseline, BY_NAME[name].title, 12, _INK, bold=BY_NAME[name].role == "ours")


def _text(x: float, y: float, text: str, size: int, fill: str, *, bold: bool = False) -> str:
    weight = " font-weight='600'" if bold else ""
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{fill}'{weight}>{escape(text)}</text>"


def _figure(value: float) -> str:
    """Three digits, as `0.014`, `0.35`, `9.07` and `27.7`."""
    digits = 3 if value < 0.1 else 2 if value < 10 else 1  # noqa: PLR2004 - what the docstring shows
    return f"{value:.{digits}f}"


def _thousands(value: float) -> str:
    return f"{value:,.0f}"
