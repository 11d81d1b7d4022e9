"""How a run ends: what failed, which command goes on from there, and what is taken away again."""

from __future__ import annotations

import shlex
from pathlib import Path

from lcbatch.errors import CONTINUABLE, LcbatchError, RowsFailed
from lcbatch.events import Notice
from lcbatch.opening import Run
from lcbatch.outputs import put_back, remove_store
from lcbatch.rules import fails
from lcbatch.sinks.paths import STORE_ENDING, beside
from lcbatch.world import shell_line, typed

_MENDABLE = frozenset({4, 8})
"""Stops after which the same command goes on once the user has looked, or paid."""


async def noted(run: Run, error: LcbatchError | None, exit_code: int) -> LcbatchError | None:
    """Note in the store how the run ended; the error that it ended with, which may be that this could not be noted."""
    if not run.begun or run.store.failed:
        return error
    try:
        await run.store.end_run(exit_code)
    except LcbatchError as failure:
        return failure if error is None or isinstance(error, RowsFailed) else error
    return error


async def cleared_away(run: Run, error: LcbatchError | None) -> bool:
    """Take away what is of no use any more, as long as the output is held; whether the run came to nothing.

    A pipe's store goes after a good run. When nothing was answered and nothing failed, what the run made goes, and what
    --fresh had set aside comes back.
    """
    nothing = error is not None and _came_to_nothing(run)
    if run.store.failed:
        return nothing
    if run.place.is_temporary and error is None:
        await run.store.close()
        remove_store(run.place)
    elif run.made and nothing:
        await run.store.close()
        remove_store(run.place)
        run.made.remove_output()
        for path in put_back(run.place):
            run.fanout.emit(Notice(f"put back: {path}"))
    return nothing


def _came_to_nothing(run: Run) -> bool:
    now = run.stats.snapshot(run.world.clock())
    return now.rows.settled == 0 and now.calls.answered == 0


async def failed_rows(run: Run) -> LcbatchError | None:
    """The error of a run that came to its end with failed rows, where --fail-on counts them."""
    new = run.stats.snapshot(run.world.clock()).rows.failed
    failed = await run.store.failed_count()
    if not fails(run.job.run.fail_on, failed_new=new, failed=failed, rows=await run.store.standing_count()):
        return None
    where = f"; they stand in {run.place.errors}" if run.place.errors else ""
    what = "1 row failed" if failed == 1 else f"{failed} rows failed"
    hint = f"run them again with {retry_command(run)}"
    if run.place.is_temporary:
        hint = f"the same command again delivers what was answered, from {run.place.store}; {hint}"
    return RowsFailed(what + where, hint=hint)


def continue_with(run: Run, exit_code: int, *, nothing: bool) -> str:
    """The command that goes on from here, "" when there is nothing left to do."""
    rows = run.stats.snapshot(run.world.clock()).rows
    if exit_code in CONTINUABLE | _MENDABLE or (exit_code in {0, 3} and rows.left):
        return typed(run.world.command) if nothing else _without_fresh(run.world.command)
    delivered = run.place.is_temporary and exit_code == 0
    if (rows.failed or rows.failed_before) and not delivered:
        return retry_command(run)
    return ""


def retry_command(run: Run) -> str:
    """The command that runs failed rows again, as a shell takes it. A pipe goes by its store."""
    given = run.job.output
    if run.place.paths.output is None or given.output is None:
        return shell_line(["lcbatch", "retry", str(run.place.store)])
    elsewhere = given.store is not None and Path(given.store) != beside(Path(given.output), STORE_ENDING)
    store = ["--store", str(given.store)] if elsewhere else []
    keep = (
        ["--on-change", "keep"] if run.job.run.on_change == "keep" else []
    )  # it would be refused without, as the run was
    return shell_line(["lcbatch", "retry", given.output, *store, *keep])


def _without_fresh(command: str) -> str:
    """The command for going on: --fresh would begin anew."""
    return shell_line(word for word in shlex.split(command) if word != "--fresh")
