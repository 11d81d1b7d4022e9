"""The process's edge: only here is anything printed for an error, and the exit code decided."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from lcbatch.cli.edge import run_cli  # noqa: PLC0415 - so that importing lcbatch.__main__ costs nothing

    run_cli(sys.argv[1:])


if __name__ == "__main__":
    main()
