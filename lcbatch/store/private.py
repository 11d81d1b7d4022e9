"""Files and folders of their owner alone, whatever the umask: it may take away what the owner needs, too."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE, _FOLDER = 0o600, 0o700

_KEEPS_NO_MODES = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})
"""What file systems say that have no permissions to set (some in user space): what is made there has what all has there."""


def open_private(path: Path, flags: int) -> int:
    """Open a file, or make it. One that is there keeps its permissions. Raises OSError."""
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE)
    except FileExistsError:
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _FILE)
    try:
        with _where_there_are_modes():
            os.fchmod(descriptor, _FILE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_private_folder(folder: Path) -> None:
    """Make the folder, and those above it that are missing. One that somebody else makes meanwhile stays as it is.

    Raises OSError.
    """
    missing = [folder, *folder.parents]
    for one in reversed(missing[: next((at for at, one in enumerate(missing) if one.exists()), 0)]):
        try:
            one.mkdir(_FOLDER)
        except FileExistsError:
            if not one.is_dir():
                raise
            continue
        with _where_there_are_modes():
            one.chmod(_FOLDER)


@contextmanager
def _where_there_are_modes() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _KEEPS_NO_MODES:
            raise
