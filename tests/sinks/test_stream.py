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


# --- a FIFO


def waiting_for_a_reader(path: Path) -> tuple[StreamSink, threading.Thread, list[Exception]]:
    """A sink that opens a FIFO in a thread of its own, which is what holds it up."""
    os.mkfifo(path)
    sink = StreamSink(VIEW, path, Lines(row_line(Selection()), {}))
    errors: list[Exception] = []

    def write() -> None:
        try:
            sink.open(None, clean=True)
            sink.append([entry(1)])
        except OutputClosed as error:
            errors.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    return sink, writer, errors


def test_a_fifo_waits_for_its_reader(tmp_path: Path) -> None:
    sink, writer, errors = waiting_for_a_reader(tmp_path / "fifo")
    with (tmp_path / "fifo").open("rb") as reader:
        writer.join(10)
        assert not writer.is_alive()
        sink.close()
        assert reader.read() == b'{"n":0,"output":"yes"}\n'
    assert errors == []


def test_the_wait_for_a_fifos_reader_can_be_given_up(tmp_path: Path) -> None:
    sink, writer, errors = waiting_for_a_reader(tmp_path / "fifo")
    for _ in range(3):
        sink.abort()
    writer.join(10)
    assert not writer.is_alive()
    sink.close()
    sink.abort()
    assert [type(error) for error in errors] == [OutputClosed]
    assert "fifo" in str(errors[0])


def test_what_was_given_up_before_it_was_opened_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    sink = StreamSink(VIEW, tmp_path / "fifo", Lines(row_line(Selection()), {}))
    sink.abort()
    with pytest.raises(OutputClosed):
        sink.open(None, clean=True)
    sink.close()


def test_a_fifo_that_is_taken_away_while_nobody_reads_it_says_so(tmp_path: Path) -> None:
    sink = StreamSink(VIEW, tmp_path / "fifo", Lines(row_line(Selection()), {}))
    os.mkfifo(tmp_path / "fifo")
    taken_away = threading.Timer(0.0, (tmp_path / "fifo").unlink)
    taken_away.start()
    with pytest.raises(CannotCreateOutput):
        sink.open(None, clean=True)
    taken_away.join()
    sink.close()


def test_what_needs_no_wait_is_written_although_the_run_was_cut_off(pipe: tuple[int, int]) -> None:
    sink = stream(pipe[1])
    sink.abort()
    sink.append([entry(1)])
    assert os.read(pipe[0], 999) == b'{"n":0,"output":"yes"}\n'
    sink.close()


def test_a_reader_of_a_fifo_that_goes_closes_it(tmp_path: Path) -> None:
    sink, writer, errors = waiting_for_a_reader(tmp_path / "fifo")
    with (tmp_path / "fifo").open("rb"):
        writer.join(10)
    with pytest.raises(OutputClosed):
        sink.append([entry(2)])
    sink.close()
    assert errors == []


@pytest.mark.parametrize(
    ("before", "between"), [(b"", b""), (b"whole\n", b""), (b"whole\nha", b"\n")], ids=["empty", "whole", "half"]
)
@pytest.mark.parametrize("appending", [True, False])
def test_no_row_goes_on_from_a_half_line_that_a_file_ends_with(
    tmp_path: Path, before: bytes, between: bytes, *, appending: bool
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(before)
    fd = os.open(path, os.O_WRONLY | (os.O_APPEND if appending else 0))
    if not appending:
        os.lseek(fd, 0, os.SEEK_END)
    sink = stream(fd)
    assert path.read_bytes() == before, "nothing is written before there is a row"
    sink.append([])
    sink.append([entry(1)])
    sink.append([entry(2)])
    sink.close()
    os.close(fd)
    assert path.read_bytes() == before + between + b'{"n":0,"output":"yes"}\n{"n":1,"output":"yes"}\n'
