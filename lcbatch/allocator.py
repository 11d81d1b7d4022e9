"""How the C library's allocator keeps what was freed: for the program and its workers, not for whoever imports lcbatch."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""

_LARGE_BYTES: Final = 1024 * 1024
_KEPT_BYTES: Final = 8 * 1024 * 1024


def give_back() -> None:
    """Have freed memory of more than a few MB given back to the system at once.

    By itself glibc learns from the first large block that is freed to take blocks of up to 32 MB from its heap, and to keep up to
    64 MB at the heap's end: beside a row of 50 MB that is one more row. Nothing where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415 - 2 ms, and nobody else needs it

        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
