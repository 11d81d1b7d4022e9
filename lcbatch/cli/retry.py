"""`lcbatch retry OUT`: failed rows again, from the store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcbatch.cli.found import Out, Store, names_store, origin_of, reading, store_of
from lcbatch.cli.options import job_options
from lcbatch.errors import Kind, UsageError
from lcbatch.job import EMBED, RUN, Job, declared_options
from lcbatch.records import Json
from lcbatch.store.reading import row_model

if TYPE_CHECKING:
    from lcbatch.retrying import Retry

_PACE_AND_MONEY = frozenset({"concurrency", "rpm", "tpm", "max_cost", "max_total_tokens"})

_OPTIONS = (
    frozenset(spec.name for group, spec in declared_options() if group in {"model", "display"})
    | _PACE_AND_MONEY
    | {
        "limit",
        "on_change",
        "max_failures",
        "max_time",
        "row_timeout",
        "max_wait",
        "outage_timeout",
        "fail_on",
        "if_locked",
        "drain_timeout",
    }
)

INHERITED = (
    frozenset(spec.name for group, spec in declared_options() if group in {"input", "chain", "model", "output"})
    | _PACE_AND_MONEY
) - {"output", "store"}
"""What a retry takes over from the run that made the output: what its answers are, what they look like, how fast they may be
asked for and for how much. All else (--fresh, --limit, --max-time, ...) was said of that run alone."""

_OF_ONE_MODEL = frozenset({"price"})
_OF_ONE_PROVIDER = frozenset({"base_url", "api_key_env", "endpoints", "insecure_http"})


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
    """Run failed rows again. Answered rows stay as they are; of the input only documents are needed."""
    job, again = retry_of(out, store, _kinds(kind), given)
    from lcbatch.cli.start import start  # noqa: PLC0415 - what a run needs is loaded for a run alone

    return start(job, again)


def retry_of(out: str, store: str | None, kinds: frozenset[Kind] | None, given: dict[str, Any]) -> tuple[Job, Retry]:
    """The job that runs failed rows of an output again. Raises InputMissing, RefusedError, UsageError."""
    path = store_of(out, store)
    with reading(path) as connection:
        origin, named = origin_of(connection, path), row_model(connection)
    if origin.task == EMBED and given.get("model") not in {None, origin.options.get("model")}:
        raise UsageError(
            "vectors of two models lie in different spaces", hint="embed all rows with it, to another output"
        )
    output = origin.output(path) if names_store(out) else out
    inputs, inherited = origin.inherited(INHERITED)
    options = {**_fitting(inherited, given), **given, "output": output, "store": str(path)}
    job = Job.of(*inputs, task=origin.task, **options)
    from lcbatch.retrying import Retry  # noqa: PLC0415 - as above

    return job, Retry(kinds, origin.to_json(), named)


def _fitting(options: dict[str, Json], given: dict[str, Any]) -> dict[str, Json]:
    """The options of the original run that count for its retry too: an address or a price only for the model it is of."""
    model, before = given.get("model"), options.get("model")
    of_another = frozenset[str]()
    if model is not None and model != before:
        of_another |= _OF_ONE_MODEL
    if model is not None and before is not None and model.partition(":")[0] != before.partition(":")[0]:
        of_another |= _OF_ONE_PROVIDER
    return {name: value for name, value in options.items() if name not in of_another}


def _kinds(text: str | None) -> frozenset[Kind] | None:
    if text is None:
        return None
    known = {kind.value for kind in Kind}
    names = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in names if name not in known]:
        raise UsageError(f"--kind: there is no kind {wrong[0]!r}", hint=f"one of {', '.join(sorted(known))}")
    return frozenset(Kind(name) for name in names)
