"""Checksums of what the store holds: SQLite reads a letter that flipped on the disk back as another letter, and says nothing.

A record's sum is CRC-32 over its columns, those by which it is found among them: an index that leads to another record is
noticed as well. It stands in the record's column `sum`, NULL in those that were written before format 5, which are taken as
they are. It is no protection from anybody who means to change a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

ROW = (
    "row_id", "content", "equal_before", "whole", "id", "place", "document", "failure", "fields", "twin", "sample",
)  # fmt: skip
ANSWER = (
    "row_id", "chain_id", "sample", "done", "reply_key", "kind", "message", "account", "finished_at", "output",
    "shared_from",
)  # fmt: skip
REPLY = ("row_id", "request_key", "superseded", "received_at", "cost_usd", "body", "text")
STANDING = ("row_id", "chain_id", "sample", "seq")
"""`again` may be anything: a start settles it. `asked_anew` of answers says of nothing what it is."""

PROJECTION = ("name", "position", "state")
RUN = ("run_id", "started_at", "boot", "command", "job", "figures", "mark")
META = ("name", "value")
ACCEPTS = ("chain_id", "other_id")

FORMAT_WITH_SUMS = 5

_SINCE = {"twin": (3, "0"), "shared_from": (4, "NULL"), "sum": (FORMAT_WITH_SUMS, "NULL")}
_SAMPLES_SINCE = 4
"""Of columns that older formats lack: the first format that has them, and what stands for them."""


def sum_of(*values: object) -> int:
    """The sum of these columns, as Python has them: str, int, float, bytes or None. About 1 us, and 1 us a kilobyte of text."""
    # Texts as they are: repr() of a text is not the same in all versions of Python.
    said = "\0".join([value if type(value) is str else repr(value) for value in values])
    return crc32(said.encode("utf-8", "surrogatepass"))


class OtherSum(ValueError):
    """A record is not as it was written."""


def verify(columns: Sequence[Any], what: str) -> None:
    """Hold a record against its sum, which comes last in `columns`. Raises OtherSum; `what` names the record by its first."""
    *values, kept = columns
    if kept is not None and sum_of(*values) != kept:
        raise OtherSum(f"{what} {values[0]} is not as it was written: its checksum differs")


def selected(columns: Sequence[str], alias: str, version: int) -> str:
    """The columns of a record and its sum, for a SELECT; of a store of this format."""

    def one(name: str) -> str:
        since, otherwise = (_SAMPLES_SINCE, "0") if (alias, name) == ("r", "sample") else _SINCE.get(name, (1, ""))
        return f"{alias}.{name}" if version >= since else otherwise

    return ", ".join(map(one, (*columns, "sum")))


def summed(columns: Sequence[str], prefix: str = "") -> str:
    """The SQL expression of a record's sum: `sum_of` is a function of every connection."""
    return f"sum_of({', '.join(prefix + name for name in columns)})"


def changed(columns: Sequence[str], name: str, value: str, table: str = "") -> str:
    """The SQL expression of a record's new sum, when a column gets another value. A wrong one stays wrong, NULL stays NULL."""
    prefix = f"{table}." if table else ""
    after = summed([value if column == name else prefix + column for column in columns])
    return f"CASE WHEN {prefix}sum = {summed(columns, prefix)} THEN {after} ELSE {prefix}sum END"
