"""Push parsers for formats of one row a line: JSON Lines and plain text lines."""

from __future__ import annotations

from typing import Final, Protocol

from lcbatch import jsontext
from lcbatch.records import Item
from lcbatch.sources.rows import MAX_DEPTH, SHALLOW_BYTES, item_of, parsed_item, too_large, undecodable

NEWLINE: Final = b"\n"


class Parser(Protocol):
    """Takes UTF-8 bytes in pieces of any size and gives the items that became complete.

    The items are the same however the bytes are cut. What cannot be read becomes a failed item; a parser raises only
    UsageError, for a file that cannot be read at all. It holds at most one row of `max_row_bytes`.
    """

    def feed(self, piece: bytes) -> list[Item]: ...

    def finish(self) -> list[Item]: ...


class LineSplitter:
    """Cuts a stream of bytes at its newlines. Of a longer line it keeps `limit + 1` bytes, so that its length tells."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that became complete, without their newline."""
        lines = piece.split(NEWLINE)
        if len(lines) == 1:
            self._hold(piece)
            return []
        if self._held:
            self._hold(lines[0])
            lines[0] = self._release()
        self._hold(lines.pop())
        return lines

    def finish(self) -> list[bytes]:
        """The last line, where no newline ends it."""
        return [self._release()] if self._held else []

    def _hold(self, part: bytes) -> None:
        self._held += part[: self._limit + 1 - len(self._held)]

    def _release(self) -> bytes:
        line = bytes(self._held)
        self._held = bytearray()
        return line


class JsonLines:
    """One JSON object a line. Blank lines are no rows."""

    def __init__(self, name: str, max_row_bytes: int) -> None:
        self._prefix = f"{name}:"
        self._limit = max_row_bytes
        self._lines = LineSplitter(max_row_bytes)
        self._number = 0

    def feed(self, piece: bytes) -> list[Item]:
        return self._items(self._lines.feed(piece))

    def finish(self) -> list[Item]:
        return self._items(self._lines.finish())

    def _items(self, lines: list[bytes]) -> list[Item]:
        items: list[Item] = []
        prefix, limit, loads = self._prefix, self._limit, jsontext.loads
        for number, line in enumerate(lines, self._number + 1):
            if len(line) <= limit:
                try:
                    row = loads(line, finite=True)
                except ValueError:
                    row = None
                if type(row) is dict and (len(line) < SHALLOW_BYTES or line.count(b"{") + line.count(b"[") < MAX_DEPTH):
                    items.append(item_of(row, f"{prefix}{number}"))
                elif line and not line.isspace():
                    items.append(parsed_item(line, f"{prefix}{number}"))
            else:
                items.append(too_large(f"{prefix}{number}", line, limit))
        self._number += len(lines)
        return items


class TextLines:
    """One text a line, as field `text`. Blank lines are no rows."""

    def __init__(self, name: str, max_row_bytes: int) -> None:
        self._name = name
        self._limit = max_row_bytes
        self._lines = LineSplitter(max_row_bytes)
        self._number = 0

    def feed(self, piece: bytes) -> list[Item]:
        return self._items(self._lines.feed(piece))

    def finish(self) -> list[Item]:
        return self._items(self._lines.finish())

    def _items(self, lines: list[bytes]) -> list[Item]:
        numbered = enumerate(lines, self._number + 1)
        self._number += len(lines)
        return [self._item(line, f"{self._name}:{number}") for number, line in numbered if line and not line.isspace()]

    def _item(self, line: bytes, place: str) -> Item:
        if len(line) > self._limit:
            return too_large(place, line, self._limit)
        try:
            return Item({"text": line.removesuffix(b"\r").decode()}, place)
        except UnicodeDecodeError as problem:
            return undecodable(place, line, problem)
