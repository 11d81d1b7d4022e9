"""Rows of a Parquet file, through pyarrow (an extra), a few hundred at a time."""

from __future__ import annotations

import asyncio
import base64
import importlib
import math
from collections.abc import AsyncGenerator
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any, Final

from lcbatch.errors import ConfigError, InputMissing
from lcbatch.records import Item, Json
from lcbatch.sources.rows import item_of

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
            yield [item_of(row, f"{name}:row {number}") for number, row in enumerate(rows, first)]
            first += len(rows)
    finally:
        file.close()


def _open(path: Path, name: str) -> Any:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as missing:
        raise ConfigError("reading Parquet needs pyarrow", hint="pip install 'lcbatch[parquet]'") from missing
    try:
        return parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (ValueError, OSError) as problem:  # pyarrow's errors are ValueErrors and OSErrors
        raise _damaged(name, problem) from problem


def _next_rows(batches: Any, name: str) -> list[dict[str, Json]]:
    """The rows of the next batch that has any, as JSON; none at the end."""
    try:
        for batch in batches:
            if batch.num_rows:
                return [{key: json_value(value) for key, value in row.items()} for row in batch.to_pylist()]
    except (ValueError, OSError) as problem:
        raise _damaged(name, problem) from problem
    return []


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
