"""What is made for its owner alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lcbatch.store.private import make_private_folder, open_private


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def narrow_umask() -> Any:
    before = os.umask(0o277)
    yield
    os.umask(before)


@pytest.mark.usefixtures("narrow_umask")
def test_files_and_folders_are_their_owners_whatever_the_umask(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b")
    os.close(open_private(tmp_path / "a" / "b" / "file", os.O_RDWR))
    modes = [mode_of(tmp_path / name) for name in ("a", "a/b", "a/b/file")]
    assert modes == [0o700, 0o700, 0o600]


def _refuse_modes(monkeypatch: pytest.MonkeyPatch, number: int) -> list[Any]:
    """Let the system set no permissions; what it was asked to."""
    asked: list[Any] = []

    def refuse(what: Any, *_: Any, **__: Any) -> None:
        asked.append(what)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "chmod", refuse)
    return asked


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_where_no_permissions_can_be_set_files_and_folders_are_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked = _refuse_modes(monkeypatch, number)
    make_private_folder(tmp_path / "a" / "b")
    os.close(open_private(tmp_path / "a" / "b" / "file", os.O_RDWR))
    assert len(asked) == 3


def test_a_file_whose_permissions_fail_to_be_set_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _refuse_modes(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        open_private(tmp_path / "file", os.O_RDWR)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(asked[0])


def test_a_folder_that_somebody_else_makes_meanwhile_keeps_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def second(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "theirs":
            make(path, 0o755)
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", second)
    make_private_folder(tmp_path / "theirs" / "ours")
    assert [mode_of(tmp_path / name) for name in ("theirs", "theirs/ours")] == [0o755, 0o700]
