"""Sentence boundaries in many languages. A bar in the sample stands where a sentence ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.models.extractive.inline import strip_inline
from lcbatch.models.extractive.language import lexicon_for
from lcbatch.models.extractive.lexicon import LANGUAGES, UNKNOWN
from lcbatch.models.extractive.sentences import split_sentences


@pytest.mark.parametrize(
    ("language", "marked"),
    [
        ("en", "Dr. Adams paid $3.50, i.e. too much.| He left.| Prof. Bell stayed."),
        ("en", "J. R. R. Tolkien wrote it.| Vitamin C.| The end."),
        ("en", "It was late ... and dark.| He waited…| Nobody came."),
        ("en", "“Stop!” he cried.| “Why?”| She ran."),
        ("en", '"Stop!" he cried.| (It was late.)| They went.'),
        ("en", "See https://example.org/a.b?c=d.e for more.| It is long."),
        ("en", "Version 2.0.1 of e.g. the U.S. edition came out.| It sold."),
        ("en", "They had bread, wine, etc.| The rest was gone."),
        ("en", "Really?!| Yes."),
        ("de", "Am 3. Oktober kam Dr. Müller, z.B. mit dem Zug.| Er blieb bis 1998.| Danach ging er."),
        ("de", "Er sagte: „Nein.“| Dann schwieg er."),
        ("fr", "M. Dupont est venu, p. ex. hier.| Est-ce vrai ?| « Oui. »| Il rit."),
        ("es", "¿Qué dijo el Sr. Pérez?| ¡Nada!| Se fue."),
        ("ru", "А. С. Пушкин жил в г. Москве, т.е. в центре.| Потом он уехал."),
        ("el", "Τι είναι αυτό;| Είναι σπίτι.| Ωραία!"),
        ("ja", "今日は晴れです。|明日は雨でしょうか？|「はい。」と彼は言った。|終わり！"),
        ("zh", "这是书。|你好吗？|他走了！"),
        ("ar", "هل هذا صحيح؟| نعم، هذا صحيح.| انتهى الأمر."),
        ("hi", "यह एक घर है।| क्या यह बड़ा है?| हाँ।"),
        ("en", "Claims need proof.[1]_| Proof is rare."),
    ],
)
def test_sentences_end_where_they_should(language: str, marked: str) -> None:
    expected = [strip_inline(part) for part in marked.split("|")]
    text = strip_inline(marked.replace("|", ""))
    assert split_sentences(text, LANGUAGES[language]) == expected


def test_a_stop_inside_inline_code_ends_nothing_and_code_may_open_a_sentence() -> None:
    text = strip_inline("Call ``a.b. C()`` first. ``close`` comes last.")
    assert len(split_sentences(text, LANGUAGES["en"])) == 2


def test_the_number_of_an_item_ends_nothing() -> None:
    assert split_sentences("1. Install it. Then run it.", LANGUAGES["en"]) == ["1. Install it.", "Then run it."]


@given(st.text(max_size=300))
def test_nothing_is_lost_in_any_text(text: str) -> None:
    for lexicon in (lexicon_for(None, text), UNKNOWN):
        joined = "".join(split_sentences(text, lexicon))
        assert "".join(joined.split()) == "".join(text.split())
