"""Documents in pieces: each piece of a document becomes an item of its own, with its text and its place in the document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeAlias

from lcbatch.errors import CallFailed, Failure
from lcbatch.ports import DocumentReader, Source
from lcbatch.records import Item
from lcbatch.sources.readers import DocumentText
from lcbatch.sources.source import BATCH_ITEMS

Cut: TypeAlias = Callable[[str], Iterable[tuple[int, int]]]
"""(start, end) of each piece of a text, in characters."""

_READ_AT_ONCE = 4
"""Documents whose texts are in memory together: two are read by worker processes, two wait for them or are cut."""


class InPieces:
    """ports.Source over another one, whose documents it reads and cuts; rows pass as they are.

    A piece has the fields `id` (the document's, `#`, its number), `path`, `name`, `chunk` (its number, from 1), `start` and `end`
    (in characters of the document's text) and `text`. A document that cannot be read is one failed item.
    """

    def __init__(self, source: Source, cut: Cut, reader: Callable[[], DocumentText]) -> None:
        self._source = source
        self._cut = cut
        self._reader = reader

    @property
    def rereadable(self) -> bool:
        """As the source says."""
        return self._source.rereadable

    @property
    def passed_over(self) -> int:
        """As the source says."""
        return self._source.passed_over

    async def batches(self) -> AsyncGenerator[list[Item]]:
        """ports.Source: batches of at most 256 items."""
        async with (
            self._reader() as read,
            aclosing(self._source.batches()) as batches,
        ):
            async for batch in batches:
                for group in _groups(batch):
                    if group[0].document is None:
                        yield group
                        continue
                    texts = await asyncio.gather(*(_text(item, read) for item in group))
                    for item, text in zip(group, texts, strict=True):
                        pieces = await self._pieces(item, text)
                        for at in range(0, len(pieces), BATCH_ITEMS):
                            yield pieces[at : at + BATCH_ITEMS]

    async def _pieces(self, item: Item, text: str | Failure) -> list[Item]:
        if isinstance(text, Failure):
            return [replace(item, document=None, failure=text, id=_label(item, 1))]
        spans = await asyncio.to_thread(lambda: list(self._cut(text)))
        return [_piece(item, number, text, span) for number, span in enumerate(spans, 1)]


def _groups(batch: Sequence[Item]) -> Iterator[list[Item]]:
    """Rows together as they come, documents a few at a time."""
    group: list[Item] = []
    for item in batch:
        is_document = item.document is not None
        if group and (is_document != (group[0].document is not None) or (is_document and len(group) >= _READ_AT_ONCE)):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


async def _text(item: Item, read: DocumentReader) -> str | Failure:
    assert item.document is not None
    if item.document.path == "-":
        return str(item.fields["text"])
    try:
        return await read(item.document)
    except CallFailed as error:
        return error.failure


def _piece(item: Item, number: int, text: str, span: tuple[int, int]) -> Item:
    start, end = span
    label = _label(item, number)
    place = {name: item.fields[name] for name in ("path", "name") if name in item.fields}
    fields = {"id": label, **place, "chunk": number, "start": start, "end": end, "text": text[start:end]}
    return Item(fields, f"{item.place}#{number}", label)


def _label(item: Item, number: int) -> str:
    return f"{item.id}#{number}"
