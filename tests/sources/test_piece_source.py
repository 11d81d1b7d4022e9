"""Documents as items of pieces."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lcbatch.chains.pieces import Pieces
from lcbatch.errors import Kind
from lcbatch.records import Item
from lcbatch.sources.pieces import InPieces
from lcbatch.sources.readers import DocumentText

from .reading import items_of, source_of


def pieces_of(*inputs: Path, tokens: int = 8) -> list[Item]:
    return items_of(InPieces(source_of(*inputs), Pieces(tokens, 0), partial(DocumentText, max_row_bytes=10_000)))


def test_each_piece_says_where_it_stands(tmp_path: Path) -> None:
    text = "The first paragraph here.\n\nThe second one."
    (tmp_path / "a.md").write_text(text)
    first, second = pieces_of(tmp_path)
    assert dict(first.fields) == {
        "id": "a.md#1", "path": f"{tmp_path}/a.md", "name": "a.md", "chunk": 1, "start": 0, "end": 25,
        "text": "The first paragraph here.",
    }  # fmt: skip
    assert (first.id, first.place, first.document) == ("a.md#1", f"{tmp_path}/a.md#1", None)
    assert text[second.fields["start"] : second.fields["end"]] == second.fields["text"] == "The second one."


def test_a_document_that_cannot_be_read_is_one_failed_item_between_the_others(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"one"), ("b.pdf", b"%PDF-1.4 broken"), ("c.txt", b"  "), ("d.txt", b"two")):
        (tmp_path / name).write_bytes(content)
    found = [(item.id, item.failure and item.failure.kind) for item in pieces_of(tmp_path)]
    assert found == [("a.txt#1", None), ("b.pdf#1", Kind.BAD_ROW), ("c.txt#1", Kind.NO_TEXT), ("d.txt#1", None)]


def test_rows_pass_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a text that is much longer than any piece may be, were it one"}\n')
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("short")
    found = pieces_of(tmp_path / "rows.jsonl", tmp_path / "docs")
    assert sorted(found[0].fields) == ["text"]
    assert found[1].fields["chunk"] == 1


def test_many_pieces_come_in_batches(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("word " * 10_000)
    source = InPieces(source_of(tmp_path), Pieces(5, 0), DocumentText)
    assert source.rereadable
    assert len(items_of(source)) == len(items_of(source)) > 2000
