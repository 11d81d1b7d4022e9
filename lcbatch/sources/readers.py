"""A document's text, read when its row is run: text files here, the others in worker processes."""

from __future__ import annotations

import asyncio
import io
import os
from itertools import chain
from pathlib import PurePath
from types import TracebackType
from typing import Final, Self

from lcbatch.errors import OUT_OF_RESOURCES, CallFailed, Failure, InputMissing, Kind
from lcbatch.records import Document
from lcbatch.sources.encodings import NotText, decode_text
from lcbatch.sources.formats import PACKED_SUFFIXES
from lcbatch.sources.rows import printable
from lcbatch.sources.streams import Unpacker
from lcbatch.sources.workers import Order, Workers

_BY_SUFFIX: Final = {".pdf": "pdf", ".docx": "docx", ".html": "html", ".htm": "html"}
_BY_BEGINNING: Final = ((b"%PDF-", "pdf"), (b"PK\x03\x04", "docx"), (b"<!doctype html", "html"), (b"<html", "html"))
_TEXT_SUFFIXES: Final = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
MEMORY_BYTES: Final = 240 * 1024 * 1024
TIMEOUT_S: Final = 60.0


class DocumentText:
    """Reads documents. An async context manager: entering is free, leaving ends its worker processes at once.

    Text is read in this process, unpacked where its name ends with .gz or .zst; HTML, PDF, DOCX and `--loader` in at most two
    workers, started when first needed and replaced when one dies or takes longer than `timeout_s` on one document.

    Calling it raises CallFailed for a document without text (no_text), one that is broken, no text, not in its encoding,
    encrypted, larger than `max_row_bytes` or changed since it was listed, or that takes a worker more than `memory_bytes`
    (bad_row), and ConfigError for a loader that cannot be imported and for zstd without its extra. A cancelled call ends the
    worker that was busy with it. May be called concurrently; callers wait their turn.
    """

    def __init__(
        self,
        *,
        max_row_bytes: int = MAX_ROW_BYTES,
        memory_bytes: int = MEMORY_BYTES,
        timeout_s: float = TIMEOUT_S,
        processes: int | None = None,
    ) -> None:
        self._max_bytes = max_row_bytes
        self._memory_bytes = memory_bytes
        self._workers = Workers(processes or min(2, os.cpu_count() or 1), timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._workers.close()

    async def __call__(self, document: Document) -> str:
        if document.loader is not None:
            return await self._extract(document, "loader")
        path = PurePath(document.path)
        packed = path.suffix.lower() in PACKED_SUFFIXES
        suffix = (path.with_suffix("") if packed else path).suffix.lower()
        kind = _BY_SUFFIX.get(suffix)
        if kind is None:
            raw = await self._bytes(document)
            if packed:
                raw = await asyncio.to_thread(_unpacked, raw, document, self._max_bytes)
            head = raw[:64].lstrip().lower()
            kinds = (kind for begins, kind in _BY_BEGINNING if head.startswith(begins.lower()))
            kind = None if suffix in _TEXT_SUFFIXES else next(kinds, None)
            if kind is None:
                return _text_of(raw, document)
        if packed:
            raise unreadable(
                document, f"of packed documents only text is read, and this is {kind.upper()}; unpack it first"
            )
        return await self._extract(document, kind)

    async def _bytes(self, document: Document) -> bytes:
        if document.path == "-":
            raise unreadable(document, "it came through a pipe and cannot be read again")
        try:
            # One byte more than expected tells a file that has grown, whatever it has grown to.
            raw = await asyncio.to_thread(_beginning, document.path, min(document.size, self._max_bytes) + 1)
        except OSError as problem:
            if problem.errno in OUT_OF_RESOURCES:
                raise unreadable(document, str(problem.strerror), Kind.LOCAL) from problem
            raise unreadable(document, f"cannot be read ({problem.strerror})") from problem
        if len(raw) != document.size:
            raise unreadable(document, "it changed since it was listed; run the same command again")
        return raw

    async def _extract(self, document: Document, kind: str) -> str:
        order = Order(
            kind=kind,
            path=document.path,
            size=document.size,
            max_bytes=self._max_bytes,
            encoding=document.encoding,
            loader=document.loader,
            # A loader of the user's own may load a model of gigabytes to read with.
            memory_bytes=0 if kind == "loader" else self._memory_bytes,
        )
        answer = await self._workers.run(order)
        if answer.failure is not None:
            raise unreadable(document, answer.text, answer.failure)
        return answer.text


def _beginning(path: str, size: int) -> bytes:
    """Open, read and close in one step of one thread: no more files are open than there are threads."""
    with open(path, "rb") as file:  # noqa: PTH123 - the name may hold undecodable bytes
        return file.read(size)


def _unpacked(raw: bytes, document: Document, max_bytes: int) -> bytes:
    """What is packed in a document, as far as a document may measure. Raises ConfigError for zstd without its extra."""
    unpacker, unpacked = Unpacker(printable(document.path)), io.BytesIO()
    try:
        for piece in chain(unpacker.feed(raw), unpacker.finish()):
            unpacked.write(piece)
            if unpacked.tell() > max_bytes:
                raise unreadable(
                    document, f"unpacked it is larger than {max_bytes} bytes; raise --max-row-bytes or split it"
                )
    except InputMissing as damaged:
        raise unreadable(
            document, f"{damaged.message.removeprefix(f'{printable(document.path)} ')}; copy it again"
        ) from damaged
    return unpacked.getvalue()


def _text_of(raw: bytes, document: Document) -> str:
    try:
        text = decode_text(raw, document.encoding)
    except NotText as problem:
        raise unreadable(document, str(problem)) from problem
    if not text or text.isspace():
        raise unreadable(document, "there is no text in it", Kind.NO_TEXT)
    return text


def unreadable(document: Document, problem: str, kind: Kind = Kind.BAD_ROW) -> CallFailed:
    """The failure of one document."""
    return CallFailed(Failure(kind, f"{printable(document.path)}: {problem}"))
