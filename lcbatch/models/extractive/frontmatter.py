"""What stands around a document and is not the document: metadata, licence frames, HTML around the text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Final

from .inline import CODE_CLOSE, CODE_OPEN, NOTE_HERE
from .lexicon import words_of

_NEWLINES = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNWANTED = re.compile(f"[\x00-\x08\x0e-\x1f\x7f\u200b\u2060\ufeff{CODE_OPEN}{CODE_CLOSE}{NOTE_HERE}]")

# Project Gutenberg's frame, as its licence tells readers to find it.
_FRAME_START = re.compile(r"^\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)
_FRAME_END = re.compile(
    r"^(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg)", re.MULTILINE
)

_YAML = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)\n(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"^([A-Za-z][A-Za-z-]{1,30})[ \t]?[:=][ \t]*(.*)$")
_BIBLIOGRAPHIC: Final = words_of("title subject author authors date from status version created type category")
"""Names of which one must stand in a header block: else two lines of a dialogue would be taken for one."""

_COMMENT = re.compile("<!--")
_LOOKS_HTML = re.compile(
    r"<(?:!doctype|html|body|head|div|p|br|table|span|h[1-6]|ul|ol|section|article)\b[^<>]*>", re.IGNORECASE
)
_HTML_TAGS_TO_BE_HTML: Final = 3
_HTML_DROPPED = re.compile(
    r"<(script|style|pre|code|table|nav|footer|template|svg|head|figure|textarea)\b[^<>]*>", re.IGNORECASE
)
_HTML_TITLE = re.compile(r"<title[^<>]*>(.{0,1000}?)</title>", re.DOTALL | re.IGNORECASE)
_HTML_INLINE_CODE = re.compile(r"<(code|tt|kbd|samp)\b[^>]*>([^<]{1,200})</\1\s*>", re.IGNORECASE)
_HTML_HEADING = re.compile(r"<h([1-6])\b[^<>]{0,400}>(.{0,1000}?)</h\1\s*>", re.DOTALL | re.IGNORECASE)
_HTML_ITEM = re.compile(r"<li\b[^>]*>", re.IGNORECASE)
_HTML_BLOCK = re.compile(
    r"</?(?:p|div|br|hr|ul|ol|li|dl|dt|dd|h[1-6]|section|article|header|main|aside|blockquote|body|html)\b[^>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^<>]{1,400}>")
_LEADING_SPACE = re.compile(r"^[ \t]+", re.MULTILINE)


def normalise(text: str) -> str:
    """Return `text` with \\n as the only line end, without BOM, control characters and HTML comments."""
    text = _UNWANTED.sub("", _NEWLINES.sub("\n", text)).expandtabs(4)
    return _without(text, _COMMENT, lambda _: "-->")


def _without(text: str, opening: re.Pattern[str], closing: Callable[[re.Match[str]], str]) -> str:
    """Cut each stretch from an opening to its closing; one that is never closed stays, but for its tag.

    A lazy pattern would do it in one line, and in quadratic time where nothing is closed.
    """
    lowered = text.lower()
    parts: list[str] = []
    unclosed: set[str] = set()
    end = 0
    for found in opening.finditer(text):
        mark = closing(found)
        if found.start() < end or mark in unclosed:
            continue
        at = lowered.find(mark, found.end())
        if at < 0:
            unclosed.add(mark)
            continue
        parts.append(text[end : found.start()])
        end = at + len(mark)
    return "\n\n".join([*parts, text[end:]]) if opening is not _COMMENT else "".join([*parts, text[end:]])


def cut_frame(text: str) -> str:
    """Return what stands between Project Gutenberg's start and end lines, or all of `text` where there are none."""
    start, end = _FRAME_START.search(text), None
    begin = start.end() if start else 0
    end = _FRAME_END.search(text, begin)
    return text[begin : end.start() if end else len(text)]


def cut_header(text: str) -> tuple[str, str]:
    """Return the title named in a leading metadata block ("" when none is), and `text` after that block.

    Known are YAML and TOML front matter, and header lines as in mail (RFC 5322): `Name: value`, continued on indented lines.
    """
    text = text.lstrip("\n")
    if yaml := _YAML.match(text):
        fields = _fields(yaml.group(2).split("\n"))
        return fields.get("title", "").strip("\"' "), text[yaml.end() :]
    head, _, rest = text.partition("\n\n")
    lines = head.split("\n")
    fields = _fields(lines)
    starts = sum(not line.startswith((" ", "\t")) for line in lines)
    if len(fields) < 2 or len(fields) != starts or not _BIBLIOGRAPHIC & fields.keys():  # noqa: PLR2004 - one line proves nothing
        return "", text
    return fields.get("title") or fields.get("subject") or "", rest


def _fields(lines: list[str]) -> dict[str, str]:
    """Header lines by lower-case name; a line repeated under one name counts once."""
    return {found.group(1).lower(): found.group(2).strip() for line in lines if (found := _FIELD.match(line))}


def html_to_text(text: str) -> tuple[str, str]:
    """Return title and text of an HTML document, with headings and list items marked as in Markdown.

    Text with fewer than three block tags is not HTML and comes back as it is.
    """
    if "<" not in text or len(_LOOKS_HTML.findall(text, 0, 20_000)) < _HTML_TAGS_TO_BE_HTML:
        return "", text
    titled = _HTML_TITLE.search(text)
    text = _HTML_INLINE_CODE.sub(r"`\2`", text)
    text = _without(text, _HTML_DROPPED, lambda opening: f"</{opening.group(1).lower()}")
    text = _HTML_HEADING.sub(_markdown_heading, text)
    text = _HTML_BLOCK.sub("\n\n", _HTML_ITEM.sub("\n\n- ", text))
    text = html.unescape(_TAG.sub("", _LEADING_SPACE.sub("", text)))
    return html.unescape(titled.group(1)).strip() if titled else "", text


def _markdown_heading(found: re.Match[str]) -> str:
    return f"\n\n{'#' * int(found.group(1))} {' '.join(_TAG.sub('', found.group(2)).split())}\n\n"
