"""Markup becomes paragraphs; what is no prose is gone."""

from __future__ import annotations

import pytest

from lcbatch.models.extractive.inline import plain, strip_inline
from lcbatch.models.extractive.markup import looks_like_prose, strip_markup


def texts(source: str) -> list[str]:
    return [plain(block.text) for block in strip_markup(source).blocks if block.kind != "heading"]


@pytest.mark.parametrize(
    "source",
    [
        "```python\nThis is code. It is not prose.\n```",
        "~~~\nThis is code. It is not prose.\n~~~",
        "````md\n```\nThis is code. It is not prose.\n```\n````",
        "```\nThis fence is never closed. It runs to the end.\n\nStill in it.",
        "- ```sh\n  This is code. It is not prose.\n  ```",
        "| name | price |\n|------|-------|\n| a well-made pump | 300 dollars. |",
        "+-----+-----+\n| One sentence. | b |\n+-----+-----+",
        "===== =====\nOne sentence. Two.\n===== =====",
        ".. code-block:: python\n\n   This is code. It is not prose.",
        ".. image:: pump.png\n   :alt: A picture of a pump.",
        ".. [1] A footnote. It is not prose.",
        ".. _target: https://example.org/pumps",
        ".. A comment. It is not prose.\n   It goes on here.",
        ":Author: A person. Of some kind.",
        "[1]: https://example.org 'A title. Of some kind.'",
        "[^1]: A footnote. It is not prose.",
        ">>> print('This is code. It is not prose.')\nThis is code.",
        "| a line block\n| of verse.",
        "-----",
        "<!-- A comment. It is\n\nnot prose. -->",
    ],
)
def test_what_is_not_prose_is_left_out(source: str) -> None:
    assert texts(f"Before it stands a sentence.\n\n{source}") == ["Before it stands a sentence."]


@pytest.mark.parametrize(
    ("marked", "bare"),
    [
        ("A **strong** and *soft* word.", "A strong and soft word."),
        ("A __very strong__ and _soft_ word.", "A very strong and soft word."),
        ("See [the well](https://x.org/a_(b)) there.", "See the well there."),
        ("See [the well][1] there.", "See the well there."),
        ("An ![alt text](a.png) image.", "An image."),
        ("The `code_span` stays.", "The code_span stays."),
        ("The ``code with ` tick`` stays.", "The code with ` tick stays."),
        ("A :ref:`label <target>` and :mod:`~os.path` role.", "A label and path role."),
        ("Read :pep:`8` and :rfc:`2822#section-1`.", "Read PEP 8 and RFC 2822."),
        ("A `phrase link`_ and a word_ link, but snake_case and __init__.", None),
        ("A claim [1]_ and another [#note]_ and more [^2].", "A claim and another and more."),
        ("Many agree [3, 4].", "Many agree."),
        ("Nobody does ([5]_).", "Nobody does."),
        ("An array a[1] stays.", "An array a[1] stays."),
        ("A <b>bold</b> tag, a <name> placeholder &amp; more.", "A bold tag, a <name> placeholder & more."),
        (r"An escaped \*star\*.", "An escaped *star*."),
        ("5 * 3 and 2 * 4 are products.", "5 * 3 and 2 * 4 are products."),
    ],
)
def test_inline_markup_is_stripped(marked: str, bare: str | None) -> None:
    expected = bare or "A phrase link and a word link, but snake_case and __init__."
    assert plain(strip_inline(marked)) == expected


def test_literal_block_after_double_colon_is_left_out_and_the_next_paragraph_stays() -> None:
    source = "The pump starts so::\n\n    pump.start()\n\n    It looks like prose. It is code.\n\nThen it runs."
    assert texts(source) == ["The pump starts so:", "Then it runs."]


def test_underlined_and_marked_headings_name_the_blocks_beneath() -> None:
    source = (
        "=====\nPumps\n=====\n\nThey pump water up.\n\nCosts\n-----\nThey cost money.\n\n# Care #\n\nThey need care."
    )
    blocks = [block for block in strip_markup(source).blocks if block.kind == "prose"]
    assert [(block.heading, block.text) for block in blocks] == [
        ("Pumps", "They pump water up."),
        ("Costs", "They cost money."),
        ("Care", "They need care."),
    ]


def test_list_items_are_blocks_of_their_own() -> None:
    source = "- The first one\n  goes on here.\n- The second one.\n\n  Its second paragraph.\n\n1. A step.\n2. Another."
    assert texts(source) == [
        "The first one goes on here.",
        "The second one.",
        "Its second paragraph.",
        "A step.",
        "Another.",
    ]


def test_a_wrapped_number_opens_no_item() -> None:
    assert texts("It follows the rules of PEP\n380. The rest is as it was.") == [
        "It follows the rules of PEP 380. The rest is as it was."
    ]


def test_definition_list_loses_its_term() -> None:
    assert texts("tank\n   The tank holds water for two days.") == ["The tank holds water for two days."]


def test_admonition_keeps_its_text() -> None:
    assert texts(".. note:: Wash the panels every week.\n\n   Use clean water.") == [
        "Wash the panels every week.",
        "Use clean water.",
    ]


def test_indented_prose_stays_and_indented_code_goes() -> None:
    source = "Start.\n\n    The old man said nothing for a while.\n\n    x = {'a': 1}; y = f(x) | g\n\nThe end came."
    assert texts(source) == ["Start.", "The old man said nothing for a while.", "The end came."]


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("---\ntitle: 'Pumps'\ntags: [a]\n---\n\nThey pump.", "Pumps"),
        ("Title: Pumps\nAuthor: Some One,\n        Another One\nStatus: Draft\n\nThey pump.", "Pumps"),
        ("Subject: Pumps\nFrom: a@example.org\n\nThey pump.", "Pumps"),
        ("# Pumps\n\nThey pump.", "Pumps"),
    ],
)
def test_front_matter_gives_the_title_and_no_text(source: str, title: str) -> None:
    document = strip_markup(source)
    assert document.title == title
    assert [block.text for block in document.blocks if block.kind == "prose"] == ["They pump."]


def test_a_dialogue_is_no_header() -> None:
    assert texts("Anna: Where is the well?\nBert: Behind the school.\n\nThey went.")[0].startswith("Anna: Where")


def test_html_gives_headings_items_and_paragraphs_alone() -> None:
    source = (
        "<!DOCTYPE html><html><head><title>Wells &amp; pumps</title><style>p { x: y. }</style></head><body>"
        "<nav>Home. About us.</nav><h2>Digging</h2><p>A well is dug when water\nstands <b>lowest</b>.</p>"
        "<pre>code. More code.</pre><ul><li>It is lined with brick.</li></ul>"
        "<table><tr><td>A cell.</td></tr></table><script>var a = 'x. y.';</script></body></html>"
    )
    document = strip_markup(source)
    assert document.title == "Wells & pumps"
    assert [(b.kind, b.heading, b.text) for b in document.blocks if b.kind != "heading"] == [
        ("prose", "Digging", "A well is dug when water stands lowest."),
        ("item", "Digging", "It is lined with brick."),
    ]


def test_gutenberg_frame_is_cut() -> None:
    source = (
        "The eBook is for the use of anyone.\r\n\r\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\r\n\r\n"
        "It was a dark night.\r\n\r\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK X ***\r\n\r\nThe licence follows here."
    )
    assert texts("\ufeff" + source) == ["It was a dark night."]


def test_deep_nesting_is_cut_off_instead_of_overflowing_the_stack() -> None:
    nested = "\n".join(" " * (3 * depth) + ".. note::" for depth in range(400))
    assert texts(f"Before it stands a sentence.\n\n{nested}") == ["Before it stands a sentence."]


@pytest.mark.parametrize("text", ["for (i = 0; i < n; i++) { x[i] |= y; }", "12 34 5.6 %", "", "a == b && c >= d"])
def test_code_and_figures_do_not_look_like_prose(text: str) -> None:
    assert not looks_like_prose(text)


@pytest.mark.parametrize(
    "text", ["The pump (a small one) runs.", "Он пришёл домой.", "水をくみ上げる。", "Use foo() or bar()."]
)
def test_prose_of_any_script_looks_like_prose(text: str) -> None:
    assert looks_like_prose(text)
