"""Files that an option names (templates, schemas, settings): small by nature, and read no further than that."""

from __future__ import annotations

from pathlib import Path

MOST_BYTES = 16 * 1024 * 1024
"""A thousand times what a model takes as a prompt. A device such as /dev/zero never ends."""


class TooLarge(ValueError):
    """A file goes on beyond MOST_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"it is larger than {MOST_BYTES // 1024**2} MB")


def read_small(path: str | Path) -> bytes:
    """The whole file, which may be a pipe. Raises OSError, and TooLarge."""
    with Path(path).open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise TooLarge
    return data
