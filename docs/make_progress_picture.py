"""Draws docs/progress.svg: what the terminal showed two thirds through a real run against the simulator.

    python docs/make_progress_picture.py

Nothing in the picture is made up: rows are run by lcbatch itself, on a "terminal" that remembers what it was shown.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from lcbatch import Job
from lcbatch.app import Report, run_job
from lcbatch.observers import progress
from lcbatch.observers.figures import Snapshot
from lcbatch.simulator.process import SimulatorProcess
from lcbatch.world import library_world

PICTURE = Path(__file__).with_name("progress.svg")
COLUMNS = 100
ROWS, ROWS_BEFORE = 1200, 400
SHOWN_AT = 0.66
COMMAND = 'lcbatch run reviews.jsonl -m openai:sim -p "Classify the sentiment of: {text}" -j 64 -o out.jsonl'

THEME = TerminalTheme(
    (24, 26, 31),
    (214, 218, 224),
    [
        *((24, 26, 31), (224, 108, 117), (152, 195, 121), (209, 170, 102)),
        *((97, 175, 239), (198, 120, 221), (86, 182, 194), (171, 178, 191)),
    ],
)


def main() -> None:
    shown = record()
    at = next(snapshot for snapshot in shown if snapshot.rows.settled >= ROWS * SHOWN_AT)
    PICTURE.write_text(drawn(at), encoding="utf-8")


def record() -> Sequence[Snapshot]:
    """What the display was given to draw during the second of two runs, which finds rows of the first."""
    faults = {"500": 0.02, "filter": 0.004}
    with (
        SimulatorProcess(latency_s=0.8, latency_sigma=0.4, faults=faults, seed=3) as simulator,
        tempfile.TemporaryDirectory() as folder,
    ):
        rows = Path(folder, "reviews.jsonl")
        lines = [json.dumps({"text": f"Review number {n}"}) for n in range(ROWS)]
        rows.write_text("\n".join(lines), encoding="utf-8")
        job = Job.of(
            str(rows),
            output=str(Path(folder, "out.jsonl")),
            model="openai:sim",
            prompt="Classify the sentiment of: {text}",
            base_url=simulator.base_url,
            concurrency=64,
            progress="bar",
        )
        asyncio.run(run_on_terminal(replace(job, run=replace(job.run, limit=ROWS_BEFORE))))
        return asyncio.run(run_on_terminal(job))


async def run_on_terminal(job: Job) -> Sequence[Snapshot]:
    """Run a job with the display that a terminal gets; every snapshot that was drawn."""
    shown: list[Snapshot] = []
    draw = progress.render_progress

    def remember(snapshot: Snapshot, width: int) -> RenderableType:
        shown.append(snapshot)
        return draw(snapshot, width)

    progress.render_progress = remember
    try:
        report: Report = await run_job(job, replace(library_world(), stderr=io.StringIO(), stderr_is_terminal=True))
    finally:
        progress.render_progress = draw
    if report.snapshot.rows.done == 0:
        raise SystemExit(f"the run did not work: {report.error}")
    return shown


def drawn(snapshot: Snapshot) -> str:
    """The picture as SVG, with the fonts that the reader has: nothing is loaded from anywhere.

    `xml:space`: some renderers strip the blanks at the ends of each piece of text without it.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), COMMAND), soft_wrap=True)
    console.print(progress.render_progress(snapshot, COLUMNS))
    svg = console.export_svg(title="lcbatch", theme=THEME, unique_id="lcbatch")
    svg = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas")
    return svg.replace("<svg ", '<svg xml:space="preserve" ', 1) + "\n"


if __name__ == "__main__":
    main()
