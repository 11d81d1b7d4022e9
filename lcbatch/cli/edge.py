"""Where errors become words and exit codes. Everything below raises; only this prints and leaves."""

from __future__ import annotations

import os
import sys
import traceback

import typer
from typer.exceptions import TyperException

from lcbatch.cli.streams import let_go, take_streams
from lcbatch.errors import LcbatchError, OutputClosed, SystemLimit, exit_code_of

_INTERRUPTED = 130


def run_cli(argv: list[str]) -> None:
    """Run the command line and leave the process with its exit code."""
    take_streams()
    from lcbatch.cli.commands import app  # noqa: PLC0415 - parsing the commands is the greater part of a start

    debug = "--debug" in argv or bool(os.environ.get("LCBATCH_DEBUG"))
    code = _run(app, argv, debug=debug)
    let_go()
    sys.exit(code)


def _run(app: typer.Typer, argv: list[str], *, debug: bool) -> int:
    try:
        result = app(argv, prog_name="lcbatch", standalone_mode=False)
        sys.stdout.flush()
    except OutputClosed:
        return OutputClosed.exit_code
    except LcbatchError as error:
        if debug:
            traceback.print_exc()
        say_error(error)
        return exit_code_of(error)
    except TyperException as error:
        _say(f"error: {error.format_message()}", _usage_hint(error))
        return error.exit_code if error.exit_code != 1 else 2
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except MemoryError:
        say_error(SystemLimit("out of memory", hint="lower -j"))
        return SystemLimit.exit_code
    except Exception as error:  # noqa: BLE001 - the last net: a bug is said as one, and never with a user's data
        if debug:
            traceback.print_exc()
        _say(
            f"error: a bug in lcbatch: {type(error).__name__}: {error}",
            "run it again with --debug and report what it says",
        )
        return 1
    return result if isinstance(result, int) else 0


def say_error(error: LcbatchError) -> None:
    """Print an error and its hint on stderr."""
    if error.exit_code == 0:
        _say(f"note: {error.message}", error.hint)
    else:
        _say(f"error: {error.message}", error.hint)


def _usage_hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else "see lcbatch --help"


def _say(text: str, hint: str) -> None:
    from lcbatch.observers.format import clean_block  # noqa: PLC0415 - only where something went wrong

    lines = [clean_block(text)] + ([clean_block(f"hint: {hint}")] if hint else [])
    try:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return
