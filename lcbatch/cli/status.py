"""`lcbatch status OUT`: how an output stands, also while a run works on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from lcbatch import jsontext
from lcbatch.cli.found import Out, Store, lock_of, other_store, reading, store_of
from lcbatch.observers.format import clean_text
from lcbatch.observers.summary import held_text
from lcbatch.records import Json
from lcbatch.store.lock import holder_of
from lcbatch.store.reading import LastRun, Standing, last_run, standing

_EVERY_S = 1.0


def status(
    out: Out,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second until the run ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
    store: Store = None,
) -> int:
    """How an output stands: done, failed, left, and who works on it."""
    path = store_of(out, store)
    for figures in _readings(out, path, time.sleep if watch else None):
        text = jsontext.dumps(figures) if as_json else _text(figures)
        again = watch and not as_json and sys.stdout.isatty()
        typer.echo(f"\x1b[H\x1b[2J{text}" if again else text)
    return 0


def _readings(out: str, path: Path, sleep: Callable[[float], None] | None) -> Iterator[dict[str, Json]]:
    """The figures now; with `sleep`, again and again until nobody holds the output."""
    while True:
        holder = holder_of(lock_of(path))
        with reading(path) as connection:
            figures = _figures(standing(connection), last_run(connection), holder is not None, dict(holder or {}))
            yield {**figures, "note": other_store(connection, out, path)}
        if sleep is None or holder is None:
            return
        sleep(_EVERY_S)


def _figures(now: Standing, run: LastRun | None, running: bool, holder: dict[str, Json]) -> dict[str, Json]:  # noqa: FBT001 - private
    noted = (run.figures if run else None) or {}
    return {
        "rows": now.rows,
        "done": now.done,
        "failed": now.failed,
        "left": now.left,
        "failed_by_kind": now.kinds,
        "prompt_tokens": now.prompt_tokens,
        "completion_tokens": now.completion_tokens,
        "cost_usd": now.cost_usd,
        "spent_usd": now.spent_usd,
        "running": running,
        "pid": holder.get("pid"),
        "started_at": run.started_at if run else None,
        "ended_at": run.ended_at if run else None,
        "exit_code": run.exit_code if run else None,
        "command": run.command if run else None,
        "waiting_for": noted.get("waiting_for") if running else None,
        "held_s": noted.get("held_s", {}),
        "window": noted.get("rows", {}).get("window"),
        "rows_per_s": noted.get("recent_rows_per_s" if running else "rows_per_s"),
        "limits": noted.get("limits", {}),
    }


def _text(figures: dict[str, Json]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(figures["failed_by_kind"].items()))
    lines = [
        f"rows     {figures['done']:,} done, {figures['failed']:,} failed, {figures['left']:,} left of {figures['rows']:,}",
        f"tokens   {figures['prompt_tokens']:,} in, {figures['completion_tokens']:,} out",
        f"cost     ${figures['cost_usd']:.4f} for what stands, ${figures['spent_usd']:.4f} spent in all",
        f"run      {_run_text(figures)}",
    ]
    if figures["waiting_for"]:
        speed = f", {figures['rows_per_s']:g} rows/s" if figures["rows_per_s"] else ""
        lines.append(f"waiting  for {figures['waiting_for']}, {figures['window']} calls in flight at most{speed}")
    if held := held_text(figures["held_s"]):
        lines.append(f"held up  {held}")
    if kinds:
        lines.insert(1, f"failed   {kinds}")
    if figures["note"]:
        lines.append(f"note     {clean_text(figures['note'])}")
    if figures["command"]:
        lines.append(f"command  {clean_text(figures['command'])}")
    return "\n".join(lines)


def _run_text(figures: dict[str, Json]) -> str:
    if figures["started_at"] is None:
        return "none yet"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(figures["started_at"]))
    if figures["running"]:
        return f"working since {since}, process {figures['pid']}"
    if figures["ended_at"] is None:
        return f"cut off, began {since}; the same command continues"
    return f"began {since}, took {figures['ended_at'] - figures['started_at']:.1f} s, exit code {figures['exit_code']}"
