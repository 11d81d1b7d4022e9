"""Pipes: rows as they arrive, backpressure, and an end that waits for nobody."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest

from lcbatch.errors import InputMissing, Kind, UsageError
from lcbatch.records import Item
from lcbatch.sources.streams import PIPE_CHUNKS, pipe_chunks, stdin_reader

from .reading import fields_of, items_of, read_items, source_of


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as outlet:
        inlet = os.fdopen(writing, "wb", buffering=0)
        yield outlet, inlet
        inlet.close()


def test_the_first_row_of_a_slow_pipe_comes_at_once(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    outlet, inlet = pipe

    async def read() -> list[list[Item]]:
        inlet.write(b'{"a": 1}\n{"a": 2}\n{"a"')
        async with aclosing(source_of("-", stdin=outlet).batches()) as batches:
            first = await anext(batches)
            inlet.write(b": 3}\n")
            second = await anext(batches)
            inlet.close()
            return [first, second, *[batch async for batch in batches]]

    first, second = asyncio.run(read())
    assert fields_of(first) == [{"a": 1}, {"a": 2}]
    assert fields_of(second) == [{"a": 3}]
    assert second[0].place == "stdin:3"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'{"a":\n 1}\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1} {"a": 2}', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1}', [{"a": 1}]),
        (b' [\n{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        (b"one\ntwo", [{"text": "one"}, {"text": "two"}]),
        ("größer\n".encode("utf-16"), [{"text": "größer"}]),
        (b"", []),
        (b"\n\n", []),
    ],
)
def test_the_format_of_a_pipe_is_seen_from_how_it_begins(data: bytes, expected: list[dict[str, object]]) -> None:
    assert fields_of(read_items("-", stdin=BytesIO(data))) == expected


def test_a_pipe_is_one_document_where_documents_are_asked_for() -> None:
    (item,) = read_items("-", documents=True, stdin=BytesIO("\ufeffEin Satz.\r\nNoch einer.".encode()))
    assert item.fields == {"path": "stdin", "name": "stdin", "text": "Ein Satz.\nNoch einer."}
    assert item.document is not None
    assert item.document.path == "-"
    assert len(item.document.digest) == 32


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"x" * 2000, Kind.BAD_ROW, "larger than 1000 bytes"),
        (b"%PDF-1.7 ...", Kind.BAD_ROW, "cannot be read from a pipe"),
        (b" \n", Kind.NO_TEXT, "no text in it"),
        (b"caf\xe9", Kind.BAD_ROW, "byte 0xe9 at position 4 is no UTF-8; --encoding latin-1"),
        (b"a\0b", Kind.BAD_ROW, "does not look like text"),
    ],
)
def test_a_pipe_that_is_no_document_fails_as_a_row(data: bytes, kind: Kind, message: str) -> None:
    (item,) = read_items("-", documents=True, stdin=BytesIO(data), max_row_bytes=1000)
    assert item.failure is not None
    assert item.failure.kind is kind
    assert message in item.failure.message


def test_cancelling_while_the_pipe_is_idle_ends_at_once(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    outlet, _ = pipe

    async def cancelled() -> None:
        reading = asyncio.create_task(_all(outlet))
        for _ in range(5):
            await asyncio.sleep(0)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading

    asyncio.run(cancelled())


async def _all(outlet: BinaryIO) -> None:
    async for _ in source_of("-", stdin=outlet).batches():
        pass


def test_a_process_ends_although_its_reader_still_waits_for_stdin() -> None:
    code = """
import asyncio, sys
from lcbatch.job import InputOptions
from lcbatch.sources import open_source
async def main():
    source = open_source(["-"], InputOptions(), documents=False, own_outputs=frozenset(), stdin=sys.stdin.buffer)
    async for batch in source.batches():
        print(batch[0].place)
        break
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.wait(timeout=10) == 0
        assert process.stdout.read() == b"stdin:1\n"
        assert process.stderr.read() == b""


def test_a_reader_that_waits_takes_a_bounded_number_of_chunks() -> None:
    taken = threading.Semaphore(0)

    class Endless(BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            taken.release()
            return b"x" * (size or 0)

    endless = Endless()

    async def read_one() -> None:
        async with aclosing(pipe_chunks(lambda: stdin_reader(endless))) as chunks:
            await anext(chunks)
            await asyncio.to_thread(lambda: [taken.acquire() for _ in range(PIPE_CHUNKS)])

    asyncio.run(read_one())
    assert endless.reads == PIPE_CHUNKS


def test_a_named_pipe_is_read_like_stdin(tmp_path: Path) -> None:
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(b'{"a": 1}\n',))
    writer.start()
    source = source_of(fifo)
    assert not source.rereadable
    items = items_of(source)
    writer.join()
    assert fields_of(items) == [{"a": 1}]
    assert items[0].place == f"{fifo}:1"


def test_cancelling_ends_although_nobody_opens_the_named_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)

    async def cancelled() -> None:
        reading = asyncio.create_task(_first(fifo))
        for _ in range(5):
            await asyncio.sleep(0)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading

    asyncio.run(cancelled())
    # Lets the reader's thread go, which would otherwise wait in open() until this process ends.
    os.close(os.open(fifo, os.O_RDWR))


async def _first(path: Path) -> None:
    async for _ in source_of(path).batches():
        return


def test_stdin_is_read_once() -> None:
    with pytest.raises(UsageError, match="only once"):
        source_of("-", "-", stdin=BytesIO())


def test_no_stdin_is_a_missing_input() -> None:
    with pytest.raises(InputMissing, match="no stdin"):
        source_of("-", stdin=None)


def test_parquet_cannot_come_through_a_pipe() -> None:
    with pytest.raises(UsageError, match="Parquet cannot be read from a pipe"):
        source_of("-", stdin=BytesIO(), input_format="parquet")


def test_packed_rows_are_unpacked_from_a_pipe_too() -> None:
    assert fields_of(read_items("-", stdin=BytesIO(gzip.compress(b'{"a": 1}\n')))) == [{"a": 1}]


def test_a_bomb_unrolls_piece_by_piece() -> None:
    bomb = gzip.compress(b" " * 20_000_000 + b"\n" * 200_000 + b"end\n", 9)
    items = read_items("-", stdin=BytesIO(bomb))
    assert [item.place for item in items] == ["stdin:200001"]
