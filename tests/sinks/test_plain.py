from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lcbatch.sinks.lines import Lines
from lcbatch.sinks.plain import harmless, plain_text

from .fakes import entry


def test_a_summary_reads_as_title_and_wrapped_text() -> None:
    row = entry(1, id_="a/b.md", output="one two three four five six\n\nseven", meta={"model": "lcbatch:extractive"})
    assert plain_text(20)(row) == "a/b.md  [lcbatch:extractive]\none two three four\nfive six\n\nseven\n\n"


def test_what_steers_a_terminal_is_taken_out() -> None:
    text = "\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x1b\\ \x9b2Jgone \x1bc\x08\u202e\ud800ok\r\nnext\tend"
    assert harmless(text) == "red link gone ok\nnext\tend"


def test_titles_are_harmless_too_and_one_line() -> None:
    row = entry(1, id_="a\n\x1b[2Jb", output="x", meta={"model": "m\x07"})
    assert plain_text(80)(row).splitlines()[0] == "a b  [m]"


@given(st.text(st.characters(codec=None), max_size=40))
def test_nothing_that_steers_ever_reaches_the_terminal(text: str) -> None:
    data = Lines(plain_text(40), {}, is_json=False).encode([entry(1, output=text, id_=text)])
    shown = set(data.decode()) - {"\n", "\t"}
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)


def test_answers_that_are_no_text_are_shown_as_json() -> None:
    assert plain_text(80)(entry(1, id_="a", output={"k": 1})) == 'a\n{"k":1}\n\n'
