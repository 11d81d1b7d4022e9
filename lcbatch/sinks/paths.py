"""Where an output and what belongs to it lie, and what form its name asks for."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lcbatch.errors import UsageError
from lcbatch.job import SUMMARIZE, OutputOptions
from lcbatch.sinks.appendfile import temporary_name


class Form(Enum):
    """How an output is written."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    FOLDER = "folder"
    STDOUT = "stdout"


SUFFIXES = {
    ".jsonl": Form.JSONL,
    ".ndjson": Form.JSONL,
    ".csv": Form.CSV,
    ".tsv": Form.TSV,
    ".parquet": Form.PARQUET,
}
REPLACED_WHOLE = frozenset(SUFFIXES.values())
"""Forms that are one file, which a rebuild replaces in one step."""

TABLES = frozenset({Form.CSV, Form.TSV, Form.PARQUET})
"""Forms with columns."""

SQLITE_ENDINGS = ("-wal", "-shm", "-journal")
"""What SQLite lays beside a database, which it finds again by the database's own name."""

STORE_ENDINGS = ("", *SQLITE_ENDINGS, ".reserve")
"""The files of a run store, by the ends of their names. Its lock is none of them: that one is never moved or removed."""

STORE_ENDING = ".lcbatch"
"""Makes an output's name that of its store, where nothing else is said."""

_LOCK_ENDING = ".lock"

_STDOUT_NAMES = frozenset({"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})


def form_of(output: str | None, task: str) -> Form:
    """The form that an output's name asks for; a device or FIFO without a known suffix takes JSON lines.

    Raises UsageError.
    """
    if output is None or is_stdout(output):
        return Form.STDOUT
    path = Path(output)
    if output.endswith("/") or path.is_dir():
        return Form.FOLDER
    known = SUFFIXES.get(path.suffix.lower())
    if known is not None:
        return known
    if is_special(path):
        return Form.JSONL
    if not path.suffix and task == SUMMARIZE:
        return Form.FOLDER
    raise UsageError(
        f"cannot tell from the name {output!r} what to write",
        hint=f"end it with {', '.join(SUFFIXES)}, or with / for a folder",
    )


def is_stdout(output: str) -> bool:
    """Whether an output's name means this process's standard output."""
    return output in _STDOUT_NAMES


def is_special(path: Path) -> bool:
    """Whether this is something other than a file or folder: a FIFO, a device, a socket."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@dataclass(frozen=True, slots=True)
class OutputPaths:
    """What belongs to one output, as absolute paths. None: there is no such file (a pipe has none of its own)."""

    output: Path | None
    store: Path | None
    errors: Path | None

    def all(self) -> frozenset[Path]:
        """Every file that lcbatch writes for this output, SQLite's and the temporary ones too."""
        files = [path for path in (self.output, self.errors) if path is not None]
        if self.store is not None:
            files += [*store_files(self.store), lock_of(self.store)]
        temporary = [
            path.with_name(temporary_name(path.name)) for path in (self.output, self.errors) if path is not None
        ]
        return frozenset(files + temporary)

    def owns(self, path: Path) -> bool:
        """Whether a file is one of these, or lies in the output's folder: then it is never read as input."""
        found = Path(os.path.realpath(path))
        own = {Path(os.path.realpath(each)) for each in self.all()}
        return found in own or any(parent in own for parent in found.parents)


def output_paths(options: OutputOptions, task: str) -> OutputPaths:
    """Where the output, its store and its errors file lie. Raises UsageError for a name of no known form."""
    form = form_of(options.output, task)
    output = None
    if form is not Form.STDOUT and options.output is not None and not is_special(Path(options.output)):
        output = Path(os.path.abspath(options.output))  # noqa: PTH100 - resolve() would follow links; this only cleans
    store = _absolute(options.store) or (beside(output, STORE_ENDING) if output is not None else None)
    errors = _absolute(options.errors) or (beside(output, ".errors.jsonl") if output is not None else None)
    return OutputPaths(output, store, errors)


def store_files(store: Path) -> list[Path]:
    """Every file of a store."""
    return [beside(store, end) for end in STORE_ENDINGS]


def lock_of(store: Path) -> Path:
    """The lock file beside a store, by the store's own name and place: a link to it is not another store."""
    return beside(Path(os.path.realpath(store)), _LOCK_ENDING)


def beside(path: Path, ending: str) -> Path:
    """The path with more at the end of its name."""
    return path.with_name(path.name + ending)


def _absolute(path: str | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path))  # noqa: PTH100 - as above
