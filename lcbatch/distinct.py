"""Each file of a run has one use: what would be written twice over, or over the input, is refused before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lcbatch.errors import UsageError
from lcbatch.job import Job
from lcbatch.sinks import OutputPaths
from lcbatch.sinks.names import OBJECT, TEXT
from lcbatch.sinks.paths import Form, form_of, is_special, lock_of, store_files


def refuse_shared_files(job: Job, paths: OutputPaths, store: Path) -> None:
    """Raise UsageError where two files of a run are one, or one of them is an input."""
    uses: dict[Path, str] = {}
    for use, path in _files(job, paths, store):
        if is_special(path):  # /dev/null may be named as often as one likes
            continue
        real = Path(os.path.realpath(path))
        other = uses.setdefault(real, use)
        if other != use:
            raise UsageError(f"{path} would be both {other} and {use}", hint="give each a name of its own")
        if use in {"--errors", "--summary-json"} and _is_among_answers(job, paths, real):
            raise UsageError(f"{path} ({use}) lies where the answers go", hint="name a file outside the output folder")


def _files(job: Job, paths: OutputPaths, store: Path) -> Iterator[tuple[str, Path]]:
    """(what it is for, its path); the input comes last, so that it is told as that."""
    for path in (*store_files(store), lock_of(store)):
        yield "the run store's", path
    if paths.output is not None:
        yield "the output", paths.output
    if paths.errors is not None:
        yield "--errors", paths.errors
    if job.display.summary_json is not None:
        yield "--summary-json", Path(job.display.summary_json)
    for name in job.inputs:
        if name != "-" and os.path.isfile(name):  # noqa: PTH113 - a pattern may be longer than a path can be
            yield "the input", Path(name)


def _is_among_answers(job: Job, paths: OutputPaths, real: Path) -> bool:
    if paths.output is None or form_of(job.output.output, job.task) is not Form.FOLDER:
        return False
    return real.suffix in {TEXT, OBJECT} and real.is_relative_to(os.path.realpath(paths.output))
