"""`lcbatch simulate`: a provider on loopback for rehearsals. Its options are the simulator's own."""

from __future__ import annotations

import typer


def simulate(context: typer.Context) -> int:
    """A provider on loopback that speaks OpenAI's protocol, for rehearsals. See lcbatch simulate --help."""
    from lcbatch.simulator.cli import main  # noqa: PLC0415 - only this command needs it

    return main(context.args, prog="lcbatch simulate")
