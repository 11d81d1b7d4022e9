"""Which parser reads an input: by --input-format, by suffix, or by looking at how it begins."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, TypeAlias

from lcbatch.errors import UsageError
from lcbatch.records import Item
from lcbatch.sources.lines import NEWLINE, JsonLines, Parser, TextLines
from lcbatch.sources.table import Table
from lcbatch.sources.values import JsonValues

DOCUMENT: Final = "document"
PARQUET: Final = "parquet"

DOCUMENT_SUFFIXES: Final = (".txt", ".text", ".md", ".markdown", ".rst", ".html", ".htm", ".pdf", ".docx")
"""What counts as a document inside a folder."""

_ROW_SUFFIXES: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": PARQUET,
    ".txt": "lines",
    ".text": "lines",
}
PACKED_SUFFIXES: Final = (".gz", ".zst")


def format_of(name: str) -> str | None:
    """The format that a file's suffixes promise in `lcbatch run`; None: look at it."""
    path = PurePath(name.lower())
    if path.suffix in PACKED_SUFFIXES:
        path = path.with_suffix("")
    if path.suffix in _ROW_SUFFIXES:
        return _ROW_SUFFIXES[path.suffix]
    return DOCUMENT if path.suffix in DOCUMENT_SUFFIXES else None


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are read: the options that every parser shares. `encoding` is a codec's own name."""

    max_row_bytes: int
    delimiter: str | None
    encoding: str


MakeParser: TypeAlias = Callable[[str], Parser]


def parser_for(name: str, format_name: str | None, reading: Reading) -> Parser:
    """A parser whose places begin with `name`. `format_name` None: one that looks first."""
    if format_name is None:
        return _Looking(name, reading.max_row_bytes, lambda found: parser_for(name, found, reading))
    if format_name in {"csv", "tsv"}:
        return Table(name, reading.max_row_bytes, reading.delimiter or ("\t" if format_name == "tsv" else None))
    makers: dict[str, Callable[[str, int], Parser]] = {"jsonl": JsonLines, "json": JsonValues, "lines": TextLines}
    return makers[format_name](name, reading.max_row_bytes)


def checked_delimiter(text: str | None) -> str | None:
    """One character; `tab` and `\\t` are understood. Raises UsageError."""
    if text is None:
        return None
    mark = "\t" if text in {"tab", "\\t"} else text
    if len(mark) != 1 or mark in '"\r\n\0':
        raise UsageError(f"--delimiter cannot be {text!r}", hint="one character, such as ; or tab")
    return mark


_ARRAY_BEGINS: Final = re.compile(rb'\[\s*+[\[\]{"\d\-tfn]')
_BINARY_LOOK_BYTES: Final = 1024
_LONGEST_INDENT: Final = 64 * 1024
_BLANK_LINES_FED: Final = 32 * 1024


class _Looking:
    """Holds the beginning back until it tells the format, then hands over to that format's parser."""

    def __init__(self, name: str, max_row_bytes: int, make: MakeParser) -> None:
        self._name = name
        self._limit = max_row_bytes
        self._make = make
        self._head = bytearray()
        self._blank_lines = 0
        self._object_begun = False
        self._parser: Parser | None = None

    def feed(self, piece: bytes) -> list[Item]:
        if self._parser is not None:
            return self._parser.feed(piece)
        self._head += piece
        if self._object_begun and NEWLINE not in piece and len(self._head) <= self._limit:
            return []
        self._drop_blank_lines()
        found = self._look()
        return self._hand_over(found) if found else []

    def finish(self) -> list[Item]:
        items = [] if self._parser is not None else self._hand_over(self._look() or "json")
        return items + (self._parser.finish() if self._parser is not None else [])

    def _hand_over(self, format_name: str) -> list[Item]:
        self._parser = self._make(format_name)
        head = bytes(self._head)
        self._head.clear()
        for at in range(0, self._blank_lines, _BLANK_LINES_FED):
            self._parser.feed(NEWLINE * min(_BLANK_LINES_FED, self._blank_lines - at))
        return self._parser.feed(head)

    def _drop_blank_lines(self) -> None:
        """Keep the number of leading blank lines, not their bytes: there may be a gigabyte of them."""
        blank = len(self._head) - len(self._head.lstrip())
        line = self._head.rfind(NEWLINE, 0, blank) + 1
        self._blank_lines += self._head.count(NEWLINE, 0, line)
        del self._head[:line]
        if blank - line == len(self._head):
            del self._head[:-_LONGEST_INDENT]

    def _look(self) -> str | None:
        """The format, or None where more has to be seen."""
        if b"\0" in self._head[:_BINARY_LOOK_BYTES]:
            raise UsageError(f"{self._name} does not look like text", hint="name its format with --input-format")
        start = bytes(self._head.lstrip())
        if start.startswith(b"["):
            start = b"[" + start[1:].lstrip()
        if not start or start == b"[":
            return None
        if not start.startswith(b"{"):
            return "json" if _ARRAY_BEGINS.match(start) else "lines"
        line, newline, _ = start.partition(NEWLINE)
        if not newline and len(line) <= self._limit:
            self._object_begun = True
            return None
        return "jsonl" if _is_one_value(line, self._limit) else "json"


def _is_one_value(line: bytes, limit: int) -> bool:
    """Whether brackets that open in this line close at its end: broken JSON Lines are still JSON Lines."""
    values = JsonValues("", limit)
    closed = values.feed(line.strip())
    return len(closed) == 1 and not values.finish()
