"""Streams of bytes: regular files through aiofiles, pipes and terminals through a thread; unpacking on the way."""

from __future__ import annotations

import asyncio
import io
import os
import select
import stat
import threading
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, TypeAlias

from lcbatch.errors import ConfigError, InputMissing

if TYPE_CHECKING:
    from aiofiles.threadpool.binary import AsyncBufferedReader

FILE_CHUNK_BYTES: Final = 256 * 1024
PIPE_CHUNK_BYTES: Final = 64 * 1024
PIPE_CHUNKS: Final = 8
"""Chunks read ahead of the parser; beyond them the pipe itself fills up and its writer waits."""

UNPACKED_BYTES: Final = 256 * 1024
"""Largest piece that unpacking gives at once, whatever the ratio: a bomb unrolls as slowly as it is read."""

Chunks: TypeAlias = AsyncGenerator[bytes, None]
Read: TypeAlias = Callable[[], bytes]
OpenRead: TypeAlias = Callable[[], AbstractContextManager[Read]]


async def file_chunks(path: Path) -> Chunks:
    """The bytes of a regular file. Raises OSError. Cancelling closes the file."""
    opening = asyncio.create_task(_opened(path))
    try:
        file = await asyncio.shield(opening)
        while chunk := await file.read(FILE_CHUNK_BYTES):
            yield chunk
    finally:
        await _undisturbed(asyncio.create_task(_closed(opening)))


async def _opened(path: Path) -> AsyncBufferedReader:
    import aiofiles  # noqa: PLC0415 - only where a file is read

    return await aiofiles.open(path, "rb")


async def _closed(opening: asyncio.Task[AsyncBufferedReader]) -> None:
    """Close what is open, or about to be."""
    await asyncio.wait({opening})
    if opening.exception() is None:
        await opening.result().close()


async def _undisturbed(task: asyncio.Task[None]) -> None:
    """Wait for a task to its end, and be cancelled only then: a cancelled await calls off what no thread has begun."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as cancel:
            cancelled = cancel
    task.result()
    if cancelled is not None:
        raise cancelled


async def pipe_chunks(open_read: OpenRead) -> Chunks:
    """The bytes of something whose read may block for ever, as soon as they arrive.

    `open_read` and the function it gives run in a daemon thread. A cancelled iteration ends at once and leaves the
    thread in its read: nobody waits for it, neither the loop nor the interpreter at its end. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes | OSError] = asyncio.Queue()  # bounded by `room`
    room = threading.Semaphore(PIPE_CHUNKS)
    stopped = threading.Event()

    def deliver(chunk: bytes | OSError) -> None:
        with suppress(RuntimeError):  # the loop was closed while we were reading
            loop.call_soon_threadsafe(arrived.put_nowait, chunk)

    def pump() -> None:
        try:
            with open_read() as read:
                chunk = b"-"
                while chunk:
                    room.acquire()
                    if stopped.is_set():
                        return
                    chunk = read()
                    deliver(chunk)
        except OSError as problem:
            deliver(problem)

    threading.Thread(target=pump, name="lcbatch-pipe", daemon=True).start()
    try:
        while True:
            chunk = await arrived.get()
            if isinstance(chunk, OSError):
                raise chunk
            if not chunk:
                return
            yield chunk
            room.release()
    finally:
        stopped.set()
        room.release()


@contextmanager
def stdin_reader(stdin: BinaryIO) -> Iterator[Read]:
    """A blocking read of what is there, at most 64 KiB.

    It reads the descriptor, not the buffered object: a thread that dies with the interpreter while it holds that
    object's lock aborts the process. So nothing may have been read from the object before.
    """
    try:
        descriptor = stdin.fileno()
    except (AttributeError, io.UnsupportedOperation):
        yield lambda: stdin.read(PIPE_CHUNK_BYTES)
    else:
        yield lambda: _read_descriptor(descriptor)


@contextmanager
def path_reader(path: Path) -> Iterator[Read]:
    """The same for a FIFO or a device by its name. Opening blocks until somebody writes."""
    with path.open("rb", buffering=0) as file:
        yield lambda: _read_descriptor(file.fileno())


def _read_descriptor(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, PIPE_CHUNK_BYTES)
        except BlockingIOError:  # another program left the shared pipe non-blocking
            select.select([descriptor], [], [])


def is_regular(path: Path) -> bool:
    """Whether reading it twice gives the same: a file, no FIFO, device or socket. Raises OSError."""
    return stat.S_ISREG(path.stat().st_mode)


class _Unpacks(Protocol):
    def feed(self, chunk: bytes) -> Iterator[bytes]: ...

    def whole(self) -> bool: ...


class _Plain:
    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def whole(self) -> bool:
        return True


class _Gzip:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._began = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member.eof:  # members follow each other, and some tools pad the last with zeros
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    return
                self._member = zlib.decompressobj(wbits=31)
            before = self._member.copy()
            try:
                unpacked = self._member.decompress(chunk, UNPACKED_BYTES)
            except zlib.error:
                yield _up_to_damage(before, chunk)
                raise
            yield unpacked
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def whole(self) -> bool:
        return self._member.eof


def _up_to_damage(member: zlib._Decompress, chunk: bytes) -> bytes:
    """What zlib throws away with the call that finds the damage: it would have been less than `UNPACKED_BYTES`."""
    unpacked = bytearray()
    with suppress(zlib.error):
        for at in range(len(chunk)):
            unpacked += member.decompress(chunk[at : at + 1])
    return bytes(unpacked)


class _Zstandard:
    _STEP = 512
    """A block of four bytes may stand for 128 KiB: small steps bound what comes out of one call to 16 MiB."""

    def __init__(self) -> None:
        try:
            import zstandard  # noqa: PLC0415 - an extra
        except ImportError as missing:
            raise ConfigError("this input is packed with zstd", hint="pip install 'lcbatch[zstd]'") from missing
        self._new_frame: Callable[[], Any] = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame = self._new_frame()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        try:
            for at in range(0, len(chunk), self._STEP):
                step = chunk[at : at + self._STEP]
                while step:
                    if self._frame.eof:
                        self._frame = self._new_frame()
                    unpacked = self._frame.decompress(step)
                    for begin in range(0, len(unpacked), UNPACKED_BYTES):
                        yield unpacked[begin : begin + UNPACKED_BYTES]
                    step = self._frame.unused_data if self._frame.eof else b""
        except self._error as problem:
            raise zlib.error(str(problem)) from problem

    def whole(self) -> bool:
        return bool(self._frame.eof)


_PACKED: Final = ((b"\x1f\x8b", _Gzip), (b"\x28\xb5\x2f\xfd", _Zstandard))


class Unpacker:
    """Unpacks gzip and zstd, recognised by their first bytes; anything else passes through.

    What can be unpacked before a damage comes out, and `damaged` says from then on that nothing more will. `finish` raises
    InputMissing for a damaged or cut stream: what stood behind the damage is unknown, so the input counts as not read to
    its end. Raises ConfigError where zstd is met without its extra.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._head = b""
        self._unpacks: _Unpacks | None = None
        self._damage: zlib.error | None = None

    @property
    def damaged(self) -> bool:
        return self._damage is not None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._unpacks is None:
            chunk = self._head + chunk
            if any(magic.startswith(chunk) and magic != chunk for magic, _ in _PACKED):
                self._head = chunk
                return
            self._unpacks = next((make() for magic, make in _PACKED if chunk.startswith(magic)), _Plain())
        try:
            yield from self._unpacks.feed(chunk)
        except zlib.error as problem:
            self._damage = problem

    def finish(self) -> Iterator[bytes]:
        """What was held back to recognise the packing; checks that the stream is whole."""
        if self._damage is not None:
            raise self._unreadable(str(self._damage)) from self._damage
        if self._unpacks is None:
            yield self._head
        elif not self._unpacks.whole():
            raise self._unreadable("it ends in the middle")

    def _unreadable(self, problem: str) -> InputMissing:
        return InputMissing(
            f"{self._name} cannot be unpacked to its end: {problem}",
            hint="what was read before the damage is done; copy the file again, and run the same command",
        )
