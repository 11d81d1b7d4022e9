"""The process's edge: only here is anything printed for an error, and the exit code decided."""

from __future__ import annotations

import gc
import sys

_WHILE_LOADING = 200_000
"""Modules are made of objects that stay: looking through them every 700 new ones took a tenth of a start."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    gc.set_threshold(_WHILE_LOADING)
    from lcbatch.allocator import give_back  # noqa: PLC0415 - so that importing lcbatch.__main__ costs nothing
    from lcbatch.cli.edge import run_cli  # noqa: PLC0415

    give_back()
    run_cli(sys.argv[1:])


if __name__ == "__main__":
    main()
