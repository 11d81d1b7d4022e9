"""`lcbatch retry OUT`: failed rows again, from the store alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lcbatch.cli.found import Out, Store, reading, store_of
from lcbatch.cli.options import job_options
from lcbatch.errors import Kind, RefusedError, UsageError
from lcbatch.job import RUN, Job, declared_options
from lcbatch.store.reading import last_run

_OPTIONS = frozenset(spec.name for group, spec in declared_options() if group in {"model", "display"}) | {
    "concurrency",
    "limit",
    "max_failures",
    "max_time",
    "max_wait",
    "fail_on",
    "if_locked",
    "drain_timeout",
}


@job_options(RUN, only=_OPTIONS)
def retry(
    out: Out,
    given: dict[str, Any],
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND,...", help="Only rows that failed so; all failed rows without it."),
    ] = None,
    store: Store = None,
) -> int:
    """Run failed rows again. Answered rows stay as they are; the input is not needed."""
    kinds = _kinds(kind)
    path = store_of(out, store)
    with reading(path) as connection:
        run = last_run(connection)
    if run is None:
        raise RefusedError(f"no run ever began in {path}", hint="run the original command")
    options = {**run.job["options"], **given, "output": out, "store": str(path)}
    job = Job.of(*run.job["inputs"], task=run.job["task"], **options)
    from lcbatch.app import Retry  # noqa: PLC0415 - what a run needs is loaded for a run alone
    from lcbatch.cli.start import start  # noqa: PLC0415

    return start(job, Retry(kinds))


def _kinds(text: str | None) -> frozenset[Kind] | None:
    if text is None:
        return None
    known = {kind.value for kind in Kind}
    names = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in names if name not in known]:
        raise UsageError(f"--kind: there is no kind {wrong[0]!r}", hint=f"one of {', '.join(sorted(known))}")
    return frozenset(Kind(name) for name in names)
