"""File names in an output folder: from a row's id to a path that cannot leave the folder.

A document's id is its path, and its result mirrors it: `a/b.pdf` gives `a/b.pdf.md`. An id that cannot stand as it
is gets a hash of itself, so that two ids never share a name, and no memory of other ids is needed. Of rows that have
the same id the first has its name; the others have a hash of the id and of their number.
"""

from __future__ import annotations

import re
import unicodedata

from lcbatch.jsontext import digest
from lcbatch.sinks.aside import cut_to_bytes

TEXT, OBJECT = ".md", ".json"

_PART_BYTES = 230
"""A name of at most 240 bytes in all: hash, suffix and the mark of a file set aside still find room in 255."""

_DEPTH = 40
_PATH_BYTES = 1500
_HASH = re.compile(r"~[0-9a-f]{12}\Z")
_HASH_BYTES = 13
_UNSAFE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_STEERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\\")


def stem(row_id: str, twin: int = 0, *, hashed: bool = False) -> str:
    """The path, relative to the folder, of a row's result without its last suffix. Parts are divided by `/`.

    `twin` is 0 for the first row of this id; `hashed` gives it the hash in any case.
    """
    parts = row_id.split("/")
    if len(parts) > _DEPTH or len(row_id.encode("utf-8", "surrogatepass")) > _PATH_BYTES:
        parts = parts[-1:]
    kept = [part for part in map(_part, parts) if part not in {"", ".", ".."}]
    folders, name = [_folder(part) for part in kept[:-1]], kept[-1] if kept else ""
    natural = "/".join([*folders, name])
    if name and natural == row_id and not hashed and not twin and not _HASH.search(name):
        return natural
    number = [str(twin).encode()] if twin else []
    mark = "~" + digest(row_id.encode("utf-8", "surrogatepass"), *number)[:6].hex()
    return "/".join([*folders, cut_to_bytes(name, _PART_BYTES - _HASH_BYTES) + mark])


def _part(text: str) -> str:
    """One part of a path with what is unsafe in a name replaced, and cut to what a file system takes."""
    safe = "".join("_" if char in _STEERING or unicodedata.category(char) in _UNSAFE else char for char in text)
    return cut_to_bytes(safe, _PART_BYTES)


def _folder(part: str) -> str:
    """A folder's name that no result's file, nor our temporary file, can have."""
    return part + "_" if part.lower().endswith((TEXT, OBJECT, ".tmp")) else part
