"""What the arguments of a command name: stdin, files, folders, globs. Looks at names only and opens nothing."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath

from lcbatch.errors import InputMissing, UsageError
from lcbatch.sources.rows import printable

STDIN_NAME = "stdin"


class Sort(Enum):
    """What an argument turned out to be. A STREAM is a FIFO or a device: it can be read once."""

    STDIN = "stdin"
    FILE = "file"
    STREAM = "stream"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Named:
    """One input, in the order given. `path` is as the user wrote it."""

    sort: Sort
    path: str

    @property
    def shown(self) -> str:
        """What messages and places call it."""
        return STDIN_NAME if self.sort is Sort.STDIN else printable(self.path)


def name_inputs(arguments: Sequence[str], own_outputs: frozenset[str]) -> list[Named]:
    """Every input named, globs expanded in sorted order where no file has that very name.

    Raises InputMissing for what does not exist or may not be read, UsageError for one of lcbatch's own outputs (a glob
    passes them over) and for stdin named twice.
    """
    named: list[Named] = []
    for argument in arguments:
        if argument == "-":
            named.append(Named(Sort.STDIN, "-"))
        elif os.path.lexists(argument):
            if is_own(argument, own_outputs):
                raise UsageError(
                    f"{printable(argument)} belongs to this run's output", hint="name another input or another output"
                )
            named.append(_looked_at(argument))
        else:
            named += _expanded(argument, own_outputs)
    if sum(one.sort is Sort.STDIN for one in named) > 1:
        raise UsageError("stdin can be read only once", hint="name - once")
    return named


def is_own(path: str, own_outputs: frozenset[str]) -> bool:
    """Whether a path is an own output or lies in one. `own_outputs` are real paths."""
    real = PurePath(os.path.realpath(path))
    return str(real) in own_outputs or any(str(parent) in own_outputs for parent in real.parents)


def label_prefix(path: str) -> str:
    """A path as a label: without what leads out of or up to it (`/`, `./`, `../`)."""
    parts = [part for part in PurePath(os.path.normpath(path)).parts if part not in {"/", os.pardir, os.curdir}]
    return "/".join(parts)


def matches(argument: str) -> list[str]:
    """What an argument that is no file's very name stands for, sorted."""
    return sorted(glob.glob(argument, recursive=True)) if glob.has_magic(argument) else []  # noqa: PTH207 - text


def _expanded(argument: str, own_outputs: frozenset[str]) -> Iterator[Named]:
    mine = [match for match in matches(argument) if not is_own(match, own_outputs)]
    if not mine:
        raise _missing(argument)
    return map(_looked_at, mine)


def _looked_at(path: str) -> Named:
    if os.path.isdir(path):  # noqa: PTH112 - the name may hold undecodable bytes
        return Named(Sort.FOLDER, path)
    if not Path(path).exists():
        raise InputMissing(f"{printable(path)} is a link to nothing", hint="mend the link or name another input")
    if not os.access(path, os.R_OK):
        raise InputMissing(f"{printable(path)} may not be read by this user", hint=f"chmod +r {printable(path)}")
    return Named(Sort.FILE if Path(path).is_file() else Sort.STREAM, path)


def _missing(argument: str) -> InputMissing:
    if glob.has_magic(argument):
        return InputMissing(
            f"nothing matches {printable(argument)}", hint="look with ls; quote it for lcbatch to expand"
        )
    folder, _, name = argument.rpartition("/")
    near: list[str] = []
    with suppress(OSError):
        near = difflib.get_close_matches(name, os.listdir(folder or ("/" if argument[:1] == "/" else ".")))  # noqa: PTH208
    if near:
        hint = f"did you mean {' or '.join(printable(f'{folder}/{one}' if folder else one) for one in near)}?"
    elif folder and not os.path.isdir(folder):  # noqa: PTH112
        hint = f"there is no folder {printable(folder)} either"
    else:
        hint = "check the name; - reads stdin"
    return InputMissing(f"no such input: {printable(argument) or repr(argument)}", hint=hint)
