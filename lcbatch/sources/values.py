"""A push parser for JSON arrays and for JSON values that follow each other: one element in memory at a time."""

from __future__ import annotations

import re
from typing import Final

from lcbatch.records import Item
from lcbatch.sources.rows import bad_row, parsed_item, too_large

_QUOTE: Final = ord('"')
_GAP: Final = re.compile(rb"[\s,]*+")
_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_STRING_REST: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SCALAR: Final = re.compile(rb'[^\s,\[\]{}"]*+')


class JsonValues:
    """Elements of top-level arrays, and top-level values that stand one after another.

    Brackets alone decide where an element ends, so a broken element costs itself and the next one is read again. Of an
    element beyond `max_row_bytes` the end is looked for without keeping it. Places are `name[3]` inside an array
    (counted from 0), `name:12` (the line) outside.
    """

    def __init__(self, name: str, max_row_bytes: int) -> None:
        self._name = name
        self._limit = max_row_bytes
        self._held = bytearray()
        self._depth = 0
        self._inside = self._in_string = self._in_scalar = self._escaped = self._in_array = False
        self._index = 0
        self._line = 1
        self._place = name

    def feed(self, piece: bytes) -> list[Item]:
        items: list[Item] = []
        position = counted = begin = 0
        while position < len(piece):
            if not self._inside:
                position = _match_end(_GAP, piece, position)
                if position == len(piece):
                    break
                self._line += piece.count(b"\n", counted, position)
                begin = counted = position
                opened = self._open(piece[position : position + 1])
                position += 1
                if not opened:
                    continue
            position = self._advance(piece, position)
            if not self._inside:
                items.append(self._element(piece[begin:position]))
        if self._inside:
            self._hold(piece[begin:])
        self._line += piece.count(b"\n", counted)
        return items

    def finish(self) -> list[Item]:
        items = [self._element(b"")] if self._inside and self._in_scalar else []
        if self._inside and not self._in_scalar:
            items.append(self._unclosed("this value never closes"))
        elif self._in_array:
            self._place = self._next_place()
            items.append(self._unclosed("the array never closes"))
        return items

    def _open(self, first: bytes) -> bool:
        """Whether this byte begins an element; else it is a bracket of the top level."""
        if first == (b"]" if self._in_array else b"["):
            self._in_array = not self._in_array
            return False
        self._place = self._next_place()
        self._inside = True
        self._depth = 1 if first in b"{[" else 0
        self._in_string = first == b'"'
        # A stray closing bracket is an element of its own: it fails, and what follows is read.
        self._in_scalar = first not in b'{["]}'
        return True

    def _advance(self, piece: bytes, position: int) -> int:
        """Go on inside an element; at its end `_inside` is False, else the piece is used up."""
        while self._depth or self._in_string or self._in_scalar:
            if position == len(piece):
                return position
            if self._in_string:
                position = self._end_of_string(piece, position)
            elif self._depth:
                position = self._next_bracket(piece, position)
            else:
                position = _match_end(_SCALAR, piece, position)
                self._in_scalar = position == len(piece)
        self._inside = False
        return position

    def _next_bracket(self, piece: bytes, position: int) -> int:
        position = _match_end(_TO_BRACKET, piece, position)
        if position == len(piece):
            return position
        byte = piece[position]
        if byte == _QUOTE:  # of a string whose end is not in this piece
            self._in_string = True
        else:
            self._depth += 1 if byte in b"{[" else -1
        return position + 1

    def _end_of_string(self, piece: bytes, position: int) -> int:
        position = _match_end(_STRING_REST, piece, position + self._escaped)
        self._escaped = False
        if position == len(piece):
            return position
        if piece[position] == _QUOTE:
            self._in_string = False
        else:
            self._escaped = True  # a backslash stands at the very end; what it escapes comes with the next piece
        return position + 1

    def _hold(self, part: bytes) -> None:
        self._held += part[: self._limit + 1 - len(self._held)]

    def _release(self) -> bytes:
        raw = bytes(self._held)
        self._held = bytearray()
        return raw

    def _element(self, tail: bytes) -> Item:
        if self._held:
            self._hold(tail)
            tail = self._release()
        if self._in_array:
            self._index += 1
        if len(tail) > self._limit:
            return too_large(self._place, tail, self._limit)
        return parsed_item(tail, self._place)

    def _unclosed(self, problem: str) -> Item:
        raw = self._release()
        return bad_row(self._place, f"{problem}; the file ends at line {self._line}", "is it cut off?", raw)

    def _next_place(self) -> str:
        return f"{self._name}[{self._index}]" if self._in_array else f"{self._name}:{self._line}"


def _match_end(pattern: re.Pattern[bytes], piece: bytes, position: int) -> int:
    """Where a pattern that matches anywhere, if only the empty text, ends."""
    match = pattern.match(piece, position)
    return match.end() if match else position
