"""Runs a job for the command line: the event loop, the closing figures, the exit."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from lcbatch import jsontext
from lcbatch.app import Report, Retry, run_job
from lcbatch.cli.edge import say_error
from lcbatch.errors import CannotCreateOutput
from lcbatch.job import Job
from lcbatch.observers.summary import print_summary, summary_json
from lcbatch.outputs import AlreadyRunning
from lcbatch.world import World, process_world


def start(job: Job, retry: Retry | None = None) -> int:
    """Run the job; the exit code. A store that cannot be written ends the process here and now."""
    world = process_world(sys.argv[1:])
    try:
        report = _run(job, world, retry)
    except AlreadyRunning as error:
        say_error(error)
        return 0
    _close(job, report, world)
    if report.store_failed:
        sys.stderr.flush()
        os._exit(report.exit_code)
    return report.exit_code


def _run(job: Job, world: World, retry: Retry | None) -> Report:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(run_job(job, world, retry))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.Loop


def _close(job: Job, report: Report, world: World) -> None:
    """The closing figures, and what went wrong."""
    if job.display.summary_json is not None:
        path = Path(job.display.summary_json)
        try:
            path.write_text(jsontext.dumps(summary_json(report.snapshot)) + "\n", encoding="utf-8")
        except OSError as error:
            say_error(CannotCreateOutput(f"cannot write {path}: {error.strerror}"))
    nothing = report.error is not None and report.snapshot.rows.settled == 0 and report.snapshot.calls.attempts == 0
    if not nothing and not job.display.quiet and job.display.progress not in {"none", "json"}:
        errors = str(report.errors_path) if report.errors_path is not None else None
        print_summary(report.snapshot, world.stderr, is_terminal=world.stderr_is_terminal, errors_path=errors)
    if report.error is not None:
        say_error(report.error)
