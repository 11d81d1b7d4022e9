"""Parts of a document: together they are the document, none is too long, and an edit changes few."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.chains.cutting import OVERLAP_BYTES, cut_up, grouped, mark, parts_between
from lcbatch.chains.structure import Structure, structure_of

from .books import book, dice_of, paragraph

_MOST = 30_000

_TEXTS = st.text(alphabet=st.sampled_from(" \n.#=aä字\U0001f600\ud800"), max_size=3000)


def parts_of(document: Structure, most: int, known: frozenset[bytes] = frozenset()) -> list[tuple[str, str]]:
    """(headings above, text) of each part, as a model is shown it."""
    parts = parts_between(document, cut_up(document, most, known))
    return [(document.path_at(part.start), document.text(part.before, part.end)) for part in parts]


@given(_TEXTS, st.integers(64, 700))
def test_the_parts_are_the_document_once_but_for_the_overlap(text: str, most: int) -> None:
    document = structure_of(text, "a.md")
    parts = parts_between(document, cut_up(document, most))

    assert "".join(document.text(part.start, part.end) for part in parts) == text
    assert all(part.end - part.start <= most for part in parts)
    assert all(part.start - part.before <= OVERLAP_BYTES for part in parts)
    assert parts[0].before == 0


def test_parts_are_nearly_as_long_as_they_may_be() -> None:
    document = structure_of(book(700_000), "book.txt")

    assert len(cut_up(document, _MOST)) <= math.ceil(1.10 * len(document.data) / _MOST)


def test_an_edited_document_is_cut_as_its_last_version_was() -> None:
    text = book(500_000)
    before = structure_of(text, "book.txt")
    cuts = cut_up(before, _MOST)
    known = frozenset(mark(before.data, cut) for cut in cuts[:-1])
    old = set(parts_of(before, _MOST))
    dice = dice_of(5)

    for _ in range(20):
        at = text.index("\n\n", dice.randrange(len(text) - 1000)) + 2
        edited = text[:at] + paragraph(dice).upper() + "\n\n" + text[at:]
        after = parts_of(structure_of(edited, "book.txt"), _MOST, known)
        assert len([part for part in after if part not in old]) <= 2


def test_without_a_memory_most_insertions_are_found_again_at_once() -> None:
    changed = []
    for seed in range(20):
        text = book(500_000, seed=seed)
        old = set(parts_of(structure_of(text, "book.txt"), _MOST))
        inserted = paragraph(dice_of(seed)).upper() + "\n\n" + text
        changed.append(len([part for part in parts_of(structure_of(inserted, "book.txt"), _MOST) if part not in old]))

    assert sorted(changed)[len(changed) // 2] == 1
    assert sum(count <= 3 for count in changed) >= 16


def test_the_headings_above_a_part_go_with_it() -> None:
    markdown = (
        "# Top\n\nintro\n\n## One\n\n"
        + "text of one. " * 50
        + "\n\n```\n# no heading\n```\n\n## Two\n\n### Deep\n\nx\n"
    )
    document = structure_of(markdown, "a.md")

    assert [(heading.depth, heading.title) for heading in document.headings] == [
        (1, "Top"),
        (2, "One"),
        (2, "Two"),
        (3, "Deep"),
    ]
    assert document.path_at(markdown.index("text of")) == "Top > One"
    assert document.path_at(markdown.index("## Two")) == "Top"
    assert document.path_at(len(markdown)) == "Top > Two > Deep"


def test_headings_of_restructuredtext_are_ranked_as_they_appear() -> None:
    text = "=====\nTitle\n=====\n\nPart\n====\n\nSection\n-------\n\ntext\n\nOther\n====="

    assert [(heading.depth, heading.title) for heading in structure_of(text, "a.rst").headings] == [
        (1, "Title"),
        (2, "Part"),
        (3, "Section"),
        (2, "Other"),
    ]


def test_a_part_begins_at_a_heading_where_one_is_near_enough() -> None:
    text = "x " * 420 + "\n\npara\n\n# Heading\n\n" + "y " * 400
    document = structure_of(text, "a.md")
    first, second = parts_between(document, cut_up(document, 950))

    assert document.text(second.start, second.end).startswith("# Heading")
    assert second.before == second.start, "nothing is carried over a heading"
    assert first.end == second.start


def test_source_code_is_cut_between_definitions() -> None:
    code = "".join(f"def function_{number}():\n    a = 1\n\n    return a\n\n\n" for number in range(40))
    document = structure_of(code, "module.py")
    starts = [document.text(part.start, part.end) for part in parts_between(document, cut_up(document, 600))]

    assert len(starts) > 2
    assert all(text.startswith("def ") for text in starts)


@given(st.lists(st.integers(50, 900), min_size=1, max_size=200), st.integers(1000, 5000))
def test_groups_are_all_neighbours_in_order_and_none_is_too_large(sizes: list[int], most: int) -> None:
    groups = grouped(sizes, [str(index).encode() for index in range(len(sizes))], most)

    assert [index for group in groups for index in group] == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in group) <= most for group in groups)


def test_the_last_two_groups_are_evened_by_size_and_not_by_number() -> None:
    sizes = [1, 2, 90, 40, 1, 2, 1]

    groups = grouped(sizes, [str(index).encode() for index in range(len(sizes))], 100)

    assert all(sum(sizes[index] for index in group) <= 100 for group in groups)


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        pytest.param("# One" + " " * 300_000 + "two\n", 1, id="a heading with blanks"),
        pytest.param("# One\n\n```\n# none\n```\n\n" * 30_000, 30_000, id="fenced code"),
    ],
)
def test_reading_a_document_s_structure_takes_time_as_its_length_does(text: str, headings: int) -> None:
    began_s = time.process_time()

    assert len(structure_of(text, "").headings) == headings
    assert time.process_time() - began_s < 5, "it took minutes"


@pytest.mark.parametrize("count", [40, 100, 333])
def test_groups_are_even_and_one_more_part_in_front_leaves_most_as_they_were(count: int) -> None:
    dice = dice_of(count)
    sizes = [dice.randrange(600, 1000) for _ in range(count)]
    marks = [dice.randbytes(16) for _ in sizes]
    groups = grouped(sizes, marks, 24_000)
    lengths = [len(group) for group in groups]

    assert len(groups) <= math.ceil(1.15 * sum(sizes) / 24_000) + 1
    assert min(lengths) * 2 >= max(lengths)

    after = grouped([800, *sizes], [dice.randbytes(16), *marks], 24_000)
    assert len({group.stop - 1 for group in after} & {group.stop for group in groups}) >= len(groups) // 2
