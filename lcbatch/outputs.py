"""Where a run's output and its store lie, and how they are taken and set aside."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lcbatch import jsontext
from lcbatch.errors import LcbatchError
from lcbatch.job import Job
from lcbatch.sinks import OutputPaths, output_paths
from lcbatch.store.lock import OutputLocked, hold_lock
from lcbatch.world import World

_PIPE_STORES = 64
"""So many equal pipes may run side by side, each with a store of its own."""

_STORE_FILES = ("", "-wal", "-shm", "-journal", ".reserve")


class AlreadyRunning(LcbatchError):
    """Another run holds the output, and --if-locked skip says that this is fine."""

    exit_code = 0


@dataclass(frozen=True, slots=True)
class Place:
    """`store` is the run store's file; `is_temporary` says that it is a pipe's, and removed after a good run."""

    paths: OutputPaths
    store: Path
    is_temporary: bool

    @property
    def errors(self) -> Path | None:
        return self.paths.errors

    @property
    def lock(self) -> Path:
        return _beside(self.store, ".lock")

    def own_files(self) -> frozenset[Path]:
        """What must never be read as input."""
        return self.paths.all() | {_beside(self.store, end) for end in (*_STORE_FILES, ".lock")}


def place_of(job: Job, world: World) -> Place:
    """The place of a job's output. Raises UsageError for an output of no known form."""
    paths = output_paths(job.output, job.task)
    if paths.store is not None:
        return Place(paths, paths.store, is_temporary=False)
    options = {name: value for name, value in job.options().items() if name not in {"progress", "quiet", "debug"}}
    said = jsontext.canonical([job.task, job.inputs, str(Path.cwd()), options])
    name = f"{jsontext.digest(said).hex()}.lcbatch"
    return Place(paths, world.state_home() / name, is_temporary=True)


@asynccontextmanager
async def locked(place: Place, job: Job, command: str) -> AsyncIterator[Place]:
    """Hold the output. Gives the place that is held: a pipe takes the first store that is free.

    Raises OutputLocked, or AlreadyRunning under --if-locked skip.
    """
    wait = job.run.if_locked == "wait"
    for number in range(1, _PIPE_STORES + 1):
        here = place if number == 1 else _numbered(place, number)
        holding = hold_lock(here.lock, wait=wait and not place.is_temporary, command=command)
        try:
            await holding.__aenter__()
        except OutputLocked as error:
            if place.is_temporary and number < _PIPE_STORES:
                continue
            if job.run.if_locked == "skip":
                raise AlreadyRunning(error.message) from error
            raise
        try:
            yield here
        finally:
            await holding.__aexit__(None, None, None)
        return


class NewOutput:
    """An output that is not there yet: should the run come to nothing, what it made of it is taken away again."""

    def __init__(self, place: Place) -> None:
        output = place.paths.output
        self._output = None if output is None or output.exists() else output

    def remove_output(self) -> None:
        """Remove the output if it is there and empty."""
        if self._output is None:
            return
        if self._output.is_dir() and not any(self._output.iterdir()):
            self._output.rmdir()
        elif self._output.is_file() and self._output.stat().st_size == 0:
            self._output.unlink()


def set_aside(place: Place) -> list[Path]:
    """Move the old output, store and errors out of the way (--fresh); where they are now. Nothing is deleted."""
    stamp = _free_stamp(place)
    moved = []
    store_files = [_beside(place.store, end) for end in _STORE_FILES]
    for path in (place.paths.output, place.errors, *store_files):
        if path is not None and path.exists():
            base, end = _store_name(path, place.store)
            target = path.with_name(f"{base}.old-{stamp}{end}")
            path.rename(target)
            moved.append(target)
    return moved


def _free_stamp(place: Place) -> str:
    """The time of day, with a number behind it where something was set aside within the same second."""
    now = time.strftime("%Y%m%d-%H%M%S")
    own = [path for path in (place.paths.output, place.errors, place.store) if path is not None]
    stamps = itertools.chain([now], (f"{now}-{number}" for number in itertools.count(2)))
    return next(stamp for stamp in stamps if not any(_beside(path, f".old-{stamp}").exists() for path in own))


def remove_store(place: Place) -> None:
    """A pipe's store is of no use once every row has been delivered."""
    for end in _STORE_FILES:
        _beside(place.store, end).unlink(missing_ok=True)


def _store_name(path: Path, store: Path) -> tuple[str, str]:
    """SQLite finds `-wal` and `-shm` by the store's own name: the stamp goes before them."""
    for end in ("-wal", "-shm", "-journal"):
        if path == _beside(store, end):
            return store.name, end
    return path.name, ""


def _numbered(place: Place, number: int) -> Place:
    store = place.store.with_name(f"{place.store.stem}-{number}{place.store.suffix}")
    return Place(place.paths, store, place.is_temporary)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
