"""Answers made to hurt who reads them: without end, small until they are unpacked, or nested too deep. Pure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Final

from lcbatch.simulator.replies import HINT, JSON_TYPE, Reply, framed, head

_PIECE_BYTES: Final = 65_536
_RLE_BLOCK_BYTES: Final = 131_072
"""The most that one zstd block unpacks to (RFC 8878, 3.1.1.2.4)."""


def endless_body() -> Reply:
    """A chat completion whose content never ends, as chunks."""
    opening = framed(b'{"choices": [{"message": {"content": "')
    return Reply(head(200, None) + opening, ending="close", pieces=repeat(framed(b"x" * _PIECE_BYTES)))


def endless_head() -> Reply:
    """A head with ever more fields."""
    opening = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n" % JSON_TYPE.encode()
    return Reply(opening, ending="close", pieces=(b"x-%d: %s\r\n" % (n, b"y" * 1000) for n in _numbers()))


def endless_hints() -> Reply:
    """Interim answers, and never a final one."""
    return Reply(HINT, ending="close", pieces=repeat(HINT * 100))


def nested(levels: int) -> Reply:
    """JSON arrays inside each other, well formed."""
    body = b"[" * levels + b"]" * levels
    return Reply(head(200, len(body)) + body)


def gzip_bomb(unpacked_bytes: int) -> Reply:
    """A small body that unpacks to that many zero bytes, rounded up to megabytes, made without ever holding them."""
    block, count, piece = _packed(unpacked_bytes)
    checksum = 0
    for _ in range(count):
        checksum = zlib.crc32(piece, checksum)
    trailer = struct.pack("<II", checksum, count * len(piece) & 0xFFFFFFFF)
    return _encoded(b"gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * count + b"\x03\0" + trailer)


def deflate_bomb(unpacked_bytes: int) -> Reply:
    """The same under Content-Encoding deflate, without the header that many servers leave out."""
    block, count, _ = _packed(unpacked_bytes)
    return _encoded(b"deflate", block * count + b"\x03\0")


def zstd_bomb(unpacked_bytes: int) -> Reply:
    """The same under Content-Encoding zstd: blocks of one byte that stands for 128 KiB of it."""
    count = -(-unpacked_bytes // _RLE_BLOCK_BYTES)
    rle = 1 << 1 | _RLE_BLOCK_BYTES << 3
    blocks = (rle.to_bytes(3, "little") + b"\0") * (count - 1) + (rle | 1).to_bytes(3, "little") + b"\0"
    return _encoded(b"zstd", b"\x28\xb5\x2f\xfd\x00\x38" + blocks)


def _packed(unpacked_bytes: int) -> tuple[bytes, int, bytes]:
    """(a packed block, how often it stands for so many bytes, what it unpacks to)."""
    piece = bytes(1_000_000)
    packer = zlib.compressobj(9, wbits=-15)
    # A full flush forgets what came before, so every piece packs to the same bytes and one is enough.
    return packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH), -(-unpacked_bytes // len(piece)), piece


def _encoded(encoding: bytes, body: bytes) -> Reply:
    return Reply(head(200, len(body), b"content-encoding: %s\r\n" % encoding) + body)


def _numbers() -> Iterator[int]:
    return chain.from_iterable(repeat(range(1_000_000)))
