"""`lcbatch reparse OUT`: stored answers read again by another schema, without a call."""

from __future__ import annotations

import sys
from typing import Any

from lcbatch.cli.found import Out, Store, names_store, origin_of, reading, store_of
from lcbatch.cli.options import job_options
from lcbatch.cli.retry import INHERITED
from lcbatch.job import RUN, Job, declared_options

_PARSER = frozenset({"schema", "app_dir", "chain_version"})
_OPTIONS = (
    frozenset(spec.name for group, spec in declared_options() if group == "display")
    | _PARSER
    | {"fail_on", "if_locked", "flatten", "output_field"}
)


@job_options(RUN, only=_OPTIONS)
def reparse(out: Out, given: dict[str, Any], store: Store = None) -> int:
    """Read the answers in the store again by another --schema, without a call, and write the output anew."""
    path = store_of(out, store)
    with reading(path) as connection:
        origin = origin_of(connection, path)
    output = origin.output(path) if names_store(out) else out
    inputs, options = origin.inherited(INHERITED)
    parser = {name: value for name, value in given.items() if name in _PARSER}
    job = Job.of(*inputs, task=origin.task, **{**options, **given, "output": output, "store": str(path)})
    described = {**origin.to_json(), "options": {**origin.options, **parser}}
    from lcbatch.cli.start import carry_out  # noqa: PLC0415 - what a run needs is loaded for a run alone
    from lcbatch.reparsing import reparse as parse_again  # noqa: PLC0415
    from lcbatch.world import process_world  # noqa: PLC0415

    world = process_world(sys.argv[1:])
    return carry_out(job, world, lambda: parse_again(job, world, described))
