"""`lcbatch run`, `lcbatch summarize` and `lcbatch embed`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from lcbatch.cli.config import config_options
from lcbatch.cli.options import job_options
from lcbatch.job import EMBED, RUN, SUMMARIZE, Job
from lcbatch.world import working_folder

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Files, folders or globs; - or a pipe for stdin.", show_default=False),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read options from this file.",
        envvar="LCBATCH_CONFIG",
        show_envvar=False,
        rich_help_panel="Input",
    ),
]


@job_options(RUN)
def run(context: typer.Context, given: dict[str, Any], inputs: Inputs = None, config: Config = None) -> int:
    """Rows in, rows out: fill a prompt with each row's fields and write down the answers."""
    return _start(context, RUN, inputs, config, given)


@job_options(SUMMARIZE)
def summarize(context: typer.Context, given: dict[str, Any], inputs: Inputs = None, config: Config = None) -> int:
    """Documents in, summaries out. Without -m by the embedded model, which needs no key and no network."""
    return _start(context, SUMMARIZE, inputs, config, given)


@job_options(EMBED)
def embed(context: typer.Context, given: dict[str, Any], inputs: Inputs = None, config: Config = None) -> int:
    """Rows in, vectors out; documents give a vector for each piece. Many rows go out in one request."""
    return _start(context, EMBED, inputs, config, given)


def _start(
    context: typer.Context, task: str, inputs: list[str] | None, config: str | None, given: dict[str, Any]
) -> int:
    if not inputs:
        if sys.stdin is not None and sys.stdin.isatty():
            typer.echo(context.get_help(), err=True)
            return 2
        inputs = ["-"]
    options = config_options(task, config, working_folder()) | given
    job = Job.of(*inputs, task=task, **options)
    from lcbatch.cli.start import start  # noqa: PLC0415 - what a run needs is loaded for a run alone

    return start(job)
