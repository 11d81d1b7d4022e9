"""The input of a run: its parts one after another, each read in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias

from lcbatch.errors import OUT_OF_RESOURCES, InputDamaged, InputMissing, UsageError, ran_out
from lcbatch.records import Item
from lcbatch.sources.documents import Taking, text_item
from lcbatch.sources.encodings import Transcoder
from lcbatch.sources.folders import Walk, no_documents
from lcbatch.sources.formats import Reading, parser_for
from lcbatch.sources.streams import Chunks, Unpacker

BATCH_ITEMS: Final = 256
_PIECE_BYTES: Final = 32 * 1024
"""What a parser gets at once: the shortest rows give a few thousand items, not a hundred thousand."""

Batches: TypeAlias = AsyncGenerator[list[Item], None]
Part: TypeAlias = Callable[[], Batches]
"""Begins one reading of one input."""


class Inputs:
    """Several inputs as one source, in the order given. Nothing is open unless it is iterated.

    Folders are looked into before anything is read: one without a document raises InputMissing before the first item. An
    input that is damaged does not keep the others from being read: behind the last row of all InputDamaged says what is
    wrong with it, or, where there was no row at all, its own error.
    """

    def __init__(self, parts: Sequence[Part], walks: Sequence[Walk], *, rereadable: bool) -> None:
        self.rereadable = rereadable
        self.passed_over = 0
        self._parts = parts
        self._walks = walks

    async def batches(self) -> AsyncGenerator[list[Item]]:
        """Batches of at most 256 items. Cancelling, or closing the iterator, closes what is open."""
        await asyncio.to_thread(_check_folders, self._walks)
        unread: list[InputMissing | UsageError] = []
        any_row = False
        for part in self._parts:
            try:
                async with aclosing(part()) as batches:
                    async for batch in batches:
                        any_row = True
                        yield batch
            except (InputMissing, UsageError) as problem:
                unread.append(problem)
            self.passed_over = sum(walk.passed_over.total() for walk in self._walks)
        if unread:
            raise _damaged(unread) if any_row else unread[0]


def _damaged(unread: Sequence[InputMissing | UsageError]) -> InputDamaged:
    first, *others = unread
    also = "".join(f"\n  and {other.message}" for other in others)
    return InputDamaged(first.message + also, hint=first.hint)


def _check_folders(walks: Sequence[Walk]) -> None:
    for walk in walks:
        if next(iter(walk), None) is None:
            raise no_documents(walk)
        walk.passed_over.clear()


async def row_batches(chunks: Chunks, name: str, format_name: str | None, reading: Reading) -> Batches:
    """Rows as the stream brings them: a batch ends at 256 items, and wherever the stream has brought no more yet."""
    parser = parser_for(name, format_name, reading)
    unpacker, transcoder = Unpacker(name), Transcoder(reading.encoding)
    items: list[Item] = []
    async with aclosing(_readable(chunks, name)) as raw:
        async for chunk in raw:
            for unpacked in unpacker.feed(chunk):
                text = transcoder.feed(unpacked)
                for at in range(0, len(text), _PIECE_BYTES):
                    items += parser.feed(text[at : at + _PIECE_BYTES])
                    while len(items) >= BATCH_ITEMS:
                        yield items[:BATCH_ITEMS]
                        del items[:BATCH_ITEMS]
            if items:
                yield items
                items = []
            if unpacker.damaged:
                break
    for unpacked in unpacker.finish():
        items += parser.feed(transcoder.feed(unpacked))
    items += parser.feed(transcoder.finish())
    items += parser.finish()
    for at in range(0, len(items), BATCH_ITEMS):
        yield items[at : at + BATCH_ITEMS]


async def text_batches(chunks: Chunks, name: str, taking: Taking) -> Batches:
    """A whole stream as one document. Beyond the size limit the rest is not kept."""
    unpacker = Unpacker(name)
    whole = bytearray()
    size = 0
    async with aclosing(_readable(chunks, name)) as raw:
        async for chunk in raw:
            for unpacked in unpacker.feed(chunk):
                if size <= taking.max_bytes:
                    whole += unpacked
                size += len(unpacked)
            if size > taking.max_bytes or unpacker.damaged:
                break
    if size <= taking.max_bytes:
        for unpacked in unpacker.finish():
            whole += unpacked
    yield [text_item(bytes(whole), name, taking)]


async def _readable(chunks: Chunks, name: str) -> Chunks:
    """The same chunks; an error of the system as one that ends the run, since what follows is unknown."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    except OSError as problem:
        if problem.errno in OUT_OF_RESOURCES:
            raise ran_out(f"{name} cannot be read: {problem.strerror}") from problem
        raise InputMissing(
            f"{name} cannot be read: {problem.strerror or problem}", hint="is it still there?"
        ) from problem
