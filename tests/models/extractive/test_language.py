"""Which language, which terms, how many words."""

from __future__ import annotations

import pytest

from lcbatch.models.extractive.language import count_words, lexicon_for, terms
from lcbatch.models.extractive.lexicon import LANGUAGES

from . import texts


@pytest.mark.parametrize("code", sorted(texts.ALL))
def test_the_language_of_a_page_is_found(code: str) -> None:
    assert lexicon_for(None, texts.ALL[code]).code == code


@pytest.mark.parametrize("name", ["de", "DE", "de-AT", "de_CH", "German", "Deutsch", " deutsch "])
def test_a_language_goes_by_code_tag_or_name(name: str) -> None:
    assert lexicon_for(name, texts.ENGLISH).code == "de"


def test_a_language_that_is_not_listed_falls_back_to_the_text() -> None:
    assert lexicon_for("Klingon", texts.RUSSIAN).code == "ru"


def test_text_without_any_known_word_is_of_no_language() -> None:
    assert lexicon_for(None, "zzz qqq 123").code == "und"


def test_terms_drop_function_words_and_conflate_inflections() -> None:
    assert terms("The compiler, the compilers and their compiling", LANGUAGES["en"]) == [
        "compile",
        "compile",
        "compili",
    ]


def test_unspaced_scripts_give_overlapping_pairs() -> None:
    assert terms("水道局 abc", LANGUAGES["ja"]) == ["水道", "道局", "abc"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("one two  three", 3.0), ("", 0.0), ("水道局は。", 2.0), ("太陽 solar pump", 3.0), ("слово за словом", 3.0)],
)
def test_words_are_counted_by_spaces_and_by_halves_of_unspaced_characters(text: str, words: float) -> None:
    assert count_words(text) == words
