"""CSV and TSV, RFC 4180 quoting, UTF-8 without a byte order mark, lines ended by LF.

Conventions: null and what is missing are blank, true and false are words, numbers are their JSON text, lists and
objects are JSON text, NUL is U+2400, lone surrogates are their escape. Columns are fixed by the first row (the
output's by the first answered one). `_extra` holds later fields as an object; it is a column only once some row
needs it, which rewrites the file, except in a pipe, where nothing can be rewritten and it stands from the start.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lcbatch import jsontext
from lcbatch.ports import Entry
from lcbatch.records import Json
from lcbatch.sinks.faults import RewriteNeeded
from lcbatch.sinks.table import WHOLE, Cells, Columns, Cutter, Part, Slot, as_whole, extra_object

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - wide forms are taken alike
_NUMBER = re.compile(r"[+-]?(?:[0-9][0-9.,]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s?%?\Z")

_LONG_CHARS = 1024 * 1024
"""Rows with a longer cell are quoted here in steps: csv.writer puts a whole record together at four bytes a character."""


class _Returns:
    """A file that gives back what is written, so that csv.writer returns a row's text."""

    def write(self, text: str) -> str:
        return text


class CsvTable:
    """A Format with a header. `error` adds a last column of that name, blank for answered rows."""

    def __init__(
        self, cutter: Cutter, *, delimiter: str = ",", error: bool = True, safe: bool = True, in_pipe: bool = False
    ) -> None:
        self._cutter = cutter
        self._delimiter = delimiter
        self._error = error
        self._safe = safe
        self._in_pipe = in_pipe
        self._columns: Columns | None = None
        self._answer_slots: tuple[Slot, ...] | None = None
        self._extra = in_pipe
        # The line end is cut off again below: only with CR in it does csv of 3.11 quote a lone CR, which readers
        # take for a line end.
        self._writer = csv.writer(_Returns(), delimiter=delimiter, lineterminator="\r\n")

    def shape(self) -> Mapping[str, Json]:
        shown = self._cutter.selection.shape()
        return {
            **shown,
            "flatten": self._cutter.flatten,
            "delimiter": self._delimiter,
            "error": self._error,
            "safe": self._safe,
        }

    def resume(self, state: Mapping[str, Json]) -> None:
        self._columns = Columns.from_json(state["columns"]) if state.get("columns") else None

    def begin(self) -> None:
        self._columns = None

    def state(self) -> Mapping[str, Json]:
        return {"columns": self._columns.to_json() if self._columns else None}

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """The rows' lines, after the header if they are the first."""
        if not entries:
            return b""
        answers = [self._cutter.answer(entry) for entry in entries]
        columns, rows = self._columns, []
        if columns is None:
            columns = self._first_columns(entries, answers)
            rows.append(self._header(columns))
        elif columns.provisional:
            columns = self._settled(columns, entries, answers)
        rows += [self._row(columns, entry, cells) for entry, cells in zip(entries, answers, strict=True)]
        self._columns = columns
        if not any(map(_is_long, rows)):
            return _utf8("".join(map(self._text, rows)))
        out = io.BytesIO()
        for row in rows:
            out.writelines(long_record(row, self._delimiter) if _is_long(row) else [_utf8(self._text(row))])
        return out.getvalue()

    def _first_columns(self, entries: Sequence[Entry], answers: Sequence[Cells]) -> Columns:
        done = next((cells for entry, cells in zip(entries, answers, strict=True) if entry.kind is None), None)
        known = self._answer_slots or (tuple(done) if done is not None else None)
        guess = known if known is not None else (WHOLE, *answers[0])
        fields = tuple(self._cutter.fields(entries[0]))
        return Columns(fields + guess, extra=self._extra, error=self._error, provisional=known is None)

    def _settled(self, columns: Columns, entries: Sequence[Entry], answers: Sequence[Cells]) -> Columns:
        """The columns, once an answered row shows whether they were guessed well; if not, a file is rewritten."""
        done = next((cells for entry, cells in zip(entries, answers, strict=True) if entry.kind is None), None)
        if done is None:
            return columns
        if not self._in_pipe and not set(done) <= set(columns.slots):
            self._answer_slots = tuple(done)
            raise RewriteNeeded(now=True)
        return replace(columns, provisional=False)

    def _row(self, columns: Columns, entry: Entry, answer: Cells) -> list[str]:
        if WHOLE in columns.slots and not any(slot.part is Part.KEY for slot in columns.slots):
            answer = as_whole(answer)
        cells = {**self._cutter.fields(entry), **answer}
        row = [self._cell(cells.pop(slot, None)) for slot in columns.slots]
        if cells and not columns.extra:
            self._extra = True
            raise RewriteNeeded(now=True)
        if columns.extra:
            row.append(self._extra_cell(columns, cells) if cells else "")
        if columns.error:
            row.append("" if entry.kind is None else _clean(f"{entry.kind}: {entry.message or ''}"))
        return row

    def _extra_cell(self, columns: Columns, cells: Cells) -> str:
        output_field = self._cutter.selection.output_field
        return jsontext.dumps(extra_object(cells, output_field, columns.names(output_field)))

    def _header(self, columns: Columns) -> list[str]:
        return [self._defused(_clean(name)) for name in columns.names(self._cutter.selection.output_field)]

    def _cell(self, value: Json) -> str:
        if isinstance(value, str):
            return self._defused(_clean(value))
        return "" if value is None else _clean(jsontext.dumps(value))

    def _defused(self, text: str) -> str:
        return "'" + text if self._safe and text.startswith(_FORMULA_STARTS) and not _NUMBER.match(text) else text

    def _text(self, row: Sequence[str]) -> str:
        written: str = self._writer.writerow(row)
        return written[:-2] + "\n"


def _is_long(row: Sequence[str]) -> bool:
    return max(map(len, row)) > _LONG_CHARS


def long_record(row: Sequence[str], delimiter: str, step_chars: int = _LONG_CHARS) -> Iterator[bytes]:
    """What csv.writer makes of a row, as UTF-8 and ended by LF, a long cell in steps.

    Not of a row that is one empty cell: csv.writer quotes that one, since an empty line is no row.
    """
    quoted_for = (delimiter, '"', "\r", "\n")
    before = ""
    for cell in row:
        quote = '"' if any(mark in cell for mark in quoted_for) else ""
        yield _utf8(before + quote)
        for at in range(0, len(cell), step_chars):
            yield _utf8(cell[at : at + step_chars].replace('"', '""'))
        yield _utf8(quote)
        before = delimiter
    yield b"\n"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _clean(text: str) -> str:
    return text.replace("\0", "\u2400")
