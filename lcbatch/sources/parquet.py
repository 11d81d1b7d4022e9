"""Rows of a Parquet file, through pyarrow (an extra), a few hundred at a time."""

from __future__ import annotations

import asyncio
import base64
import importlib
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any, Final

from lcbatch import jsontext
from lcbatch.errors import ConfigError, InputMissing
from lcbatch.records import Item, Json
from lcbatch.sources.rows import bad_row, item_of

BUFFER_BYTES: Final = 1024 * 1024
"""pyarrow reads column chunks whole unless it is given a buffer: with it a big row group does not lie in memory."""


async def parquet_batches(path: Path, name: str, batch_size: int) -> AsyncGenerator[list[Item], None]:
    """Items with places `name:row 7`, counted from 1. Decoding runs in a thread.

    Raises ConfigError without pyarrow, InputMissing for a file that is damaged or no Parquet. Cancelling closes it.
    """
    file = await asyncio.to_thread(_open, path, name)
    try:
        batches = file.iter_batches(batch_size=batch_size)
        first = 1
        while rows := await asyncio.to_thread(_next_rows, batches, name):
            yield [_item(row, f"{name}:row {number}") for number, row in enumerate(rows, first)]
            first += len(rows)
    finally:
        file.close()


_REFUSED = (ValueError, OSError, LookupError, NotImplementedError)
"""What pyarrow's errors for a file that it cannot read are besides."""


def _open(path: Path, name: str) -> Any:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as missing:
        raise ConfigError("reading Parquet needs pyarrow", hint="pip install 'lcbatch[parquet]'") from missing
    try:
        return parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except _REFUSED as problem:
        raise _damaged(name, problem) from problem


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A row with a value that Python has none for: a time beyond the year 9999, or in a zone that nobody knows."""

    column: str
    why: str
    rest: dict[str, Json]


def _next_rows(batches: Any, name: str) -> list[dict[str, Json] | _Unreadable]:
    """The rows of the next batch that has any, as JSON; none at the end."""
    try:
        batch = next((batch for batch in batches if batch.num_rows), None)
    except _REFUSED as problem:
        raise _damaged(name, problem) from problem
    if batch is None:
        return []
    try:
        return [{key: json_value(value) for key, value in row.items()} for row in batch.to_pylist()]
    except Exception:  # noqa: BLE001 - pyarrow passes on what dates, decimals and packages of time zones raise
        return [_row_of(batch, at) for at in range(batch.num_rows)]


def _row_of(batch: Any, at: int) -> dict[str, Json] | _Unreadable:
    """One row value by value, as one of the batch cannot be read."""
    row: dict[str, Json] = {}
    failed: tuple[str, str] | None = None
    for key, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[key] = json_value(column[at].as_py())
        except Exception as problem:  # noqa: BLE001 - as above
            failed = failed or (key, f"{type(problem).__name__}: {problem}")
    return row if failed is None else _Unreadable(*failed, row)


def _item(row: dict[str, Json] | _Unreadable, place: str) -> Item:
    if not isinstance(row, _Unreadable):
        return item_of(row, place)
    problem = f"the value in column {row.column!r} cannot be read ({row.why})"
    return bad_row(place, problem, "mend it, or write that column as text", jsontext.dumps(row.rest))


def _damaged(name: str, problem: Exception) -> InputMissing:
    return InputMissing(f"{name} cannot be read as Parquet: {problem}", hint="is it whole? name its --input-format")


def json_value(value: Any) -> Json:
    """A cell as JSON: times in ISO 8601, durations in seconds, decimals as their digits, bytes as text or base64."""
    if isinstance(value, dict):
        return {str(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else _written_out(value)


def _written_out(value: object) -> Json:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value)
