"""A run's outputs: taken up, watched while rows end, and brought up to date at the end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lcbatch.errors import LcbatchError, OutputFailed
from lcbatch.events import Notice
from lcbatch.execute.shutdown import Shutdown
from lcbatch.opening import Run
from lcbatch.ports import SETTLED, Sink, View
from lcbatch.records import Json
from lcbatch.sinks import ERRORS_VIEW, OUTPUT_VIEW, Projector
from lcbatch.sinks.appendfile import is_as_left
from lcbatch.sinks.aside import make_way
from lcbatch.sinks.paths import is_special
from lcbatch.store.facts import ProjectionState
from lcbatch.witness import note_writer

_SHAPE = frozenset({"output_field", "keep", "meta", "failed_rows", "flatten", "csv_safe"})
"""Options that decide what an output looks like: with others than last time it is written anew."""


_TARGET = "target"
"""In a projection's state: which output it is of, by its real path as seen from the store's folder."""

_ELSEWHERE = "elsewhere"
"""In a projection's state: those of other outputs of the same store, by their targets, the latest last."""

_OF_A_FOLDER = "since_ns"
"""What a folder's state has and a file's has not."""

_STREAM = "-"
_MOST_ELSEWHERE = 16
"""The state is written ten times a second: a store with an output for each day must not carry all of them along."""


@dataclass(frozen=True, slots=True)
class _Takes:
    """How an output is taken up: ProjectionState's fields, and what is to be kept with each position of it."""

    position: int
    state: Mapping[str, Json] | None
    stale: bool
    beside: Mapping[str, Json]


@asynccontextmanager
async def projecting(run: Run, sink: Sink) -> AsyncIterator[Projector]:
    """A projector that has taken up its output, and its task; a sink that fails stops the run."""
    kept = await run.store.projection(sink.view, _shape(run, sink.view))
    takes = _taken_up(kept, _target(run, sink.view), _path(run, sink.view))

    async def commit(name: str, position: int, state: Mapping[str, Json]) -> None:
        """Commit a position, and note in the lock file that the store has it: without its log it would have an earlier one."""
        beat = await run.store.commit_position(name, position, {**state, **takes.beside})
        if name == OUTPUT_VIEW:
            note_writer(run.place, run.store, beat, ended=bool(state.get(SETTLED)))

    projector = Projector(sink, store=run.store, commit=commit)
    run.shutdown.aborts.append(projector.abort)
    async with projector:
        await projector.start(takes.position, takes.state, stale=takes.stale)
        told = _told(run, sink, None)
        task = asyncio.create_task(_watched(projector, run.shutdown))
        try:
            yield projector
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            _told(run, sink, told)


def _told(run: Run, sink: Sink, before: str | None) -> str | None:
    """Say what became of what stood in the output's place, unless that was said before."""
    notice: str | None = getattr(sink, "notice", None)
    if notice is not None and notice != before:
        run.fanout.emit(Notice(notice))
    return notice


def _target(run: Run, view: View) -> str:
    path = _path(run, view)
    if path is None:
        return _STREAM
    return os.path.relpath(os.path.realpath(path), os.path.realpath(run.place.store.parent))


def _path(run: Run, view: View) -> Path | None:
    path = {OUTPUT_VIEW: run.place.paths.output, ERRORS_VIEW: run.place.errors}.get(view.name)
    return None if path is None or is_special(path) else path


def _taken_up(kept: ProjectionState, target: str, path: Path | None) -> _Takes:
    """How to go on with this output of a store, which may have written into another one since.

    What the other was is kept, so that it is known again. Of ours every line may have changed meanwhile: it is built anew.
    """
    if kept.state is None:
        return _Takes(kept.position, None, kept.stale, {_TARGET: target, _ELSEWHERE: {}})
    state = dict(kept.state)
    elsewhere = dict(state.pop(_ELSEWHERE, {}))
    last = state.pop(_TARGET, target if state.keys() & {"name", _OF_A_FOLDER} else _STREAM)
    if last == target:
        return _Takes(kept.position, state, kept.stale, {_TARGET: target, _ELSEWHERE: elsewhere})
    if last != _STREAM:
        elsewhere[last] = state
    moved = state if path is not None and is_as_left(path, state, clean=bool(state.get(SETTLED))) else None
    ours = elsewhere.pop(target, moved)
    elsewhere = dict(list(elsewhere.items())[-_MOST_ELSEWHERE:])
    return _Takes(0, ours, kept.stale or ours is not None, {_TARGET: target, _ELSEWHERE: elsewhere})


async def _folder_waits(run: Run, view: View) -> bool:
    """Whether a folder is among the store's other outputs: the files of rows that leave meanwhile are still in it."""
    kept = await run.store.projection(view, _shape(run, view))
    return any(_OF_A_FOLDER in state for state in (kept.state or {}).get(_ELSEWHERE, {}).values())


def _shape(run: Run, view: View) -> Mapping[str, Json]:
    options = {name: value for name, value in run.job.options().items() if name in _SHAPE}
    if run.job.chain.samples is not None:
        options["samples"] = True  # how many changes no line
    return {**options, "order": view.order.value}


async def _watched(projector: Projector, shutdown: Shutdown) -> None:
    try:
        await projector.run()
    except LcbatchError as error:
        shutdown.request(error)
    except Exception as error:  # noqa: BLE001 - else a bug in a sink would end its task in silence, and be met at the run's end
        bug = LcbatchError(
            f"a bug in lcbatch: {type(error).__name__}: {error}",
            hint="run it again with --debug and report what it says",
        )
        bug.__cause__ = error
        shutdown.request(bug)


async def bring_up_to_date(run: Run, projectors: Sequence[Projector]) -> None:
    """The outputs' last step. With a broken store nothing more is written: the next run does it."""
    if run.store.failed:
        return
    await run.store.settle()
    complete = run.complete and run.shutdown.reason is None and await run.store.all_stand()
    departed = await run.store.departed()
    for projector in projectors:
        if await run.store.is_stale(projector.sink.view):
            projector.mark_stale()
        if departed:
            await projector.discard(departed)
        await projector.finish(complete=complete)
        await _put_in_place(run, projector, complete=complete)
    if departed and not any([await _folder_waits(run, projector.sink.view) for projector in projectors]):
        await run.store.forget_departed()


async def _put_in_place(run: Run, projector: Projector, *, complete: bool) -> None:
    """Write an output again under its name, where somebody took the file away, or laid another in its place, meanwhile.

    What we wrote went into the file that we had open: it has another name now, or none.
    """
    view = projector.sink.view
    path = _path(run, view)
    kept = await run.store.projection(view, _shape(run, view))
    ours = (kept.state or {}).get("inode")
    if path is None or not ours or _inode_at(path) == ours:
        return
    run.fanout.emit(Notice(_made_room(path)))
    projector.mark_stale()
    await projector.finish(complete=complete)


def _inode_at(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _made_room(path: Path) -> str:
    """Set aside what lies where our output belongs. Raises OutputFailed."""
    if not path.exists():
        return f"{path} was taken away while the run went on: it is written again from the store"
    try:
        return make_way(Path(os.path.realpath(path)), time.time)
    except OSError as error:
        raise OutputFailed(f"cannot write {path}: {error.strerror}", hint="the same command writes it again") from error
