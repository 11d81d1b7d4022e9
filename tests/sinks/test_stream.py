from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcbatch.errors import CannotCreateOutput, OutputClosed, OutputFailed
from lcbatch.ports import Order, View
from lcbatch.sinks.lines import Lines, row_line
from lcbatch.sinks.selection import Selection
from lcbatch.sinks.stream import StreamSink

from .fakes import entry

VIEW = View("output", Order.FINISHED, done=True, failed=False)


def stream(target: int | Path) -> StreamSink:
    sink = StreamSink(VIEW, target, Lines(row_line(Selection()), {}))
    assert not sink.open(None, clean=True)
    return sink


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def test_rows_are_handed_on_at_once(pipe: tuple[int, int]) -> None:
    sink = stream(pipe[1])
    sink.append([entry(1), entry(2)])
    assert os.read(pipe[0], 999) == b'{"n":0,"output":"yes"}\n{"n":1,"output":"yes"}\n'
    sink.close()
    os.write(pipe[1], b"still open")


def test_a_reader_that_has_gone_closes_the_output_for_good(pipe: tuple[int, int]) -> None:
    sink = stream(pipe[1])
    os.close(pipe[0])
    for _ in range(2):
        with pytest.raises(OutputClosed):
            sink.append([entry(1)])
    with pytest.raises(OutputClosed):
        sink.sync()
    sink.close()


def test_a_descriptor_closed_by_somebody_else_is_a_closed_output(pipe: tuple[int, int]) -> None:
    sink = stream(pipe[1])
    os.close(pipe[1])
    with pytest.raises(OutputClosed):
        sink.append([entry(1)])
    sink.close()


def test_a_full_device_is_a_failed_output() -> None:
    sink = stream(Path("/dev/full"))
    with pytest.raises(OutputFailed) as failed:
        sink.append([entry(1)])
    assert "space" in failed.value.hint
    sink.close()


def test_dev_null_takes_everything() -> None:
    sink = stream(Path("/dev/null"))
    sink.append([entry(1)])
    assert sink.sync() == {}
    sink.close()


def test_a_device_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotCreateOutput):
        StreamSink(VIEW, tmp_path / "gone", Lines(row_line(Selection()), {})).open(None, clean=True)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_slow_reader_gets_every_byte_from_a_full_pipe(pipe: tuple[int, int], blocking: bool) -> None:  # noqa: FBT001
    os.set_blocking(pipe[1], blocking)
    sink = stream(pipe[1])
    rows = [entry(i + 1, output="x" * 1000) for i in range(300)]
    got = bytearray()

    def read() -> None:
        while chunk := os.read(pipe[0], 8192):
            got.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    sink.append(rows)
    sink.close()
    os.close(pipe[1])
    reader.join()
    assert bytes(got) == Lines(row_line(Selection()), {}).encode(rows)


def test_a_wait_for_a_reader_that_takes_nothing_can_be_given_up(pipe: tuple[int, int]) -> None:
    sink = stream(pipe[1])
    errors: list[Exception] = []

    def write() -> None:
        try:
            sink.append([entry(i + 1, output="x" * 1000) for i in range(300)])
        except OutputClosed as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    sink.abort()
    writer.join()
    sink.close()
    assert len(errors) == 1


def test_a_rebuild_writes_nothing_and_reads_nothing(pipe: tuple[int, int]) -> None:
    sink = stream(pipe[1])
    assert sink.rebuild(iter([entry(1)])) == {}
    os.close(pipe[1])
    assert os.read(pipe[0], 9) == b""
    sink.close()


def test_stdout_that_is_a_file_gets_all_at_once(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "redirected", os.O_WRONLY | os.O_CREAT)
    sink = stream(fd)
    sink.append([entry(1, output="x" * 100_000)])
    sink.close()
    os.close(fd)
    assert (tmp_path / "redirected").stat().st_size > 100_000
