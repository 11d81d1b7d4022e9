"""What is embedded of a row, and how long texts are cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.chains.pieces import Pieces, tokens_of
from lcbatch.errors import Kind
from lcbatch.job import EMBED

from .support import Bench


@pytest.mark.parametrize(
    ("options", "fields", "text"),
    [
        ({}, {"text": "a", "prompt": "b"}, "a"),
        ({}, {"prompt": "b"}, "b"),
        ({"prompt": "passage: {title}"}, {"title": "T", "text": "a"}, "passage: T"),
    ],
)
def test_the_text_of_a_row(options: dict[str, Any], fields: dict[str, str], text: str) -> None:
    assert Bench(EMBED, **options).sent(**fields).messages == [text]


def test_a_row_without_text_fails_without_a_call() -> None:
    bench = Bench(EMBED)
    assert bench.failure(text=" \n").kind is Kind.NO_TEXT
    assert bench.call.requests == []


def test_rows_need_a_text_or_what_the_template_names() -> None:
    assert Bench(EMBED).chain.missing({"title": "T"}) == "text"
    assert Bench(EMBED, prompt="{title}").chain.missing({"text": "a"}) == "title"


_TEXTS = st.text(st.sampled_from("ab cd.\n\té日本🦊"), max_size=600)


@given(_TEXTS, st.integers(1, 40), st.floats(0, 0.5))
def test_pieces_hold_every_character_in_order_and_no_more_tokens_than_allowed(
    text: str, tokens: int, overlap: float
) -> None:
    pieces = list(Pieces(tokens, int(tokens * overlap))(text))
    covered = set[int]()
    for start, end in pieces:
        assert text[start:end].strip() == text[start:end] != ""
        assert tokens_of(text[start:end]) <= tokens or end == start + 1
        covered.update(range(start, end))
    assert all(at in covered for at, char in enumerate(text) if not char.isspace())
    assert pieces == sorted(pieces)


def test_pieces_end_at_paragraphs_and_overlap_by_words() -> None:
    text = "one two three four.\n\nfive six seven eight nine ten eleven twelve."
    found = [text[start:end] for start, end in Pieces(tokens=8, overlap=2)(text)]
    assert found[0] == "one two three four."
    assert found[1].startswith("four.")
    assert found[-1].endswith("twelve.")


def test_a_text_that_fits_is_one_piece() -> None:
    assert list(Pieces(512, 64)("  a short text\n")) == [(2, 14)]


class _Watched(str):
    """Counts the characters that are copied out of it."""

    copied = 0

    def __getitem__(self, at: Any) -> str:
        part = super().__getitem__(at)
        self.copied += len(part)
        return part


def test_a_long_text_is_cut_in_one_go() -> None:
    text = _Watched("A sentence of some words. " * 4_000)
    assert len(list(Pieces(64, 8)(text))) > 400
    assert text.copied < 5 * len(text)


@given(_TEXTS)
def test_tokens_are_those_of_the_characters(text: str) -> None:
    assert tokens_of(text + "\ud800") == pytest.approx(sum(map(tokens_of, text)) + tokens_of("\ud800"))
    assert [tokens_of(char) for char in "aé日🦊"] == [0.25, 0.6, 1.2, 3.0]
