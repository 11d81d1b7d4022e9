"""Which run wrote an output last, by the mark in its lock file; a store that knows nothing of that run is refused.

Opening a run asks here before anything is paid for, and the projector of the output notes here what it has written.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from lcbatch.errors import RefusedError
from lcbatch.outputs import Place
from lcbatch.records import Json
from lcbatch.sinks import OUTPUT_VIEW
from lcbatch.sinks.paths import SQLITE_ENDINGS, beside
from lcbatch.store import marks
from lcbatch.store.lock import keep_mark, mark_of
from lcbatch.store.run_store import RunStore


def refuse_emptied_store(place: Place) -> None:
    """Raise RefusedError for a store's file with nothing in it where a run has written its output: all would be paid anew."""
    if mark_of(place.witness) is not None and place.store.exists() and is_emptied(place.store):
        raise RefusedError(
            f"the run store {place.store} is empty, and a run has written {place.paths.output or 'to the pipe'} with it",
            hint=f"put the run store back; or remove {place.store} to begin anew: all is asked and billed once more",
        )


def is_emptied(store: Path) -> bool:
    """Whether there is nothing in a store's file, nor in a log beside it. Raises OSError where there is no file."""
    return not store.stat().st_size and not any(beside(store, ending).exists() for ending in SQLITE_ENDINGS)


async def refuse_other_store(place: Place, store: RunStore) -> str | None:
    """Raise RefusedError where a run has worked on the output of which this store has never heard: its answers would be paid
    for again.

    Its log was deleted after a crash, it is an older copy, or another output's. Where the output is as this store left it, and
    that run came to its end or worked with a store that this one came after, no answer is missing in it: then it gives a notice
    to show. None where the store knows the run, or none is known to have written the output.
    """
    output, mark = place.paths.output, mark_of(place.witness)
    if mark is None or await store.knows(mark, OUTPUT_VIEW):
        return None
    is_after = marks.has_ended(mark) or store.is_another_than(mark)
    if output is not None and is_after and _is_as_left(output, await store.left(OUTPUT_VIEW)):
        return f"{place.store} is not the run store of the last run on {output}: what only that one knew is asked again"
    raise RefusedError(
        f"the run store {place.store} knows nothing of what the last run that wrote {output or 'to the pipe'} had come to: "
        "its -wal was deleted, or it is an older copy, or another output's store",
        hint=f"put it back as it was, with its -wal; or {_way_on(place, store)}: what it lacks is asked and billed once more",
    )


def forget_writer(place: Place) -> None:
    """What wrote the output so far did it with another store than the one that is begun now, and need not be known to it."""
    for lock in place.locks():
        if (mark := mark_of(lock)) is not None:
            place.aside.marks[lock] = mark
            keep_mark(lock, None, durable=True)


def note_writer(place: Place, store: RunStore, beat: int, *, ended: bool) -> None:
    """The output is this run's, up to a beat of its positions. Only when the store has that safe from power loss."""
    # The run's first must not come out of a power loss as the one before it, of which a new store has never heard.
    keep_mark(place.witness, store.mark_of(beat, ended=ended), durable=beat == 1)


def _way_on(place: Place, store: RunStore) -> str:
    """What to do where the store cannot be put back."""
    if store.holds_rows:
        return f"remove {place.witness} to go on with what it has"
    output = place.paths.output
    stands = output is not None and output.is_file() and output.stat().st_size
    return f"remove {place.store}{f', move {output} away' if stands else ''} and begin anew"


def _is_as_left(output: Path, state: Mapping[str, Json] | None) -> bool:
    """Whether there is no output, or a file of the size and the date that the store says. Raises RefusedError where neither can
    be known.
    """
    try:
        found = output.stat()
        if stat.S_ISDIR(found.st_mode):
            return not any(output.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise RefusedError(
            f"cannot look at {output}, which another run store's run has written last: {error.strerror}",
            hint="let this user read it and the folders above it, or name another output with -o",
        ) from error
    return state is not None and (found.st_size, found.st_mtime_ns) == (state.get("offset"), state.get("mtime_ns"))
