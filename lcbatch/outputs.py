"""Where a run's output and its store lie, and how they are taken and set aside."""

from __future__ import annotations

import importlib
import itertools
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from lcbatch import jsontext
from lcbatch.distinct import refuse_shared_files
from lcbatch.errors import CannotCreateOutput, LcbatchError
from lcbatch.job import Job, declared_options
from lcbatch.records import Json
from lcbatch.sinks import OutputPaths, output_paths
from lcbatch.sinks.paths import SQLITE_ENDINGS, STORE_ENDING, beside, lock_of, store_files
from lcbatch.store.lock import OutputLocked, hold_lock, keep_mark
from lcbatch.store.reading import last_run
from lcbatch.store.schema import connect
from lcbatch.world import World, working_folder

_PIPE_STORES = 64
"""So many equal pipes may run side by side, each with a store of its own."""

_DECIDES_ANSWERS = frozenset({"model", "temperature", "max_output_tokens", "reasoning_effort", "model_arg"})
_OF_A_PIPE = _DECIDES_ANSWERS | {
    spec.name for group, spec in declared_options() if group in {"input", "chain", "output"}
}
"""By these a pipe is known again. Another -j, --timeout, --price or --fresh is the same pipe: its rows are not paid for twice."""


class AlreadyRunning(LcbatchError):
    """Another run holds the output, and --if-locked skip says that this is fine."""

    exit_code = 0


@dataclass(slots=True)
class Aside:
    """What was moved out of the way, as (from, to), and the marks that were taken from lock files, by these."""

    moved: list[tuple[Path, Path]] = field(default_factory=list)
    marks: dict[Path, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.moved or self.marks)


@dataclass(frozen=True, slots=True)
class Place:
    """`store` is the run store's file itself, by whatever link it was named; `is_temporary` says that it is a pipe's, and removed
    after a good run.

    `aside` is what `set_aside` and `witness.forget_writer` have taken away, for as long as it may come back.
    """

    paths: OutputPaths
    store: Path
    is_temporary: bool
    aside: Aside = field(default_factory=Aside, compare=False)

    @property
    def errors(self) -> Path | None:
        return self.paths.errors

    @property
    def lock(self) -> Path:
        return lock_of(self.store)

    def locks(self) -> list[Path]:
        """What a run holds: the store's lock, and that of the output itself, which another store's run may be writing.

        None is taken twice, and they are in one order for all, so that of two that wait none waits for the other.
        """
        return sorted({self.lock, *filter(None, [self.output_lock])})

    @property
    def output_lock(self) -> Path | None:
        """The lock of the output itself, whatever store is used; None where it goes to a pipe."""
        if self.paths.output is None:
            return None
        return lock_of(beside(_real(self.paths.output), STORE_ENDING))

    @property
    def witness(self) -> Path:
        """The lock file that says which run wrote the output last: the output's own, or that of a pipe's store."""
        return self.output_lock or self.lock

    def own_files(self) -> frozenset[Path]:
        """What must never be read as input."""
        return self.paths.all() | {*store_files(self.store), self.lock}


def place_of(job: Job, world: World) -> Place:
    """The place of a job's output.

    Raises UsageError for an output of no known form, and where two of its files are one; InputMissing where there is no working
    directory to tell it from.
    """
    here = working_folder()
    paths = output_paths(job.output, job.task)
    # Not as it is named: SQLite lays its log beside the file that a link leads to, and ours must lie there too.
    store = _real(paths.store or _store_of_pipe(job, world, here))
    refuse_shared_files(job, paths, store)
    return Place(paths, store, is_temporary=paths.store is None)


def _store_of_pipe(job: Job, world: World, here: Path) -> Path:
    said: list[Json] = [job.task, job.inputs, str(here)]
    said.append({name: value for name, value in job.options().items() if name in _OF_A_PIPE})
    return world.state_home() / f"{jsontext.digest(jsontext.canonical(said)).hex()}.lcbatch"


@asynccontextmanager
async def locked(place: Place, job: Job, command: str) -> AsyncIterator[Place]:
    """Hold the output. Gives the place that is held: a pipe takes the first store that is free.

    What was set aside inside comes back when an error leaves before any run began. Raises OutputLocked, or AlreadyRunning
    under --if-locked skip.
    """
    async with AsyncExitStack() as stack:
        here = await _taken(place, job, command, stack)
        try:
            yield here
        except BaseException:
            if here.aside and _unused(here.store):
                remove_store(here)
                put_back(here)
            raise


async def _taken(place: Place, job: Job, command: str, stack: AsyncExitStack) -> Place:
    try:
        if place.is_temporary:
            return await _first_free(place, command, stack)
        for lock in place.locks():
            try:
                await stack.enter_async_context(hold_lock(lock, wait=job.run.if_locked == "wait", command=command))
            except CannotCreateOutput:
                # A network drive, or a folder below one that is not ours, may hold an output though not its lock.
                if lock == place.lock:
                    raise
    except OutputLocked as error:
        if job.run.if_locked == "skip":
            raise AlreadyRunning(error.message) from error
        raise
    return place


async def _first_free(place: Place, command: str, stack: AsyncExitStack) -> Place:
    for number in itertools.count(1):
        here = place if number == 1 else _numbered(place, number)
        try:
            await stack.enter_async_context(hold_lock(here.lock, command=command))
        except OutputLocked:
            if number == _PIPE_STORES:
                raise
        else:
            return here
    raise AssertionError("it counts for ever")


class NewOutput:
    """An output that is not there yet: should the run come to nothing, what it made of it is taken away again."""

    def __init__(self, place: Place) -> None:
        output = place.paths.output
        self._output = None if output is None or output.exists() else output

    def remove_output(self) -> None:
        """Remove the output if it is there and holds no row."""
        if self._output is None:
            return
        if self._output.is_dir() and not any(self._output.iterdir()):
            self._output.rmdir()
        elif self._output.is_file() and _holds_no_row(self._output):
            self._output.unlink()


def _holds_no_row(path: Path) -> bool:
    """Whether a file is empty; a Parquet file has a head all the same."""
    if path.suffix.lower() != ".parquet":
        return path.stat().st_size == 0
    try:
        parquet = importlib.import_module("pyarrow.parquet")  # heavy, and an extra
        return bool(parquet.read_metadata(path).num_rows == 0)
    except (ImportError, ValueError):  # none of ours
        return False


def set_aside(place: Place) -> list[Path]:
    """Move the old output, store and errors out of the way (--fresh); where they are now. Nothing is deleted.

    A store that is named by a link is moved where it lies, and the link leads to the one that is made in its place.

    Raises CannotCreateOutput, with everything where it was.
    """
    stamp = _free_stamp(place)
    moved = []
    for path in (place.paths.output, place.errors, *store_files(place.store)):
        if path is None or not path.exists():
            continue
        base, end = _store_name(path, place.store)
        target = path.with_name(f"{base}.old-{stamp}{end}")
        try:
            path.rename(target)
        except OSError as error:
            put_back(place)
            raise CannotCreateOutput(
                f"cannot set {path} aside: {error.strerror}", hint="name another output with -o"
            ) from error
        place.aside.moved.append((path, target))
        moved.append(target)
    return moved


def put_back(place: Place) -> list[Path]:
    """What was set aside takes its old place again, unless something else has it; the files that are there again."""
    back = []
    while place.aside.marks:
        lock, mark = place.aside.marks.popitem()
        keep_mark(lock, mark, durable=True)
    while place.aside.moved:
        path, target = place.aside.moved.pop()
        if not os.path.lexists(path):
            target.rename(path)
            back.append(path)
    return back[::-1]


def _free_stamp(place: Place) -> str:
    """The time of day, with a number behind it where something was set aside within the same second."""
    now = time.strftime("%Y%m%d-%H%M%S")
    own = [path for path in (place.paths.output, place.errors, place.store) if path is not None]
    stamps = itertools.chain([now], (f"{now}-{number}" for number in itertools.count(2)))
    return next(stamp for stamp in stamps if not any(beside(path, f".old-{stamp}").exists() for path in own))


def remove_store(place: Place) -> None:
    """A pipe's store is of no use once every row has been delivered. It must be closed, and the output held."""
    for path in store_files(place.store):
        path.unlink(missing_ok=True)


def _unused(store: Path) -> bool:
    """Whether no run ever began in a store."""
    if not store.exists() or not store.stat().st_size:
        return True
    try:
        with closing(connect(store, read_only=True)) as connection:
            return last_run(connection) is None
    except (LcbatchError, sqlite3.Error):
        return False


def _store_name(path: Path, store: Path) -> tuple[str, str]:
    """SQLite finds `-wal` and `-shm` by the store's own name: the stamp goes before them."""
    for end in SQLITE_ENDINGS:
        if path == beside(store, end):
            return store.name, end
    return path.name, ""


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _numbered(place: Place, number: int) -> Place:
    store = place.store.with_name(f"{place.store.stem}-{number}{place.store.suffix}")
    return Place(place.paths, store, place.is_temporary)
