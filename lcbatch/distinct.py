"""Each file of a run has one use: what would be written twice over, or over the input, is refused before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lcbatch import jsontext
from lcbatch.errors import UsageError
from lcbatch.job import Job
from lcbatch.records import ERROR_FIELD
from lcbatch.sinks import OutputPaths
from lcbatch.sinks.names import OBJECT, TEXT
from lcbatch.sinks.paths import STORE_ENDING, Form, beside, form_of, is_special, lock_of, store_files
from lcbatch.sources import files_taken_in
from lcbatch.sources.rows import printable
from lcbatch.store.schema import is_sqlite
from lcbatch.world import shell_line

_STORE, _OUTPUT, _ERRORS, _FIGURES = "a file of the run store", "the output", "the errors file", "--summary-json"
_INPUT = "the input"

_OF_FIGURES = frozenset({"task", "model", "output", "exit_code", "rows"})
"""What --summary-json has in a run and in a dry run alike."""

_MOST_FIGURES_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024


def refuse_shared_files(job: Job, paths: OutputPaths, store: Path) -> None:
    """Raise UsageError where two files of a run are one, or one of them is an input.

    What an earlier run has written may lie in a folder, or match a pattern, that is the input: it is passed over there.
    """
    uses: dict[Path, str] = {}
    for use, path in _files(job, paths, store):
        if is_special(path):  # /dev/null may be named as often as one likes
            continue
        real = Path(os.path.realpath(path))
        other = uses.setdefault(real, use)
        if other != use:
            raise UsageError(f"{path} would be both {other} and {use}", hint=_hint(job, store, path, {other, use}))
        if use in {_ERRORS, _FIGURES} and _is_among_answers(job, paths, real):
            raise UsageError(f"{path} ({use}) lies where the answers go", hint="name a file outside the output folder")
    _refuse_found_input(job, paths, store, uses)


def _files(job: Job, paths: OutputPaths, store: Path) -> Iterator[tuple[str, Path]]:
    """(what it is for, its path); the input comes last, so that it is told as that."""
    for path in (*store_files(store), lock_of(store)):
        yield _STORE, path
    if paths.output is not None:
        yield _OUTPUT, paths.output
    if paths.errors is not None:
        yield _ERRORS, paths.errors
    if job.display.summary_json is not None:
        yield _FIGURES, Path(job.display.summary_json)
    for name in job.inputs:
        if name != "-" and os.path.isfile(name):  # noqa: PTH113 - a pattern may be longer than a path can be
            yield _INPUT, Path(name)


def _hint(job: Job, store: Path, path: Path, uses: set[str]) -> str:
    given = job.output
    if uses != {_ERRORS, _INPUT} or given.output is None or not store.exists() or not _holds_errors(path):
        return "give each a name of its own"
    again = ["lcbatch", "retry", given.output, *(["--store", given.store] if given.store is not None else [])]
    return f"{shell_line(again)} runs failed rows again; or name a copy of the file as the input"


def _is_among_answers(job: Job, paths: OutputPaths, real: Path) -> bool:
    if paths.output is None or form_of(job.output.output, job.task) is not Form.FOLDER:
        return False
    return real.suffix in {TEXT, OBJECT} and real.is_relative_to(os.path.realpath(paths.output))


def _refuse_found_input(job: Job, paths: OutputPaths, store: Path, uses: Mapping[Path, str]) -> None:
    """Raise UsageError where a folder or pattern takes in a file that is to be written, and is not known as lcbatch's.

    The input is looked through only where there is such a file: a folder may be large.
    """
    theirs = {real: use for real, use in uses.items() if use != _INPUT and _is_theirs(job, paths, store, use, real)}
    if not theirs:
        return
    for path in files_taken_in(job.inputs, job.input):
        if use := theirs.get(Path(os.path.realpath(path))):
            raise UsageError(
                f"{printable(path)} would be both {use} and {_INPUT}",
                hint="it is not known as a file that lcbatch wrote: give each a name of its own, or move it away",
            )


def _is_theirs(job: Job, paths: OutputPaths, store: Path, use: str, real: Path) -> bool:
    """Whether something lies there already that lcbatch did not write for this use, as far as can be told."""
    if not os.path.isfile(real) or real.stat().st_size == 0:  # noqa: PTH113 - the name may be too long
        return False
    if use == _STORE:  # what lies beside a store, and one that nobody named, has a name that is lcbatch's
        is_named = job.output.store is not None and real == Path(os.path.realpath(store))
        # Its lock is looked for first: see is_sqlite.
        return is_named and not lock_of(store).exists() and not is_sqlite(real)
    if use == _FIGURES:
        return not _holds_figures(real)
    if use == _ERRORS and _holds_errors(real):
        return False
    has_name_of_users = use == _ERRORS and job.output.errors is not None
    return has_name_of_users or not _has_run_here(paths, store)


def _has_run_here(paths: OutputPaths, store: Path) -> bool:
    """Whether a run has written this output before, and so what belongs to it by its name. A lock file is never removed."""
    locks = [] if paths.output is None else [lock_of(beside(Path(os.path.realpath(paths.output)), STORE_ENDING))]
    return any(path.exists() for path in (store, *locks))


def _holds_errors(path: Path) -> bool:
    """Whether a file begins as an errors file does. Its first line may be as long as a row can be."""
    sought, kept = f'"{ERROR_FIELD}"'.encode(), b""
    try:
        with path.open("rb") as file:
            while block := file.readline(_BLOCK_BYTES):
                if sought in kept + block:
                    return True
                if block.endswith(b"\n"):
                    return False
                kept = block[-len(sought) :]
    except OSError:
        return False
    return False


def _holds_figures(path: Path) -> bool:
    try:
        if path.stat().st_size > _MOST_FIGURES_BYTES:
            return False
        found = jsontext.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _OF_FIGURES
