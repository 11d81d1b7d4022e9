"""The command tree."""

from __future__ import annotations

from typing import Annotated

import typer

from lcbatch.cli import doctor, export, reparse, retry, run, simulate, status, stop

app = typer.Typer(
    name="lcbatch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Send rows and documents through a LangChain chain. Never pays twice, never loses a paid answer.",
)


def _version(value: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if value:
        from importlib.metadata import version  # noqa: PLC0415

        typer.echo(f"lcbatch {version('lcbatch')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    _ = version


app.command("run")(run.run)
app.command("summarize")(run.summarize)
app.command("embed")(run.embed)
app.command("status")(status.status)
app.command("retry")(retry.retry)
app.command("reparse")(reparse.reparse)
app.command("export")(export.export)
app.command("stop")(stop.stop)
app.command(
    "simulate",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(simulate.simulate)
app.command("doctor")(doctor.doctor)
