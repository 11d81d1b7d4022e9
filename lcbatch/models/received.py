"""What is taken of an answer: no more than it may have, and never the key that went out with the question."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from json import JSONDecodeError
from typing import Any

from lcbatch import jsontext

MOST_BYTES = 64 * 1024 * 1024
"""Of one answer, unpacked. A million tokens of text are 4 MB, and 1,000 vectors of 4,096 numbers, written out as text, some
50 MB. Beyond this there is no answer, only somebody who fills the memory: a kilobyte of gzip may stand for a megabyte."""

_KEYS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key"})
_SHORTEST_SECRET = 8
"""Local servers are given keys like `x` or `EMPTY`, which may stand in any text."""
_INSTEAD = b"[the key]"


class UnreadableAnswer(ValueError):
    """What came back is no HTTP, no JSON, or more than an answer can be. It may have been billed all the same."""


def too_long() -> UnreadableAnswer:
    """For an answer that is beyond the bound."""
    return UnreadableAnswer(f"the answer is longer than {MOST_BYTES >> 20} MB, unpacked")


def secrets_of(headers: Mapping[str, str]) -> tuple[bytes, ...]:
    """The keys in a request's headers, as they may come back: some servers quote them in their refusals."""
    values = [value for name, value in headers.items() if name.lower() in _KEYS and isinstance(value, str)]
    keys = {value.rpartition(" ")[2] for value in values}
    forms = {form for key in keys if len(key) >= _SHORTEST_SECRET for form in (key, key.replace("/", "\\/"))}
    return tuple(form.encode() for form in sorted(forms))


def without(content: bytes, secrets: Iterable[bytes]) -> bytes:
    """The same, with something else in the keys' places."""
    for secret in secrets:
        content = content.replace(secret, _INSTEAD)
    return content


async def read_within_bounds(response: Any) -> None:
    """Read the body of a response of httpx's make, before its client does; for its hook `response`.

    It is unpacked here, piece by piece, and then stands in the response as if it had come that way. Raises UnreadableAnswer for
    one that is too long, or nests deeper than the client's own parser can go.
    """
    package: Any = sys.modules[type(response).__module__.partition(".")[0]]
    packed = package.Response(
        response.status_code, headers=response.headers, stream=response.stream, request=response.request
    )
    pieces, size = [], 0
    async for piece in packed.aiter_bytes():
        size += len(piece)
        if size > MOST_BYTES:
            await packed.aclose()
            raise too_long()
        pieces.append(piece)
    content = b"".join(pieces)
    _refuse_deep(content)
    content = without(content, secrets_of(response.request.headers))
    for name in ("content-encoding", "content-length", "transfer-encoding"):
        response.headers.pop(name, None)
    response.stream = package.ByteStream(content)


def _refuse_deep(content: bytes) -> None:
    if content.count(b"[") + content.count(b"{") <= jsontext.MOST_DEPTH:
        return
    try:
        jsontext.loads(content)
    except JSONDecodeError:
        return  # broken JSON, or none: for the client to judge
    except ValueError as error:
        raise UnreadableAnswer(str(error)) from error
