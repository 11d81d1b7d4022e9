"""Files and folders of their owner alone, whatever the umask: it may take away what the owner needs, too."""

from __future__ import annotations

import os
from pathlib import Path

_FILE, _FOLDER = 0o600, 0o700


def open_private(path: Path, flags: int) -> int:
    """Open a file, or make it. One that is there keeps its permissions. Raises OSError."""
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE)
    except FileExistsError:
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _FILE)
    os.fchmod(descriptor, _FILE)
    return descriptor


def make_private_folder(folder: Path) -> None:
    """Make the folder, and those above it that are missing. Raises OSError."""
    missing = [folder, *folder.parents]
    for one in reversed(missing[: next((at for at, one in enumerate(missing) if one.exists()), 0)]):
        one.mkdir(_FOLDER, exist_ok=True)
        one.chmod(_FOLDER)
