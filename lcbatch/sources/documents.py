"""Documents as items: where they lie and what their bytes hash to. Their text is read later, when the row is run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath
from typing import Final

from lcbatch.errors import Failure, Kind
from lcbatch.jsontext import DIGEST_BYTES
from lcbatch.records import Document, Item
from lcbatch.sources.encodings import NotText, decode_text
from lcbatch.sources.folders import Found

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 8 * 1024 * 1024
"""A batch ends at the first of both, so that the first documents start while the others are still being hashed."""

_HASH_BYTES: Final = 1024 * 1024
_BINARY_BEGINNINGS: Final = (b"%PDF-", b"PK\x03\x04")


@dataclass(frozen=True, slots=True)
class Taking:
    """How documents are taken: what every one of them carries, and the size above which it fails."""

    max_bytes: int
    encoding: str
    loader: str | None


async def document_batches(found: Iterable[Found], taking: Taking) -> AsyncGenerator[list[Item], None]:
    """Items for documents as they are found. Listing and hashing run in a thread, batch by batch.

    Cancelling returns at once; the thread ends with the batch that it is at.
    """
    waiting = iter(found)
    while batch := await asyncio.to_thread(_next_batch, waiting, taking):
        yield batch


def _next_batch(found: Iterator[Found], taking: Taking) -> list[Item]:
    batch: list[Item] = []
    size = 0
    for one in found:
        item = document_item(one, taking)
        batch.append(item)
        size += item.document.size if item.document else 0
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            break
    return batch


def document_item(found: Found, taking: Taking) -> Item:
    """The item for one document; one that cannot be read or is too large becomes a failed item. Blocking."""
    if found.problem:
        return _failed(found, found.problem, "mend its permissions, or --exclude it")
    try:
        size, digest = _hashed(found.path, taking.max_bytes)
    except OSError as problem:
        return _failed(found, f"cannot be read ({problem.strerror})", "mend its permissions, or --exclude it")
    if size > taking.max_bytes:
        return _failed(found, f"larger than {taking.max_bytes} bytes", "raise --max-row-bytes or split it")
    document = Document(found.path, digest, size, taking.encoding, taking.loader)
    return Item(_fields(found.shown), found.shown, found.label, document)


def text_item(raw: bytes, name: str, taking: Taking) -> Item:
    """The item for a document that came through a pipe: its text stands in the field `text`, nothing is read later."""
    found = Found("-", name, name)
    if len(raw) > taking.max_bytes:
        return _failed(found, f"larger than {taking.max_bytes} bytes", "raise --max-row-bytes")
    if raw.startswith(_BINARY_BEGINNINGS):
        return _failed(found, "a PDF or DOCX cannot be read from a pipe", "save it to a file and name that")
    try:
        text = decode_text(raw, taking.encoding)
    except NotText as problem:
        return _failed(found, problem.problem, problem.remedy)
    if not text or text.isspace():
        return _failed(found, "there is no text in it", "is what writes into the pipe failing?", Kind.NO_TEXT)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
    return Item({**_fields(name), "text": text}, name, name, Document("-", digest, len(raw), taking.encoding))


def _hashed(path: str, max_bytes: int) -> tuple[int, str]:
    """Size and digest of a file; of one beyond `max_bytes` the size alone, without reading it."""
    state = blake2b(digest_size=DIGEST_BYTES)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - the name may hold undecodable bytes
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            return size, ""
        size = 0
        # A file that grows while it is read is cut here, not followed for ever.
        while size <= max_bytes and (chunk := file.read(_HASH_BYTES)):
            state.update(chunk)
            size += len(chunk)
    return size, state.hexdigest()


def _fields(shown: str) -> dict[str, str]:
    return {"path": shown, "name": PurePath(shown).name}


def _failed(found: Found, problem: str, remedy: str, kind: Kind = Kind.BAD_ROW) -> Item:
    failure = Failure(kind, f"{found.shown}: {problem}; {remedy}")
    return Item(_fields(found.shown), found.shown, found.label, failure=failure)
