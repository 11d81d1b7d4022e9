"""Helpers: read a source to its end, feed a parser in pieces."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

from lcbatch.job import InputOptions
from lcbatch.ports import Source
from lcbatch.records import Item
from lcbatch.sources import open_source
from lcbatch.sources.lines import Parser


def source_of(
    *inputs: str | Path,
    documents: bool = False,
    own_outputs: frozenset[Path] = frozenset(),
    stdin: BinaryIO | None = None,
    **options: Any,
) -> Source:
    return open_source(
        [str(one) for one in inputs],
        InputOptions(**options),
        documents=documents,
        own_outputs=own_outputs,
        stdin=stdin,
    )


def batches_of(source: Source) -> list[list[Item]]:
    async def read() -> list[list[Item]]:
        async with aclosing(source.batches()) as batches:
            return [batch async for batch in batches]

    return asyncio.run(read())


def items_of(source: Source) -> list[Item]:
    return [item for batch in batches_of(source) for item in batch]


def read_items(*inputs: str | Path, **options: Any) -> list[Item]:
    return items_of(source_of(*inputs, **options))


def fields_of(items: list[Item]) -> list[dict[str, Any]]:
    """The fields of good items; a failed one fails the test with its message."""
    assert [item.failure.message for item in items if item.failure] == []
    return [dict(item.fields) for item in items]


def fed(parser: Parser, data: bytes, piece_bytes: int) -> list[Item]:
    items: list[Item] = []
    for at in range(0, len(data), piece_bytes):
        items += parser.feed(data[at : at + piece_bytes])
    return items + parser.finish()
