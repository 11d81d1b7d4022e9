from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.sinks.names import stem

NASTY = st.sampled_from(
    ["..", ".", "", "a", "A", "\0", "\n", "a.md", "b.json", "\\", "~", "é" * 200, "\ud800", "\u202e", " "]
)
IDS = st.one_of(
    st.lists(st.one_of(NASTY, st.text(max_size=6)), max_size=6).map("/".join),
    st.text(st.characters(codec=None), max_size=300),
    st.integers(0, 6000).map(lambda n: "a/" * n),
)


@given(IDS)
def test_a_name_never_leaves_its_folder(row_id: str) -> None:
    name = stem(row_id) + ".json"
    parts = name.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert all(len(os.fsencode(part)) <= 240 for part in parts)
    assert "\0" not in name
    assert not any(ord(char) < 32 for char in name)
    assert len(os.fsencode(name)) < 2000


@given(st.lists(IDS, unique=True, max_size=20))
def test_two_ids_never_share_a_name_nor_a_file_and_a_folder(ids: list[str]) -> None:
    names = [stem(row_id) + ".md" for row_id in ids]
    folders = {str(parent) for name in names for parent in Path(name).parents}
    assert len(set(names)) == len(names)
    assert folders.isdisjoint(names)


@pytest.mark.parametrize("row_id", ["a/b.pdf", "README.md", "x y/ü.txt", "42", "-rf", ".hidden", "What is 1:1?"])
def test_an_id_that_can_stand_is_mirrored(row_id: str) -> None:
    assert stem(row_id) == row_id


@pytest.mark.parametrize(
    ("row_id", "start"),
    [
        ("../../etc/passwd", "etc/passwd~"),
        ("/abs/x.txt", "abs/x.txt~"),
        ("a//b", "a/b~"),
        ("a\\..\\b", "a_.._b~"),
        ("", "~"),
        ("..", "~"),
        ("notes.md/a", "notes.md_/a~"),
        ("a~0123456789ab", "a~0123456789ab~"),
    ],
)
def test_any_other_id_gets_a_hash_of_itself(row_id: str, start: str) -> None:
    name = stem(row_id)
    assert name.startswith(start)
    assert name == stem(row_id)
    assert len(name) == len(start) + 12


@given(st.lists(st.tuples(IDS, st.integers(-3, 3)), unique=True, max_size=20))
def test_rows_of_one_id_never_share_a_name(rows: list[tuple[str, int]]) -> None:
    assert len({stem(row_id, twin) for row_id, twin in rows}) == len(rows)


def test_the_first_row_of_an_id_has_the_name_and_the_others_a_hash() -> None:
    assert stem("a/b.pdf", 0) == "a/b.pdf"
    assert stem("a/b.pdf", 1).startswith("a/b.pdf~")
    assert stem("a/b.pdf", 1) not in {stem("a/b.pdf", 2), stem("a/b.pdf", hashed=True)}
