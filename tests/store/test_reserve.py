"""The space taken in advance for answers that SQLite can no longer take."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from pathlib import Path

import pytest

from lcbatch.errors import OutputFailed, RefusedError
from lcbatch.store.reserve import Reserve, rescued


def test_what_was_written_comes_back_and_the_rest_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path)
    reserve.prepare(1)
    reserve.write([b'["outcome",[1,"a"]]', b'["reply",[2]]'])
    reserve.write([b'["outcome",[3]]'])
    reserve.release()
    assert list(rescued(path)) == [["outcome", [1, "a"]], ["reply", [2]], ["outcome", [3]]]
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_unused_reserve_is_given_back(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve")
    reserve.prepare(1)
    reserve.release()
    reserve.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("in_flight", "size"), [(1, 4 << 20), (100, 100 << 16)])
def test_its_blocks_are_there_before_they_are_needed(tmp_path: Path, in_flight: int, size: int) -> None:
    reserve = Reserve(tmp_path / "reserve")
    reserve.prepare(in_flight)
    status = (tmp_path / "reserve").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 >= size
    reserve.release()


@pytest.mark.parametrize("tail", [b'["outcome",[7', b'["outcome",[7\0\0\0\0', b"\0\0\0", b""])
def test_a_torn_tail_is_passed_over(tmp_path: Path, tail: bytes) -> None:
    """Lines without a checksum are an older release's."""
    (tmp_path / "reserve").write_bytes(b'["outcome",[1]]\n["outcome",[2]]\n' + tail)
    assert list(rescued(tmp_path / "reserve")) == [["outcome", [1]], ["outcome", [2]]]


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize("change", [(b"paid", b"paix"), (b"[", b"{"), (b" ", b"\0"), (b"\n", b"\0")], ids=str)
def test_a_line_that_is_not_as_it_was_written_is_refused_by_its_number(
    tmp_path: Path, line: int, change: tuple[bytes, bytes]
) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path)
    reserve.prepare(1)
    reserve.write([b'["outcome",["paid"]]', b'["reply",["paid"]]', b'["reply",["paid too"]]'])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(*change)
    path.write_bytes(b"".join(lines))

    with pytest.raises(RefusedError, match=rf"line {line} ") as refusal:
        list(rescued(path))
    assert "remove that line" in refusal.value.hint


def test_without_room_for_it_the_run_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputFailed, match="No space left") as caught:
        Reserve(tmp_path / "reserve").prepare(1)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed):
        Reserve(tmp_path / "missing" / "reserve").prepare(1)


def test_before_it_is_prepared_nothing_is_written(tmp_path: Path) -> None:
    Reserve(tmp_path / "reserve").write([b"1"])
    assert list(rescued(tmp_path / "reserve")) == []


def _synced(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> list[tuple[int, bytes]]:
    """(inode, first bytes) of every file or folder at the moment of its sync."""
    seen: list[tuple[int, bytes]] = []

    def fsync(descriptor: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        seen.append((os.fstat(descriptor).st_ino, os.pread(descriptor, 16, 0) if is_file else b""))
        if fails and is_file:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_its_name_and_what_is_written_are_safe_from_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _synced(monkeypatch)
    reserve = Reserve(tmp_path / "reserve")
    reserve.prepare(1)
    assert seen == [(tmp_path.stat().st_ino, b"")]
    reserve.write([b"[1,2,3]"])
    line = b"%08x [1,2,3]" % zlib.crc32(b"[1,2,3]")
    assert seen[1:] == [((tmp_path / "reserve").stat().st_ino, line)]
    reserve.release()


def test_a_failed_sync_is_not_tried_again_and_stops_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _synced(monkeypatch, fails=True)
    reserve = Reserve(tmp_path / "reserve")
    reserve.prepare(1)
    reserve.write([b"[1]"])
    reserve.write([b"[2]"])
    reserve.release()
    assert len(seen) == 2, "the folder, and the file once"
    assert list(rescued(tmp_path / "reserve")) == [[1], [2]]
