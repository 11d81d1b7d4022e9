"""Folders: sorted, filtered, never left; and the names that inputs are given by."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

import pytest

from lcbatch.errors import InputMissing, Kind, UsageError
from lcbatch.records import Item

from .reading import batches_of, items_of, read_items, source_of


def grow(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return root


def labels(items: list[Item]) -> list[str | None]:
    assert [item.failure for item in items if item.failure] == []
    return [item.id for item in items]


def test_documents_come_sorted_with_what_their_row_needs(tmp_path: Path) -> None:
    grow(tmp_path, "b.txt", "a.md", "sub/z.rst", "sub/y.HTML", "c.pdf", "d.docx", "e.htm", "f.markdown", "g.text")
    items = read_items(tmp_path, documents=True)
    assert labels(items) == [
        "a.md",
        "b.txt",
        "c.pdf",
        "d.docx",
        "e.htm",
        "f.markdown",
        "g.text",
        "sub/y.HTML",
        "sub/z.rst",
    ]
    first = items[0]
    assert first.fields == {"path": f"{tmp_path}/a.md", "name": "a.md"}
    assert first.place == f"{tmp_path}/a.md"
    assert first.document is not None
    assert first.document.path == f"{tmp_path}/a.md"
    assert first.document.digest == blake2b(b"text of a.md", digest_size=16).hexdigest()
    assert first.document.size == len("text of a.md")


def test_a_folder_is_read_the_same_way_twice_and_by_run_too(tmp_path: Path) -> None:
    grow(tmp_path, "a.md", "sub/b.txt", "rows.jsonl")
    source = source_of(tmp_path)
    first = items_of(source)
    assert source.passed_over == 1
    assert items_of(source) == first
    assert source.passed_over == 1
    assert labels(first) == ["a.md", "sub/b.txt"]


def test_paths_are_shown_as_the_folder_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, "docs/sub/a.md")
    monkeypatch.chdir(tmp_path)
    for named in ("docs", "docs/", "./docs"):
        (item,) = read_items(named, documents=True)
        assert item.fields["path"] == os.path.join(named, "sub/a.md")  # noqa: PTH118
        assert item.id == "sub/a.md"
        assert item.document is not None
        assert item.document.path == f"{tmp_path}/docs/sub/a.md"


def test_labels_of_several_arguments_are_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, "in/a/x.md", "in/b/x.md", "up.md", "in/here/one.md")
    monkeypatch.chdir(tmp_path / "in" / "here")
    items = read_items("../a", "../b/", "../../up.md", "./one.md", tmp_path / "up.md", documents=True)
    assert labels(items) == ["a/x.md", "b/x.md", "up.md", "one.md", f"{tmp_path}/up.md".removeprefix("/")]
    assert labels(read_items("../../up.md", documents=True)) == ["up.md"]


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    grow(tmp_path, "a.md", ".hidden.md", ".git/b.md", "photo.png", "other.png", "Makefile")
    source = source_of(tmp_path, documents=True)
    assert labels(items_of(source)) == ["a.md"]
    assert source.passed_over == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ("*.md",)}, ["a.md", "sub/b.md", "sub/deep/c.md"]),
        ({"include": ("sub/*",)}, ["sub/b.md", "sub/deep/c.md"]),
        ({"exclude": ("sub",)}, ["a.md", "d.txt"]),
        ({"exclude": ("deep", "*.txt")}, ["a.md", "sub/b.md"]),
        ({"include": ("*.md",), "exclude": ("a.*",)}, ["sub/b.md", "sub/deep/c.md"]),
    ],
)
def test_globs_decide_by_path_and_by_name(
    options: dict[str, tuple[str, ...]], expected: list[str], tmp_path: Path
) -> None:
    grow(tmp_path, "a.md", "d.txt", "sub/b.md", "sub/deep/c.md")
    assert labels(read_items(tmp_path, documents=True, **options)) == expected


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    grow(tmp_path, "outside/secret.md", "in/a.md")
    (tmp_path / "in" / "link.md").symlink_to(tmp_path / "outside" / "secret.md")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "nothing.md").symlink_to(tmp_path / "nowhere")
    source = source_of(tmp_path / "in", documents=True)
    assert labels(items_of(source)) == ["a.md"]
    assert source.passed_over == 3


def test_links_inside_give_no_document_twice_and_loops_end(tmp_path: Path) -> None:
    grow(tmp_path, "a/x.md", ".store/y.md", "README")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "same.md").symlink_to(tmp_path / "a" / "x.md")
    (tmp_path / "from-store").symlink_to(tmp_path / ".store")
    (tmp_path / "from-store-again").symlink_to(tmp_path / ".store")
    (tmp_path / ".store" / "loop").symlink_to(tmp_path / ".store")
    (tmp_path / "readme.md").symlink_to(tmp_path / "README")
    assert labels(read_items(tmp_path, documents=True)) == ["a/x.md", "from-store/y.md", "readme.md"]


def test_a_folder_named_by_a_link_is_read(tmp_path: Path) -> None:
    grow(tmp_path, "real/a.md")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert labels(read_items(tmp_path / "link", documents=True)) == ["a.md"]


def test_names_that_are_no_text_are_shown_and_still_read(tmp_path: Path) -> None:
    grow(tmp_path, "two\nlines.md", "x" * 250 + ".md")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.md", "wb") as file:  # noqa: PTH123
        file.write(b"text")
    items = read_items(tmp_path, documents=True)
    assert labels(items) == ["caf\\xe9.md", "two\\nlines.md", "x" * 250 + ".md"]
    for item in items:
        str(item.fields["path"]).encode()
        assert item.document is not None
        assert os.path.exists(item.document.path)  # noqa: PTH110


def test_own_outputs_are_passed_over_in_folders_and_refused_by_name(tmp_path: Path) -> None:
    grow(tmp_path, "a.md", "out.md", "out/a.md.md", "rows.jsonl")
    own = frozenset({tmp_path / "out.md", tmp_path / "out"})
    source = source_of(tmp_path, documents=True, own_outputs=own)
    assert labels(items_of(source)) == ["a.md"]
    assert source.passed_over == 1
    assert labels(read_items(f"{tmp_path}/*.md", documents=True, own_outputs=own)) == ["a.md"]
    for name in ("out.md", "out", "out/a.md.md"):
        with pytest.raises(UsageError, match="belongs to this run's output"):
            source_of(tmp_path / name, documents=True, own_outputs=own)


def test_globs_are_expanded_sorted_where_no_file_has_that_name(tmp_path: Path) -> None:
    grow(tmp_path, "b.md", "a.md", "deep/c.md", "[x].md", "x.md")
    assert [item.fields["name"] for item in read_items(f"{tmp_path}/?.md", documents=True)] == ["a.md", "b.md", "x.md"]
    assert [item.fields["name"] for item in read_items(f"{tmp_path}/[x].md", documents=True)] == ["[x].md"]
    found = [item.fields["name"] for item in read_items(f"{tmp_path}/**/*.md", documents=True)]
    assert found == ["[x].md", "a.md", "b.md", "c.md", "x.md"]
    with pytest.raises(InputMissing, match="nothing matches"):
        source_of(f"{tmp_path}/*.pdf")


def test_a_missing_input_names_its_neighbours(tmp_path: Path) -> None:
    grow(tmp_path, "prompts.jsonl")
    with pytest.raises(InputMissing, match="no such input") as caught:
        source_of(tmp_path / "promts.jsonl")
    assert caught.value.hint == f"did you mean {tmp_path}/prompts.jsonl?"
    with pytest.raises(InputMissing) as caught:
        source_of(tmp_path / "nowhere" / "rows.jsonl")
    assert caught.value.hint == f"there is no folder {tmp_path}/nowhere either"


def test_an_empty_name_and_a_dangling_link_are_missing(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputMissing, match="link to nothing"):
        source_of(tmp_path / "link.jsonl")
    with pytest.raises(InputMissing, match="no such input: ''"):
        source_of("")


def test_a_folder_without_documents_says_what_is_there_before_anything_is_read(tmp_path: Path) -> None:
    grow(tmp_path, "full/a.md", "empty/x.png", "empty/y.png", "empty/z")
    with pytest.raises(InputMissing) as caught:
        batches_of(source_of(tmp_path / "full", tmp_path / "empty", documents=True))
    assert caught.value.message == f"no documents in {tmp_path}/empty; 3 passed over (.png 2, no suffix 1)"
    assert "txt" in caught.value.hint


def test_a_document_beyond_the_limit_fails_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(10 * 1024**4)
    grow(tmp_path, "small.txt")
    huge, small = read_items(tmp_path, documents=True)
    assert huge.failure is not None
    assert huge.failure.kind is Kind.BAD_ROW
    assert "larger than" in huge.failure.message
    assert small.failure is None


def test_a_row_format_for_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder gives documents"):
        source_of(tmp_path, input_format="jsonl")


def test_a_file_that_vanished_fails_as_a_row(tmp_path: Path) -> None:
    grow(tmp_path, "a.md", "b.md")
    source = source_of(tmp_path / "a.md", tmp_path / "b.md", documents=True)
    (tmp_path / "a.md").unlink()
    gone, there = items_of(source)
    assert gone.failure is not None
    assert "cannot be read (No such file or directory)" in gone.failure.message
    assert there.failure is None


def test_batches_of_documents_are_bounded(tmp_path: Path) -> None:
    grow(tmp_path, *[f"{number:04}.txt" for number in range(600)])
    batches = batches_of(source_of(tmp_path, documents=True))
    assert sum(map(len, batches)) == 600
    assert max(map(len, batches)) <= 256


def test_a_loader_reads_files_of_any_suffix(tmp_path: Path) -> None:
    grow(tmp_path, "book.epub")
    (item,) = read_items(tmp_path, documents=True, loader="some.module:Loader")
    assert item.document is not None
    assert item.document.loader == "some.module:Loader"
