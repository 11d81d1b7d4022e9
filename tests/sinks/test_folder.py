from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lcbatch.errors import CannotCreateOutput, OutputFailed
from lcbatch.ports import Name, Order, View
from lcbatch.sinks.folder import FolderSink, spelled_otherwise
from lcbatch.sinks.selection import Selection

from .fakes import entry

VIEW = View("output", Order.FINISHED, done=True, failed=False)


def folder(path: Path, selection: Selection = Selection()) -> FolderSink:  # noqa: B008 - frozen
    return FolderSink(VIEW, path, selection, wall=lambda: 0.0)


def files(path: Path) -> dict[str, str]:
    return {str(each.relative_to(path)): each.read_text() for each in path.rglob("*") if each.is_file()}


def test_names_mirror_the_input_and_keep_its_suffix(tmp_path: Path) -> None:
    sink = folder(tmp_path / "new" / "out")
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a/b.pdf", output="short"), entry(2, id_="c", output={"k": 1})])
    sink.sync()
    assert files(tmp_path / "new" / "out") == {"a/b.pdf.md": "short\n", "c.json": '{"k":1}\n'}


def test_meta_stands_as_front_matter_or_as_a_member(tmp_path: Path) -> None:
    sink = folder(tmp_path, Selection(meta=True))
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a", output="s", meta={"model": "m: x"}), entry(2, id_="b", output=[1], meta={"n": 1})])
    assert files(tmp_path) == {
        "a.md": '---\nid: "a"\nmodel: "m: x"\n---\n\ns\n',
        "b.json": '{"output":[1],"meta":{"n":1}}\n',
    }


def test_failed_rows_have_no_file(tmp_path: Path) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append([entry(1, kind="timeout", message="slow")])
    assert files(tmp_path) == {}


def test_a_file_of_somebody_else_is_kept_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("mine")
    (tmp_path / "other.md").write_text("mine too")
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a", output="ours")])
    found = files(tmp_path)
    (kept,) = [name for name in found if ".orig-" in name]
    assert found == {"a.md": "ours\n", "other.md": "mine too", kept: "mine"}
    assert sink.notice is not None
    assert kept in sink.notice


def test_the_same_content_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("ours\n")
    before = (tmp_path / "a.md").stat().st_ino
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a", output="ours")])
    assert (tmp_path / "a.md").stat().st_ino == before
    assert sink.notice is None


def test_our_own_file_of_an_earlier_run_is_replaced_even_by_another_kind(tmp_path: Path) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a", output="old"), entry(2, id_="b", output="old")])
    state = sink.sync()
    again = folder(tmp_path)
    assert not again.open(state, clean=True)
    again.rebuild([entry(1, id_="a", output="new"), entry(2, id_="b", output=["new"])])
    assert files(tmp_path) == {"a.md": "new\n", "b.json": '["new"]\n'}


def test_an_edited_file_is_set_aside_and_a_deleted_one_comes_back(tmp_path: Path) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    rows = [entry(1, id_="a", output="one"), entry(2, id_="b", output="two")]
    sink.append(rows)
    state = sink.sync()
    (tmp_path / "b.md").unlink()
    (tmp_path / "a.md").write_text("corrected by hand")
    os.utime(tmp_path / "a.md", ns=(state["until_ns"] + 1, state["until_ns"] + 1))
    again = folder(tmp_path)
    again.open(state, clean=True)
    again.rebuild(rows)
    found = files(tmp_path)
    (kept,) = [name for name in found if ".edited-" in name]
    assert found == {"a.md": "one\n", "b.md": "two\n", kept: "corrected by hand"}


def test_files_written_after_the_last_sync_are_taken_up_after_a_crash(tmp_path: Path) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    state = sink.sync()
    sink.append([entry(1, id_="a", output="one")])
    again = folder(tmp_path)
    again.open(state, clean=False)
    again.append([entry(1, id_="a", output="one")])
    assert files(tmp_path) == {"a.md": "one\n"}
    assert again.sync()["until_ns"] >= (tmp_path / "a.md").stat().st_mtime_ns


def test_rows_that_leave_take_their_files_and_folders_with_them(tmp_path: Path) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="x/y/a", output="one"), entry(2, id_="x/b", output="two")])
    (tmp_path / "c.md").write_text("not ours")
    os.utime(tmp_path / "c.md", ns=(1, 1))
    sink.discard([Name("x/y/a"), Name("c"), Name("never written"), Name("../../etc")])
    assert files(tmp_path) == {"x/b.md": "two\n", "c.md": "not ours"}
    assert not (tmp_path / "x" / "y").exists()
    sink.append([entry(1, id_="x/y/a", output="again")])
    assert files(tmp_path)["x/y/a.md"] == "again\n"
    sink.sync()


def test_rows_of_one_id_have_a_file_each_and_leave_no_litter(tmp_path: Path) -> None:
    rows = [entry(1, id_="a", output="one"), entry(2, id_="a", output="two", twin=1)]
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append(rows)
    first = files(tmp_path)
    assert sorted(first.values()) == ["one\n", "two\n"]
    assert first["a.md"] == "one\n"
    again = folder(tmp_path)
    again.open(sink.sync(), clean=True)
    again.rebuild(rows)
    assert files(tmp_path) == first
    again.discard([Name("a")])
    assert sorted(files(tmp_path).values()) == ["two\n"]
    again.discard([Name("a", 1)])
    assert files(tmp_path) == {}


def test_a_file_that_was_brought_back_and_then_replaced_is_not_somebody_elses(tmp_path: Path) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a", output="one"), entry(2, id_="b", output=["one"])])
    state = sink.sync()
    for path in tmp_path.iterdir():
        path.unlink()
    again = folder(tmp_path)
    again.open(state, clean=True)
    again.rebuild([entry(1, id_="a", output="one"), entry(2, id_="b", output=["one"])])
    again.append([entry(3, id_="a", output="new"), entry(4, id_="b", output="new")])
    assert files(tmp_path) == {"a.md": "new\n", "b.md": "new\n"}
    assert again.notice is None


def test_an_edit_is_seen_although_other_files_were_written_before_it_was_looked_at(tmp_path: Path) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    rows = [entry(1, id_="a", output="one"), entry(2, id_="b", output="two")]
    sink.append(rows)
    state = sink.sync()
    (tmp_path / "a.md").unlink()
    (tmp_path / "b.md").write_text("corrected by hand")
    os.utime(tmp_path / "b.md", ns=(state["until_ns"] + 1, state["until_ns"] + 1))
    again = folder(tmp_path)
    again.open(state, clean=True)
    again.rebuild(rows)
    assert sorted(files(tmp_path).values()) == ["corrected by hand", "one\n", "two\n"]


def test_a_file_is_safe_from_power_loss_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync, rename = os.fsync, Path.rename

    def noted(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    def renamed(path: Path, target: Path) -> Path:
        assert synced == [path.stat().st_ino]
        return rename(path, target)

    sink = folder(tmp_path / "out")
    sink.open(None, clean=True)
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", renamed)
    sink.append([entry(1, id_="a", output="one")])
    sink.sync()
    assert synced == [(tmp_path / "out" / "a.md").stat().st_ino, (tmp_path / "out").stat().st_ino]


def test_a_link_inside_the_folder_is_not_followed_out(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "link").symlink_to(outside)
    sink = folder(out)
    sink.open(None, clean=True)
    with pytest.raises(OutputFailed):
        sink.append([entry(1, id_="link/a")])
    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_set_aside_not_written_through(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    out.mkdir()
    (out / "a.md").symlink_to(victim)
    sink = folder(out)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a", output="ours")])
    assert victim.read_text() == "precious"
    assert (out / "a.md").read_text() == "ours\n"


def test_what_stands_in_the_way_of_a_folder_or_as_a_folder_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    (tmp_path / "b.md").mkdir()
    sink = folder(tmp_path)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="x/a", output="one"), entry(2, id_="b", output="two")])
    assert (tmp_path / "x" / "a.md").read_text() == "one\n"
    assert (tmp_path / "b.md").read_text() == "two\n"
    assert len(list(tmp_path.glob("*.orig-*"))) == 2


def test_a_file_as_the_folder_and_a_folder_in_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    for path in (tmp_path / "plain", tmp_path / "plain" / "out"):
        with pytest.raises(CannotCreateOutput):
            folder(path).open(None, clean=True)


def test_a_full_disk_ends_it_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = folder(tmp_path)
    sink.open(None, clean=True)

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for _ in range(2):
        with pytest.raises(OutputFailed):
            sink.append([entry(1, id_="a")])
    monkeypatch.undo()
    with pytest.raises(OutputFailed):
        sink.append([entry(1, id_="a")])
    folder(tmp_path).open(None, clean=False)
    assert files(tmp_path) == {}


def test_on_a_file_system_that_folds_case_the_other_spelling_is_noticed() -> None:
    assert spelled_otherwise("README.md", ["readme.md"])
    assert not spelled_otherwise("README.md", ["README.md", "readme.md"])
    assert not spelled_otherwise("README.md", [])
