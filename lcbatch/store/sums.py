"""Checksums of what the store holds: SQLite reads a letter that flipped on the disk back as another letter, and says nothing.

A record's sum is CRC-32 over its columns, those by which it is found among them: an index that leads to another record is
noticed as well. It stands in the record's column `sum`, NULL in those that were written before format 5, which are taken as
they are. It is no protection from anybody who means to change a store.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

_BLOBS = frozenset({"content", "whole", "reply_key", "request_key"})
_TEXTS = frozenset({"fields", "output", "body", "text"})

_LONG_CHARS = 1024 * 1024
"""A longer text enters a sum by its length and a sum of its own, made in steps: joined to the others it would be in memory twice
more."""


@dataclass(frozen=True, slots=True)
class Record:
    """A table's columns that its sum is over. `template` makes their text at once, in half the time of one by one.

    `texts` is where those stand that may be long.
    """

    columns: tuple[str, ...]
    template: str
    texts: tuple[int, ...]

    @classmethod
    def of(cls, columns: str) -> Record:
        names = tuple(columns.split())
        template = "\0".join("%a" if name in _BLOBS else "%s" for name in names)
        return cls(names, template, tuple(at for at, name in enumerate(names) if name in _TEXTS))

    def __len__(self) -> int:
        return len(self.columns)

    def sum(self, *values: object) -> int:
        """What `sum_of` says. About 1 us, and 1 us a kilobyte of text."""
        for at in self.texts:
            if type(value := values[at]) is str and len(value) > _LONG_CHARS:
                values = tuple(map(_in_short, values))
        said = self.template % values
        if len(said) > _LONG_CHARS:
            said = self.template % tuple(map(_in_short, values))
        return crc32(said.encode())


ROW = Record.of("row_id content equal_before whole id place document failure fields twin sample")
ANSWER = Record.of("row_id chain_id sample done reply_key kind message account output shared_from")
REPLY = Record.of("row_id request_key superseded cost_usd body text")
STANDING = Record.of("row_id chain_id sample seq")
"""`again` may be anything: a start settles it. `asked_anew` of answers says of nothing what it is, and no output shows
the times at which replies came and rows ended."""

PROJECTION = Record.of("name position state")
RUN = Record.of("run_id started_at boot command job figures mark")
META = Record.of("name value")
ACCEPTS = Record.of("chain_id other_id")

FORMAT_WITH_SUMS = 5

_SINCE = {"twin": (3, "0"), "shared_from": (4, "NULL"), "sum": (FORMAT_WITH_SUMS, "NULL")}
_SAMPLES_SINCE = 4
"""Of columns that older formats lack: the first format that has them, and what stands for them."""


def sum_of(*values: object) -> int:
    """The sum of these columns, as Python has them: str, int, float, bytes or None. As SQL calls it."""
    # Texts as they are: repr() of a text is not the same in all versions of Python.
    said = "\0".join([_in_short(value) if type(value) is str else repr(value) for value in values])
    return crc32(said.encode())


def entering(utf8: bytes) -> str:
    """A text in UTF-8 as what enters a sum."""
    if len(utf8) <= _LONG_CHARS:
        return utf8.decode()
    steps = (utf8[at : at + _LONG_CHARS] for at in range(0, len(utf8), _LONG_CHARS))
    chars = sum(map(len, codecs.iterdecode(steps, "utf-8")))
    return _said_in_short(chars, crc32(utf8)) if chars > _LONG_CHARS else utf8.decode()


def _in_short(value: Any) -> Any:
    if type(value) is not str or len(value) <= _LONG_CHARS:
        return value
    of_text = 0
    for at in range(0, len(value), _LONG_CHARS):
        of_text = crc32(value[at : at + _LONG_CHARS].encode(), of_text)
    return _said_in_short(len(value), of_text)


def _said_in_short(chars: int, of_text: int) -> str:
    return f"{chars} characters of {of_text}"


class OtherSum(ValueError):
    """A record is not as it was written."""


def verify(record: Record, columns: Sequence[Any], what: str) -> None:
    """Hold a record against its sum, which comes last in `columns`; one without a sum against the types of its columns.

    Raises OtherSum; `what` names the record by its first column.
    """
    kept = columns[-1]
    if kept is None:
        _has_types(record, columns[:-1], what)
    elif record.sum(*columns[:-1]) != kept:
        raise OtherSum(f"{what} {columns[0]} is not as it was written: its checksum differs")


_COUNTS = frozenset({"row_id", "chain_id", "other_id", "equal_before", "sample", "seq", "run_id"})
_NUMBERS = _COUNTS | {
    "twin", "done", "shared_from", "superseded", "finished_at", "received_at", "started_at", "cost_usd", "position",
}  # fmt: skip


def _has_types(record: Record, values: Sequence[Any], what: str) -> None:
    for name, value in zip(record.columns, values, strict=True):
        types = bytes if name in _BLOBS else (int, float) if name in _NUMBERS else str
        negative = name in _COUNTS and isinstance(value, int) and value < 0
        if value is not None and (negative or not isinstance(value, types)):
            raise OtherSum(f"{what} {values[0]} is not as it was written: its {name} is {value!r:.40}")


def selected(record: Record, alias: str, version: int, *, texts_where: str = "") -> str:
    """The columns of a record and its sum, for a SELECT; of a store of this format.

    `texts_where` is a condition, without which the columns that may be long are NULL.
    """

    def one(name: str) -> str:
        since, otherwise = (_SAMPLES_SINCE, "0") if (alias, name) == ("r", "sample") else _SINCE.get(name, (1, ""))
        if version < since:
            return otherwise
        column = f"{alias}.{name}"
        return f"CASE WHEN {texts_where} THEN {column} END" if texts_where and name in _TEXTS else column

    return ", ".join(map(one, (*record.columns, "sum")))


def summed(record: Record, prefix: str = "", **others: str) -> str:
    """The SQL expression of a record's sum; `others` are columns of which it is over another value than they have."""
    return f"sum_of({', '.join(others.get(name, prefix + name) for name in record.columns)})"


def changed(record: Record, table: str = "", **others: str) -> str:
    """The SQL expression of a record's new sum, when a column gets another value. A wrong one stays wrong, NULL stays NULL."""
    prefix = f"{table}." if table else ""
    return (
        f"CASE WHEN {prefix}sum = {summed(record, prefix)} THEN {summed(record, prefix, **others)} ELSE {prefix}sum END"
    )
