from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lcbatch import jsontext
from lcbatch.errors import CannotCreateOutput, OutputFailed
from lcbatch.records import Json
from lcbatch.sinks.appendfile import NO_FILE, REBUILDING, AppendFile, Mark, Verdict, is_as_left, judge, temporary_name

OURS = Mark(size=10, mtime_ns=5, inode=7, name="out.jsonl", tail="bytes")


def taken(path: Path, state: Mapping[str, Json] | None = None, *, clean: bool = True) -> tuple[AppendFile, bool]:
    file = AppendFile(path, wall=lambda: 0.0)
    return file, file.take_up(state, clean=clean)


def left(path: Path, data: bytes) -> Mapping[str, Json]:
    file, _ = taken(path)
    file.write(data)
    state = file.sync().to_json()
    file.close()
    return state


def rebuilt(file: AppendFile, then: Callable[[], object] = int) -> None:
    with file.replacement() as write:
        write(b"new\n")
        then()


@pytest.mark.parametrize(
    ("found", "clean", "verdict"),
    [
        (Mark(10, 5, 7, "out.jsonl"), True, Verdict.TAKE),
        (Mark(10, 5, 8, "moved.jsonl"), True, Verdict.TAKE),
        (Mark(10, 6, 7, "out.jsonl"), True, Verdict.SET_ASIDE),
        (Mark(12, 5, 7, "out.jsonl"), True, Verdict.SET_ASIDE),
        (Mark(0, 6, 7, "out.jsonl"), True, Verdict.REBUILD),
        (Mark(12, 9, 7, "out.jsonl", "bytes"), False, Verdict.TAKE),
        (Mark(9, 9, 7, "out.jsonl"), False, Verdict.SET_ASIDE),
        (Mark(12, 9, 8, "out.jsonl"), False, Verdict.SET_ASIDE),
        (Mark(12, 9, 8, "somebody.jsonl"), False, Verdict.FOREIGN),
        (Mark(12, 9, 7, "out.jsonl", "other bytes"), False, Verdict.SET_ASIDE),
        (None, False, Verdict.REBUILD),
    ],
)
def test_what_lies_there_is_judged_by_what_we_left(found: Mark | None, clean: bool, verdict: Verdict) -> None:  # noqa: FBT001
    assert judge(OURS, found, clean=clean) is verdict


def test_without_a_state_only_nothing_or_an_empty_file_is_taken() -> None:
    assert judge(None, None, clean=True) is Verdict.TAKE
    assert judge(None, Mark(0, 1, 1, "out.jsonl"), clean=True) is Verdict.TAKE
    assert judge(None, Mark(1, 1, 1, "out.jsonl"), clean=True) is Verdict.FOREIGN


def test_a_file_made_after_the_last_sync_is_rebuilt_and_not_called_edited() -> None:
    assert judge(Mark(0, 0, NO_FILE, "e"), Mark(5, 1, 1, "e"), clean=False) is Verdict.REBUILD


def test_a_torn_tail_is_cut_off_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    state = left(path, b"one\n")
    with path.open("ab") as torn:
        torn.write(b"tw")
    file, is_ours = taken(path, state, clean=False)
    file.write(b"two\n")
    file.close()
    assert is_ours
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_crash_before_any_sync_leaves_nothing_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file, _ = taken(path)
    state = file.sync().to_json()
    file.write(b"unsynced\n")
    file.close()
    file, is_ours = taken(path, state, clean=False)
    file.close()
    assert is_ours
    assert path.read_bytes() == b""


def test_an_edited_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    state = left(path, b"one\n")
    path.write_bytes(b"mine\n")
    file, is_ours = taken(path, state)
    file.close()
    (kept,) = tmp_path.glob("out.jsonl.edited-*")
    assert not is_ours
    assert kept.read_bytes() == b"mine\n"
    assert file.notice is not None
    assert kept.name in file.notice


def test_after_a_crash_a_file_that_was_given_our_inode_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    state = left(path, b"one\n")
    path.write_bytes(b"mine, and longer\n")
    assert path.stat().st_ino == state["inode"]
    assert not is_as_left(path, state, clean=False)
    file, is_ours = taken(path, state, clean=False)
    file.close()
    (kept,) = tmp_path.glob("out.jsonl.edited-*")
    assert not is_ours
    assert kept.read_bytes() == b"mine, and longer\n"


def test_a_mark_of_an_earlier_version_has_no_tail_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    state = {name: value for name, value in left(path, b"one\n").items() if name != "tail"}
    file, is_ours = taken(path, state, clean=False)
    file.close()
    assert is_ours


def test_a_file_is_known_again_where_it_was_moved_to(tmp_path: Path) -> None:
    state = left(tmp_path / "out.jsonl", b"one\n")
    moved = (tmp_path / "out.jsonl").rename(tmp_path / "moved.jsonl")
    assert is_as_left(moved, state, clean=True)
    moved.write_bytes(b"One\n")
    assert not is_as_left(moved, state, clean=True)
    assert not is_as_left(moved, {**state, "offset": 0}, clean=False)
    assert not is_as_left(tmp_path / "none", state, clean=True)


@pytest.mark.parametrize("new", [b"new\n", b""])
@pytest.mark.parametrize("keep_empty", [True, False])
def test_a_rebuild_keeps_what_somebody_else_has_laid_in_the_outputs_place(
    tmp_path: Path,
    new: bytes,
    keep_empty: bool,  # noqa: FBT001
) -> None:
    path = tmp_path / "out.jsonl"
    file = AppendFile(path, keep_empty=keep_empty)
    file.take_up(None, clean=True)
    path.unlink(missing_ok=True)
    path.write_bytes(b"mine\n")
    with file.replacement() as write:
        write(new)
    file.close()
    (kept,) = tmp_path.glob("out.jsonl.edited-*")
    assert kept.read_bytes() == b"mine\n"
    assert path.exists() == (keep_empty or bool(new))
    assert file.notice is not None
    assert kept.name in file.notice


def test_two_files_set_aside_in_one_second_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for text in (b"mine\n", b"mine too\n"):
        path.unlink(missing_ok=True)
        state = left(path, b"one\n")
        path.write_bytes(text)
        taken(path, state)[0].close()
    assert len(list(tmp_path.glob("out.jsonl.edited-*"))) == 2


def test_a_deleted_file_is_rebuilt_and_said(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    state = left(path, b"one\n")
    path.unlink()
    file, is_ours = taken(path, state)
    file.close()
    assert not is_ours
    assert file.notice is not None


def test_a_crash_within_a_rebuild_sets_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    state = left(path, b"one\n")
    path.unlink()
    path.write_bytes(b"the new one\n")
    file, is_ours = taken(path, {**state, REBUILDING: True}, clean=False)
    file.close()
    assert not is_ours
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_ours_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n")
    with pytest.raises(CannotCreateOutput) as refused:
        taken(path)
    assert "move it away" in refused.value.hint
    assert path.read_text() == "precious\n"


def test_missing_folders_are_made_and_a_file_in_their_way_is_an_error(tmp_path: Path) -> None:
    file, _ = taken(tmp_path / "a" / "b" / "out.jsonl")
    file.close()
    (tmp_path / "plain").write_text("")
    with pytest.raises(CannotCreateOutput):
        taken(tmp_path / "plain" / "out.jsonl")


def test_a_link_is_written_through_by_a_rebuild_too(tmp_path: Path) -> None:
    link, real = tmp_path / "link.jsonl", tmp_path / "disk" / "real.jsonl"
    link.symlink_to(real)
    file, _ = taken(link)
    with file.replacement() as write:
        write(b"new\n")
    file.close()
    assert link.is_symlink()
    assert real.read_bytes() == b"new\n"


def test_a_replacement_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file, _ = taken(path)
    file.write(b"old\n")
    with pytest.raises(ZeroDivisionError):
        rebuilt(file, lambda: 1 // 0)
    file.write(b"goes on\n")
    file.close()
    assert path.read_bytes() == b"old\ngoes on\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replacement_keeps_the_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file, _ = taken(path)
    path.chmod(0o640)
    with file.replacement() as write:
        write(b"new\n")
    file.close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_rebuild_left_is_cleared_away(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    (tmp_path / temporary_name("out.jsonl")).write_bytes(b"half")
    taken(path)[0].close()
    assert list(tmp_path.iterdir()) == [path]


def test_short_writes_are_followed_by_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.jsonl"
    file, _ = taken(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    file.write(b"0123456789\n")
    file.close()
    assert path.read_bytes() == b"0123456789\n"


@pytest.mark.parametrize("name", ["fdatasync", "fsync"])
def test_a_failed_sync_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    calls = []

    def fail(_fd: int) -> None:
        calls.append(name)
        raise OSError(errno.EIO, "Input/output error")

    file, _ = taken(tmp_path / "out.jsonl")
    file.write(b"one\n")
    monkeypatch.setattr(os, name, fail)
    for _ in range(2):
        with pytest.raises(OutputFailed):
            rebuilt(file) if name == "fsync" else file.sync()
    with pytest.raises(OutputFailed):
        file.write(b"two\n")
    file.close()
    assert calls == [name]


def test_a_size_limit_ends_in_output_failed_and_the_next_run_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    script = f"""
import json, resource
from pathlib import Path
from lcbatch import jsontext
from lcbatch.errors import OutputFailed
from lcbatch.sinks.appendfile import AppendFile
file = AppendFile(Path({str(path)!r}))
file.take_up(None, clean=True)
file.write(b"x" * 99 + b"\\n")
print(json.dumps(file.sync().to_json()))
resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))
for _ in range(2):
    try:
        file.write(b"y" * 99 + b"\\n")
    except OutputFailed as error:
        print(error.message)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    state, *errors = ran.stdout.splitlines()
    assert len(errors) == 2
    assert path.stat().st_size == 150
    file, is_ours = taken(path, jsontext.loads(state), clean=False)
    file.close()
    assert is_ours
    assert path.read_bytes() == b"x" * 99 + b"\n"
