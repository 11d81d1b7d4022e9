"""The world outside as a run sees it: streams, environment, clock. An argument, so that tests touch nothing global."""

from __future__ import annotations

import gc
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from lcbatch.errors import InputMissing
from lcbatch.ports import Clock

_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`stdin` is None where there is nothing to read; `stdout_fd` None where answers must not go there.

    `command` is what the user typed, for "run it again", with surrogates where the system gave some: see `typed`.
    `handles_signals` says that the process is the run's own. `when_begun` is called once everything is loaded and open, with the
    most calls that will be in flight.
    """

    stdin: BinaryIO | None
    stdout_fd: int | None
    stdout_is_terminal: bool
    stderr: TextIO
    stderr_is_terminal: bool
    env: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = time.monotonic
    command: str = ""
    handles_signals: bool = True
    when_begun: Callable[[int], None] = lambda _: None

    def state_home(self) -> Path:
        """Where stores of pipes lie: $XDG_STATE_HOME/lcbatch."""
        base = self.env.get("XDG_STATE_HOME") or str(Path(self.env.get("HOME", "~")).expanduser() / ".local" / "state")
        return Path(base) / "lcbatch"


def working_folder() -> Path:
    """Where relative names are looked for. Raises InputMissing where that folder has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise InputMissing(
            "the working directory is gone", hint="cd to a folder that is there, and run it again"
        ) from error


def shell_line(words: Iterable[str]) -> str:
    """The words as a shell takes them, in text that UTF-8 can encode: a name's other bytes as bash and zsh write them."""
    return " ".join(shlex.quote(word) if is_text(word) else _ansi_quoted(word) for word in words)


def typed(command: str) -> str:
    """A command line of `World.command` for people, for the store and for JSON."""
    return command if is_text(command) else shell_line(shlex.split(command))


def is_text(word: str) -> bool:
    """Whether UTF-8 can encode it: a name from the system whose bytes are no UTF-8 comes with surrogates for them."""
    return _SURROGATE.search(word) is None


def _ansi_quoted(word: str) -> str:
    """A word in `$'...'`."""
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{escaped.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')}'"


def process_world(argv: list[str]) -> World:
    """This process's own."""
    dumb = os.environ.get("TERM") == "dumb"
    return World(
        stdin=sys.stdin.buffer if sys.stdin is not None and not sys.stdin.closed else None,
        stdout_fd=_descriptor(sys.stdout),
        stdout_is_terminal=_is_terminal(sys.stdout),
        stderr=sys.stderr,
        stderr_is_terminal=_is_terminal(sys.stderr) and not dumb,
        env=dict(os.environ),
        command=shlex.join(["lcbatch", *argv]),
        when_begun=_quiet_gc,
    )


def _quiet_gc(in_flight: int) -> None:
    """What is loaded by now stays for good: the collector need not look at it again, nor at every few hundred objects.

    LangChain and the SDK leave some 400,000 objects; walking them took a tenth of a row's time. Nor need it look at the calls in
    flight, which all end by themselves: with 2,000 of them that took a fifth of the CPU.
    """
    gc.freeze()
    gc.set_threshold(max(_YOUNG, _IN_FLIGHT * in_flight), 20, 20)


_YOUNG = 20_000
"""A row leaves next to no cycles, so that a young generation of 20,000 objects costs a few MB at most."""

_IN_FLIGHT = 250
"""Objects that a row holds until its answer is there, and some more: a wave of new calls is no reason to collect."""


def library_world() -> World:
    """For calls from Python: nothing is read from stdin or written to stdout, and signals stay the caller's."""
    return World(
        stdin=None,
        stdout_fd=None,
        stdout_is_terminal=False,
        stderr=sys.stderr,
        stderr_is_terminal=False,
        env=dict(os.environ),
        handles_signals=False,
    )


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError):
        return None


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
