"""Runs a job for the command line: the event loop, the closing figures, the exit."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, TypeVar

from lcbatch import jsontext
from lcbatch.app import Report, run_job
from lcbatch.cli.edge import say_error
from lcbatch.errors import CannotCreateOutput
from lcbatch.job import Job
from lcbatch.observers.summary import print_summary, summary_json
from lcbatch.openfiles import raise_limit
from lcbatch.outputs import AlreadyRunning
from lcbatch.records import Json
from lcbatch.retrying import Retry
from lcbatch.world import World, process_world

T = TypeVar("T")


def start(job: Job, retry: Retry | None = None) -> int:
    """Run the job, or only say what it would do; the exit code.

    A store that cannot be written ends the process here and now.
    """
    raise_limit()
    world = process_world(sys.argv[1:])
    if job.run.dry_run:
        try:
            return _rehearse(job, world)
        except AlreadyRunning as error:
            say_error(error)
            return 0
    return carry_out(job, world, lambda: run_job(job, world, retry))


def carry_out(job: Job, world: World, work: Callable[[], Coroutine[Any, Any, Report]]) -> int:
    """Do a job's work to its end, and say how it ended; the exit code."""
    try:
        # What a user's chain prints is no output of ours, and fails as it always did.
        with redirect_stdout(sys.__stdout__):
            report = _in_loop(work())
    except AlreadyRunning as error:
        say_error(error)
        return 0
    written = _close(job, report, world)
    if report.store_failed:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(report.exit_code)
    return report.exit_code or written


def _rehearse(job: Job, world: World) -> int:
    """Call nothing. Where the run itself would refuse, the exit code is that refusal's."""
    from lcbatch.dry_run import dry_run  # noqa: PLC0415 - a run needs none of it
    from lcbatch.observers.outlook import outlook_json, outlook_text  # noqa: PLC0415

    outlook = dry_run(job, world, _in_loop)
    written = _write_figures(job, outlook_json(outlook))
    sys.stdout.write(outlook_text(outlook))
    return outlook.exit_code or written


def _in_loop(work: Coroutine[Any, Any, T]) -> T:
    made: list[T] = []

    async def make() -> None:
        made.append(await work)

    # Not as the task's result: Python 3.11 writes out the repr of a finished run's task, to throw it away, and what a dry run
    # found has all of the sampled rows in it.
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(make())
    return made[0]


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.Loop


def _close(job: Job, report: Report, world: World) -> int:
    """The closing figures, and what went wrong; the exit code of --summary-json.

    Where nobody is left to read them (the terminal was closed), the run's own end counts all the same.
    """
    written = _write_figures(job, summary_json(report.snapshot))
    nothing = report.error is not None and report.snapshot.rows.settled == 0 and report.snapshot.calls.attempts == 0
    if not nothing and not job.display.quiet and job.display.progress not in {"none", "json"}:
        errors = str(report.errors_path) if report.errors_path is not None else None
        with suppress(OSError):
            print_summary(report.snapshot, world.stderr, is_terminal=world.stderr_is_terminal, errors_path=errors)
    if report.error is not None:
        if job.display.debug:
            with suppress(OSError):
                traceback.print_exception(report.error)
        say_error(report.error)
    return written


def _write_figures(job: Job, figures: Mapping[str, Json]) -> int:
    """--summary-json; the exit code where it cannot be written, which counts when all else went well."""
    if job.display.summary_json is None:
        return 0
    path = Path(job.display.summary_json)
    try:
        path.write_text(jsontext.dumps(figures) + "\n", encoding="utf-8")
    except OSError as error:
        say_error(CannotCreateOutput(f"cannot write {path}: {error.strerror}"))
        return CannotCreateOutput.exit_code
    return 0
