"""Writes the table of docs/reliability.md from what `make torture` saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "reliability.md"
FIGURES = Path(__file__).parents[1] / ".venv" / "torture" / "figures.jsonl"
_BEGIN, _END = "<!-- figures -->\n", "<!-- /figures -->\n"


def main() -> None:
    """Put the last figures of each case into the page."""
    if not FIGURES.exists():
        sys.exit("no figures yet: run `make torture` first")
    found: dict[str, list[dict[str, str]]] = {}
    for one in map(json.loads, FIGURES.read_text().splitlines()):
        found.setdefault(one["case"], []).append(one)
    lines = ["| case | what has to hold | seen |", "| --- | --- | --- |"]
    for case, runs in found.items():
        seen = runs[-1]["seen"] if len(runs) == 1 else f"{len(runs)} runs held; the last: {runs[-1]['seen']}"
        lines.append(f"| {case} | {runs[-1]['target']} | {seen} |")
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(before + _BEGIN + "\n".join(lines) + "\n" + _END + after)


if __name__ == "__main__":
    main()
