"""The book of billed calls: what was charged, what was said, and whether it reached the client."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from lcbatch.simulator.choices import LedgerDepth

# Blocks are compressed when full: a million calls stay in the order of 100 MB. Small enough that closing one stalls
# the server for a few ms.
_BLOCK_CALLS: Final = 1024
_BLOCK_BYTES: Final = 4_000_000
# Level 1: hashes do not compress any better at higher ones, and this is on the way of every request.
_LEVEL: Final = 1
_PENDING, _DELIVERED, _LOST = 0, 1, 2
_SAID: Final = (b'"delivered":null}', b'"delivered":true}', b'"delivered":false}')


@dataclass(frozen=True, slots=True)
class Bill:
    """One billed call.

    `at_s`: seconds on the server's monotonic clock; `sha`: the 16 hex digits that a text answer echoes.
    """

    at_s: float
    kind: str
    sha: str
    prompt: Any
    answer: Any
    prompt_tokens: int
    completion_tokens: int
    fault: str | None


class Ledger:
    """Counts every billed call, and keeps them compactly when its depth is `full`. Numbers count from 1.

    With a file, each call is appended to it as a JSON line when its delivery is known; where a number stands twice the
    later line holds.
    """

    def __init__(self, depth: LedgerDepth, path: Path | None = None) -> None:
        self._keep = depth == "full"
        self._path = path
        self._file: BinaryIO | None = None
        self._unsettled: dict[int, bytes] = {}
        self.writes = path is not None
        self._closed: list[tuple[int, bytes]] = []
        self._first_open = 1
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._states = bytearray(1)
        self.billed = 0
        self.delivered = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def __enter__(self) -> Ledger:
        if self._path is not None:
            self._file = self._path.open("ab", buffering=1 << 16)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            for number in list(self._unsettled):
                self.settle(number, delivered=False)
            self._file.close()
            self._file = None

    def bill(self, bill: Bill) -> int:
        """Charge a call and return its number."""
        self.billed = number = self.billed + 1
        self.prompt_tokens += bill.prompt_tokens
        self.completion_tokens += bill.completion_tokens
        if self._keep or self._file is not None:
            line = _line(number, bill)
            if self._file is not None:
                self._unsettled[number] = line
            if self._keep:
                self._append(line)
        return number

    def settle(self, number: int, *, delivered: bool) -> None:
        """Say whether the call's answer went out whole.

        Once for each number, and once more when a delivered one proves lost.
        """
        if delivered:
            self.delivered += 1
        self._note(number, _DELIVERED if delivered else _LOST)

    def retract(self, number: int) -> None:
        """A call settled as delivered was not read after all: its client reset the connection."""
        self.delivered -= 1
        self._note(number, _LOST)

    def flush(self) -> None:
        """Bring what is settled into the file."""
        if self._file is not None:
            self._file.flush()

    def lines(self, since: int = 0) -> Iterator[bytes]:
        """The calls after number `since` as JSON lines, in blocks of whole lines; what is billed meanwhile is not
        among them.
        """
        closed, first_open, still_open = list(self._closed), self._first_open, list(self._open)
        for first, packed in closed:
            if first + _BLOCK_CALLS > since:
                yield self._block(first, zlib.decompress(packed).split(b"\n"), since)
        if still_open:
            yield self._block(first_open, still_open, since)

    def _append(self, line: bytes) -> None:
        self._open.append(line)
        self._states.append(_PENDING)
        self._open_bytes += len(line)
        if len(self._open) >= _BLOCK_CALLS or self._open_bytes >= _BLOCK_BYTES:
            self._closed.append((self._first_open, zlib.compress(b"\n".join(self._open), _LEVEL)))
            self._first_open += len(self._open)
            self._open = []
            self._open_bytes = 0

    def _note(self, number: int, state: int) -> None:
        if self._keep:
            self._states[number] = state
        if self._file is not None:
            line = self._unsettled.pop(number, b'{"number":%d,' % number)
            self._file.write(line + _SAID[state] + b"\n")

    def _block(self, first: int, lines: list[bytes], since: int) -> bytes:
        states = self._states
        return b"".join(
            [line + _SAID[states[number]] + b"\n" for number, line in enumerate(lines, first) if number > since]
        )


def _line(number: int, bill: Bill) -> bytes:
    """The call as JSON without its end, to which its delivery is appended."""
    record = {
        "number": number,
        "at_s": bill.at_s,
        "kind": bill.kind,
        "sha": bill.sha,
        "prompt": bill.prompt,
        "answer": bill.answer,
        "prompt_tokens": bill.prompt_tokens,
        "completion_tokens": bill.completion_tokens,
        "fault": bill.fault,
    }
    try:
        return orjson.dumps(record)[:-1] + b","
    except TypeError:
        # A lone surrogate in a prompt or an answer: the standard library escapes it, orjson refuses.
        return json.dumps(record, separators=(",", ":")).encode()[:-1] + b","
