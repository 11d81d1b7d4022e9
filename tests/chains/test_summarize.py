"""One summary a document."""

from __future__ import annotations

from typing import Any

import pytest

from lcbatch.errors import Kind
from lcbatch.job import SUMMARIZE

from .support import Bench


def prompt_of(bench: Bench, **fields: Any) -> str:
    text: str = bench.sent(**{"text": "the text", "name": "a.md", "path": "x/a.md", **fields}).messages[1]["content"]
    return text


def test_the_default_prompt_asks_for_what_the_options_say() -> None:
    text = prompt_of(Bench(SUMMARIZE, words=50, language="French", focus='costs {and} %s "risks"'))

    assert "about 50 words" in text
    assert "Write in French." in text
    assert 'Dwell on this above all: costs {and} %s "risks"' in text
    assert text.endswith('<document name="a.md">\nthe text\n</document>')


def test_without_a_language_it_is_the_document_s_own() -> None:
    text = prompt_of(Bench(SUMMARIZE))

    assert "document's own language" in text
    assert "Dwell" not in text


def test_a_document_is_never_expanded() -> None:
    assert "{words} {{name}} {focus}" in prompt_of(Bench(SUMMARIZE, focus="x"), text="{words} {{name}} {focus}")


def test_the_model_that_takes_documents_alone_gets_nothing_else() -> None:
    request = Bench(SUMMARIZE, document_alone=True, words=50, focus="costs").sent(text="the text")

    assert request.messages == [{"role": "user", "content": "the text"}]
    assert request.params == {"words": 50, "focus": "costs"}


def test_an_own_prompt_may_name_words_language_and_focus() -> None:
    bench = Bench(SUMMARIZE, prompt="{words} {language}|{focus}|{name}: {text}", system="On {path}", words=7)

    assert [message["content"] for message in bench.sent(text="T", name="n", path="p").messages] == ["On p", "7 ||n: T"]
    assert bench.chain.uses == frozenset({"text", "name", "path"})


def test_a_moved_document_is_the_same_document() -> None:
    assert Bench(SUMMARIZE).chain.uses == frozenset({"text"})


def test_a_row_of_text_alone_is_a_document_too() -> None:
    bench = Bench(SUMMARIZE)

    assert bench.chain.missing({}) is None, "documents bring their text later"
    assert "the text" in bench.sent(text="the text").messages[1]["content"]


def test_what_an_own_prompt_needs_beyond_a_document_is_missed() -> None:
    chain = Bench(SUMMARIZE, prompt="{text} {author}", system="{tone}").chain

    assert chain.missing({"author": "a"}) == "tone"
    assert chain.missing({"tone": "a"}) == "author"
    assert chain.missing({"tone": "a", "author": "b"}) is None


@pytest.mark.parametrize("text", ["", " \n\t", None])
def test_a_document_without_text_costs_no_call(text: str | None) -> None:
    bench = Bench(SUMMARIZE)

    assert bench.failure(text=text).kind is Kind.NO_TEXT
    assert bench.call.requests == []


def test_the_identity_changes_with_whatever_is_asked_for() -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"words": 9},
        {"language": "de"},
        {"focus": "x"},
        {"prompt": "{text}"},
        {"system": "s"},
    ]
    identities = [str(Bench(SUMMARIZE, **options).chain.identity) for options in asked]

    assert len(set(identities)) == len(asked)
    assert str(Bench(SUMMARIZE).chain.identity) == identities[0]


def test_the_default_wording_is_no_part_of_a_model_s_identity_that_never_sees_it() -> None:
    identity = Bench(SUMMARIZE, document_alone=True).chain.identity

    assert identity["prompt"] is None
    assert identity["system"] is None
