"""Standard error that is a pipe which does not block."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from lcbatch.cli.streams import _Stderr, _text

_TEXT = "x" * 300_000 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends, of which the one that is written to does not block."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    yield ends
    for end in ends:
        os.close(end)


def test_a_reader_that_keeps_up_slowly_gets_all(pipe: tuple[int, int]) -> None:
    got: list[int] = []

    def read() -> None:
        while sum(got) < len(_TEXT):
            got.append(len(os.read(pipe[0], 1000)))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    stream = _text(_Stderr(pipe[1], patience_s=30), None)
    stream.write(_TEXT)
    stream.flush()
    reader.join(30)

    assert sum(got) == len(_TEXT)


def test_where_nobody_reads_what_finds_no_room_is_dropped_and_a_later_line_is_tried_anew(pipe: tuple[int, int]) -> None:
    stream = _text(_Stderr(pipe[1], patience_s=0), None)
    stream.write(_TEXT)
    stream.flush()
    first = os.read(pipe[0], len(_TEXT))
    assert first
    assert _TEXT.startswith(first.decode())

    stream.write("later\n")
    stream.flush()

    assert os.read(pipe[0], len(_TEXT)) == b"later\n"


def test_a_full_pipe_is_waited_for_once(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(_Stderr, "_wait", lambda _self: waited.append(None))
    raw = _Stderr(pipe[1])
    for _ in range(20):
        assert raw.write(b"x" * 65536) > 0

    assert len(waited) == 1
