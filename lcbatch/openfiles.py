"""How many files this process may open: each call in flight takes one, and a run needs some for itself."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

from lcbatch.errors import OUT_OF_RESOURCES, SystemLimit

_MOST_FILES = 10_240
"""macOS calls its hard limit infinite and then takes no more."""

_LEAST_FILES = 32
"""Some twenty for the event loop, the store, the input and the outputs; the others for documents and name look-ups."""

_KEPT_FILES = 16
"""Not for connections: the outputs and their rewriting, documents, their readers and name look-ups open theirs later."""


def files_left() -> int | None:
    """How many more files may be opened now, None where nobody knows."""
    try:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        is_open = sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError as error:
        return 0 if error.errno in OUT_OF_RESOURCES else None
    return None if soft == resource.RLIM_INFINITY else max(0, soft - is_open)


def raise_limit() -> None:
    """Take what the system allows: the usual soft limit of 1024 is less than -j auto may come to.

    Raises SystemLimit where not even a run with one call in flight could open what it needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    left = files_left()
    if left is not None and left < _LEAST_FILES:
        raise SystemLimit(
            f"this process may open {left} more files, and a run needs {_LEAST_FILES}",
            hint="raise it, as with ulimit -n 1024",
        )


def calls_allowed(otherwise: int) -> int:
    """Calls in flight, each with a connection, that leave a run's own files alone; `otherwise` where nobody knows.

    To be asked once the store is open.
    """
    left = files_left()
    return otherwise if left is None else max(1, left - _KEPT_FILES)
