"""A push parser for CSV and TSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Final

from lcbatch.errors import UsageError
from lcbatch.records import Item
from lcbatch.sources.lines import NEWLINE, LineSplitter
from lcbatch.sources.rows import bad_row, item_of, too_large, undecodable

_QUOTE: Final = b'"'
_RECOVERABLE_BYTES: Final = 1024 * 1024
"""How far back reading returns after a quote that never closed: further would hold too many rows at once."""
_MOST_RECOVERIES: Final = 16
"""Each recovery reads up to 1 MiB a second time; a file made of stray quotes must not take quadratic time."""


_LONG_CHARS: Final = 1024 * 1024
_LONE_CR: Final = re.compile(r"\r(?![\r\n]|\Z)")
_TO_CLOSING: Final = re.compile('[^"]*+(?:""[^"]*+)*+"')


def long_cells(record: str, delimiter: str) -> list[str] | None:
    """What the csv module makes of a record without its line end, at a quarter of its memory; None where in doubt."""
    cells: list[str] = []
    at = 0
    while True:
        if record.startswith('"', at):
            quoted = _TO_CLOSING.match(record, at + 1)
            if quoted is None:
                return None
            cells.append(record[at + 1 : quoted.end() - 1].replace('""', '"'))
            at = quoted.end()
        else:
            stop = record.find(delimiter, at)
            cells.append(record[at : stop if stop >= 0 else len(record)])
            if "\r" in cells[-1] or "\n" in cells[-1]:
                return None
            at += len(cells[-1])
        if at == len(record):
            return cells
        if not record.startswith(delimiter, at):
            return None
        at += 1


class Table:
    """Rows under a header, cells as text. Quoted cells may hold delimiters, doubled quotes and newlines.

    `delimiter` None: the comma, unless the header has none and has semicolons or tabs. A row's place is the line where
    it begins. Where a quote never closes, that line fails and reading goes on behind it. Raises UsageError for a header
    with empty or repeated names.
    """

    def __init__(self, name: str, max_row_bytes: int, delimiter: str | None) -> None:
        self._name = name
        self._limit = max_row_bytes
        self._delimiter = delimiter or ","
        self._sniffs = delimiter is None
        self._quote_opens = self._delimiter.encode() + _QUOTE
        self._header: list[str] | None = None
        self._lines = LineSplitter(max_row_bytes)
        self._number = 0
        self._begun_at = 0
        # Joined as they come: an object for each line would take twenty times what short lines measure.
        self._open = bytearray()
        self._recoveries = 0
        # The csv module's limit is the process's, and at 128 KiB a cell it is far below ours.
        csv.field_size_limit(max(csv.field_size_limit(), max_row_bytes))

    def feed(self, piece: bytes) -> list[Item]:
        return self._items(self._records(self._lines.feed(piece)))

    def finish(self) -> list[Item]:
        items = self._items(self._records(self._lines.finish()))
        while self._open:
            items += self._recover()
        return items

    def _items(self, records: Iterator[tuple[int, bytes]]) -> list[Item]:
        items: list[Item] = []
        for number, record in records:
            if self._header is None:
                self._read_header(record)
            elif (item := self._item(record, f"{self._name}:{number}")) is not None:
                items.append(item)
            if len(self._open) > self._limit:
                items += self._recover()
        return items

    def _records(self, lines: list[bytes]) -> Iterator[tuple[int, bytes]]:
        """Complete records with the line where each begins; a blank one stands for a record that got too long."""
        for line in lines:
            self._number += 1
            if len(line) > self._limit:  # the splitter cut it, so where its quotes close is not known
                yield (self._begun_at if self._take_open() else self._number), line
                continue
            if not self._open and (_QUOTE not in line or not self._ends_open(line, quoted=False)):
                if line.strip(b" \r"):  # a tab is a delimiter, not a blank
                    yield self._number, line
                continue
            if not self._open:
                self._begun_at = self._number
                self._open += line
                continue
            self._open += NEWLINE
            self._open += line
            if not self._ends_open(line, quoted=True):
                yield self._begun_at, self._take_open()
            elif len(self._open) > self._limit:
                yield self._begun_at, b""

    def _ends_open(self, line: bytes, *, quoted: bool) -> bool:
        """Whether a quoted cell is still open behind this line. A quote inside an unquoted cell is a character."""
        position = 0
        if not quoted:
            self._settle_delimiter(line)
            if not line.startswith(_QUOTE):
                position = line.find(self._quote_opens) + 1
                if not position:
                    return False
            position += 1 if line.startswith(_QUOTE) else len(self._quote_opens) - 1
        while True:
            position = line.find(_QUOTE, position)
            if position < 0:
                return True
            if line.startswith(_QUOTE, position + 1):
                position += 2
                continue
            position = line.find(self._quote_opens, position + 1)
            if position < 0:
                return False
            position += len(self._quote_opens)

    def _settle_delimiter(self, line: bytes) -> None:
        """Look once, at the first line, for semicolons or tabs where there is no comma outside quotes."""
        if not self._sniffs:
            return
        self._sniffs = False
        unquoted = b"".join(line.split(_QUOTE)[::2])
        rivals = [mark for mark in (";", "\t") if mark.encode() in unquoted]
        if b"," not in unquoted and rivals:
            self._delimiter = max(rivals, key=lambda mark: unquoted.count(mark.encode()))
            self._quote_opens = self._delimiter.encode() + _QUOTE

    def _read_header(self, record: bytes) -> None:
        if len(record) > self._limit:
            self._refuse_lone_cr(record[:_LONG_CHARS].decode("latin-1"))
            raise UsageError(f"{self._name}: the header is larger than a row may be", hint="is this a table at all?")
        self._settle_delimiter(record)
        try:
            header = next(csv.reader([record.decode()], delimiter=self._delimiter))
        except (UnicodeDecodeError, csv.Error) as problem:
            self._refuse_lone_cr(record.decode("latin-1"))
            raise UsageError(
                f"{self._name}: the header cannot be read ({problem})",
                hint="name its encoding with --encoding, or its format with --input-format",
            ) from problem
        repeated = sorted({name for name in header if header.count(name) > 1 and name.strip()})
        empty = [str(column) for column, name in enumerate(header, 1) if not name.strip()]
        if repeated or empty:
            what = [f"{', '.join(map(repr, repeated))} more than once"] if repeated else []
            what += [f"no name for column {', '.join(empty)}"] if empty else []
            raise UsageError(
                f"{self._name}: the header has {' and '.join(what)}", hint="the first line must name each column once"
            )
        self._header = header

    def _refuse_lone_cr(self, header: str) -> None:
        """Raise UsageError for a table of old, whose lines all stand in one for us."""
        if _LONE_CR.search(header):
            raise UsageError(
                f"{self._name}: its lines end with CR alone, as old spreadsheets wrote them",
                hint="make lines of them: tr '\\r' '\\n' < old.csv > new.csv",
            )

    def _item(self, record: bytes, place: str) -> Item | None:
        if not record:
            return None
        if len(record) > self._limit:
            return too_large(place, record, self._limit)
        header = self._header or []
        try:
            cells = self._cells(record.decode())
        except UnicodeDecodeError as problem:
            return undecodable(place, record, problem)
        except csv.Error as problem:
            why = "a CR stands in a cell without quotes" if _LONE_CR.search(record.decode()) else str(problem)
            return bad_row(place, f"broken CSV ({why})", "mend or delete it", record)
        if len(cells) != len(header):
            counts = f"{len(cells)} cells, but the header has {len(header)}"
            return bad_row(place, counts, "mend it, or check --delimiter", record)
        return item_of(dict(zip(header, cells, strict=True)), place)

    def _cells(self, record: str) -> list[str]:
        """The cells of one record. Raises csv.Error."""
        plain = record.removesuffix("\r")
        if '"' not in plain and "\r" not in plain:
            return plain.split(self._delimiter)  # the same, and the csv module would take four bytes a character
        if len(record) > _LONG_CHARS and (cells := long_cells(plain, self._delimiter)) is not None:
            return cells
        return next(csv.reader([record], delimiter=self._delimiter))

    def _take_open(self) -> bytes:
        record = bytes(self._open)
        self._open = bytearray()
        return record

    def _recover(self) -> list[Item]:
        """Give up on the record that never closed: its first line fails, the lines behind it are read again."""
        begun_at, last = self._begun_at, self._number
        record = self._take_open()
        again = len(record) < _RECOVERABLE_BYTES and self._recoveries < _MOST_RECOVERIES
        kept, *rest = record.split(NEWLINE) if again else [record]
        self._recoveries += 1
        lost = "" if again or last == begun_at else f"; lines {begun_at} to {last} are lost to it"
        if self._header is None:
            raise UsageError(f"{self._name}: a quote in the header never closes", hint="mend its first line")
        place = f"{self._name}:{begun_at}"
        failed = bad_row(place, f"a quote opened here never closes{lost}", "close or double it", kept)
        self._number = begun_at if again else last
        return [failed, *self._items(self._records(rest))]
