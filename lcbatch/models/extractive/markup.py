"""From a document to its prose: blocks of text with the heading above each, code, tables and apparatus left out.

Markdown, reStructuredText, HTML and plain text share one reader: their marks hardly collide, and documents mix them.
The reader goes line by line, takes each construct that starts where it stands, and gives blocks of running text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from .frontmatter import cut_frame, cut_header, html_to_text, normalise
from .inline import CODE_OPEN, CODE_SPAN, strip_inline
from .lexicon import words_of

Kind = Literal["prose", "item", "quote", "line", "heading"]
"""`line` is a short line alone that may be a heading of plain text; `heading` is marked as one."""


@dataclass(frozen=True, slots=True)
class Block:
    """Running text between two blank lines, or one list item; `text` has inline code still marked (inline.py)."""

    kind: Kind
    text: str
    heading: str
    """The heading above, "" before the first."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document's title ("" when it names none) and its blocks in order."""

    title: str
    blocks: tuple[Block, ...]


_FENCE = re.compile(r"^ {0,12}(?:[-*+] |\d+[.)] )?(`{3,}|~{3,})([^`]*)$")
_ADORNMENT = re.compile(r"^([!-/:-@\[-`{-~])\1{2,}$")
_ATX = re.compile(r"^ {0,3}#{1,6}(?:[ \t]+(.*))?$")
_ITEM = re.compile(r"^( *)([-*+•‣◦–] +|\(?(?:\d{1,3}|[a-zA-Z#]|[ivxlc]{1,5})[.)] +)(?=\S)")
_EXPLICIT = re.compile(r"^( *)\.\.(?: +|$)(.*)$")
_DIRECTIVE = re.compile(r"^(?:\|[^|]+\| +)?([A-Za-z][\w+.:-]*?) ?::(?: +(.*))?$")
_FIELD = re.compile(r"^ *:[A-Za-z][^:`]{0,60}:(?:\s|$)")
_REFERENCE = re.compile(r"^ *\[[^\]]{1,60}\](?::\s|\s+(?=\S)(?!\())")
_DOCTEST = re.compile(r"^ *(?:>>>|\.\.\. |\$ |In \[\d+\]:)")
_PIPE_ROW = re.compile(r"^ *\|.*\||^ *(?:\| *)?:?-{2,}:? *\|")
_GRID = re.compile(r"^ *(?:\+[-=+:]{2,}\+|={2,}(?: +={2,})+|-{2,}(?: +-{2,})+) *$")
_LINE_BLOCK = re.compile(r"^ *\| ")
_QUOTE = re.compile(r"^(?: {0,3}> ?)+")
_BLANK_ENDED = re.compile(r"[.!?:;…。！？؟।,][\"'”“’‘»)\]*_`]*$")
_CODE_SIGNS = re.compile(r"[{}=<>|\\@#$^~_]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_LETTER = re.compile(r"[^\W\d_]")

PROSE_DIRECTIVES: Final = words_of(
    "note warning important tip hint caution attention danger admonition topic versionadded versionchanged "
    "deprecated function method class module attribute data exception epigraph compound container rubric"
)
"""Directives whose body is text; the body of any other one (code, image, table, raw, contents) is not."""

CODE_SIGN_SHARE: Final = 0.03
"""Above three signs in a hundred characters text is code or a formula; brackets and slashes are no such signs."""

LETTER_SHARE: Final = 0.6
"""Text has at least this share of letters among its characters that are not spaces; tables and figures have less."""

HEADING_WORDS: Final = 12
HEADING_CHARS: Final = 100
"""A line alone that is no longer, and has no stop, is taken for a heading of plain text."""

MAX_DEPTH: Final = 12
"""Directives nested deeper than this are left out: each level costs Python a stack frame or two."""

LITERAL_INDENT: Final = 4
"""Markdown's depth of indented code; reStructuredText announces its own by `::`."""


def strip_markup(text: str) -> Document:
    """Return the running text of `text`: pure, linear in its length, for any text."""
    title, body = html_to_text(cut_frame(normalise(text)))
    header_title, body = cut_header(body)
    reader = _Reader(body.split("\n"))
    blocks = tuple(reader.blocks())
    return Document(strip_inline(title or header_title) or _first_heading(blocks), blocks)


def looks_like_prose(text: str) -> bool:
    """Tell text from code, formulas and rows of a table, in any language, by its letters and signs.

    Inline code that is marked as such counts as letters: a sentence may well name `__init__()`.
    """
    dense = (CODE_SPAN.sub("code", text) if CODE_OPEN in text else text).replace(" ", "")
    if not dense:
        return False
    letters = sum(map(len, _LETTERS.findall(dense)))
    signs = sum(map(len, _CODE_SIGNS.findall(dense)))
    return letters >= LETTER_SHARE * len(dense) and signs <= max(1.0, CODE_SIGN_SHARE * len(dense))


def _first_heading(blocks: tuple[Block, ...]) -> str:
    """The first block, where it is a heading: further down it titles a section."""
    return blocks[0].text if blocks and blocks[0].kind in {"heading", "line"} else ""


def _number_of(item: re.Match[str]) -> int:
    digits = item.group(2).strip(" ().")
    return int(digits) if digits.isdecimal() and digits.isascii() else 0


def _opens_item(item: re.Match[str], last_number: int) -> bool:
    """Whether a marker inside a chunk opens an item: a number that does not follow the last one is a wrapped "PEP 380."."""
    if item.group(2)[0] in "-*+•‣◦–":
        return True
    number = _number_of(item)
    return number == last_number + 1 or (number == 0 and last_number == 0 and item.group(2)[0] in "(#")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


class _Reader:
    """One pass over the lines of a document; owns its place, the heading above and the depth of the list around it."""

    def __init__(self, lines: list[str], heading: str = "", depth: int = 0) -> None:
        self._lines = lines
        self._at = 0
        self._heading = heading
        self._depth = depth
        self._content_indent = 0
        self._literal_above: int | None = None

    def blocks(self) -> Iterator[Block]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.strip():
                self._at += 1
            elif fence := _FENCE.match(line):
                self._skip_fence(fence.group(1))
            elif self._literal_above is not None and _indent(line) > self._literal_above:
                self._skip_deeper(self._literal_above)
            elif explicit := _EXPLICIT.match(line):
                yield from self._explicit(explicit)
            else:
                self._literal_above = None
                yield from self._chunk(self._take_chunk())

    def _skip_fence(self, mark: str) -> None:
        """Past the closing fence; one that is never closed runs to the end, as CommonMark says."""
        self._at += 1
        while self._at < len(self._lines):
            stripped = self._lines[self._at].strip()
            self._at += 1
            if len(stripped) >= len(mark) and not stripped.strip(mark[0]):
                return

    def _skip_deeper(self, indent: int) -> list[str]:
        """Past all lines that are blank or indented deeper than `indent`; returns them."""
        start = self._at
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.strip() and _indent(line) <= indent:
                break
            self._at += 1
        return self._lines[start : self._at]

    def _explicit(self, found: re.Match[str]) -> Iterator[Block]:
        """Directives, comments, footnotes, targets: all left out but for the directives whose body is text."""
        directive = _DIRECTIVE.match(found.group(2).strip())
        self._at += 1
        body = self._skip_deeper(len(found.group(1)))
        self._literal_above = None
        if (
            directive is None
            or self._depth == MAX_DEPTH
            or directive.group(1).rpartition(":")[2].lower() not in PROSE_DIRECTIVES
        ):
            return
        margin = min((_indent(line) for line in body if line.strip()), default=0)
        lines = [line[margin:] for line in body]
        first = directive.group(2) or ""
        if " " in first and looks_like_prose(first):
            lines.insert(0, first)
        yield from _Reader(lines, self._heading, self._depth + 1).blocks()

    def _take_chunk(self) -> list[str]:
        """The lines up to the next blank one, fence or directive."""
        start = self._at
        self._at += 1
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.strip() or _FENCE.match(line) or line.lstrip().startswith(".. "):
                break
            self._at += 1
        return self._lines[start : self._at]

    def _chunk(self, lines: list[str]) -> Iterator[Block]:
        lines, heading = self._cut_heading(lines)
        if heading:
            self._heading, self._content_indent = heading, 0
            yield Block("heading", heading, heading)
        if not lines or self._is_apparatus(lines):
            return
        if _QUOTE.match(lines[0]):
            quoted = [_QUOTE.sub("", line) for line in lines]
            inner = _Reader(quoted, self._heading, self._depth + 1)
            yield from (Block("quote", block.text, block.heading) for block in inner.blocks())
            return
        yield from self._paragraphs(lines)

    def _cut_heading(self, lines: list[str]) -> tuple[list[str], str]:
        """Split a marked heading off the front of a chunk: `# Title`, or a title with a line of signs beneath it."""
        if atx := _ATX.match(lines[0]):
            return lines[1:], strip_inline((atx.group(1) or "").rstrip(" #"))
        stripped = [line.strip() for line in lines[:3]]
        if _ADORNMENT.match(stripped[0]):
            overlined = len(stripped) == 3 and stripped[2] == stripped[0]  # noqa: PLR2004 - line, title, line
            return (lines[3:], strip_inline(stripped[1])) if overlined else (lines[1:], "")
        if len(stripped) > 1 and _ADORNMENT.match(stripped[1]) and not _PIPE_ROW.match(lines[0]):
            short = len(stripped[1]) < len(stripped[0]) - 2 and stripped[1][0] not in "=-"
            if not short:
                return lines[2:], strip_inline(stripped[0])
        return lines, ""

    def _is_apparatus(self, lines: list[str]) -> bool:
        """Tables, field lists, link targets, footnotes, doctests and indented code."""
        first = lines[0]
        if _FIELD.match(first) or _REFERENCE.match(first) or _DOCTEST.match(first) or _LINE_BLOCK.match(first):
            return True
        if any(_GRID.match(line) for line in lines[:3]) or sum(bool(_PIPE_ROW.match(line)) for line in lines) * 2 > len(
            lines
        ):
            return True
        if _indent(first) - self._content_indent < LITERAL_INDENT or _ITEM.match(first):
            return False
        return not (_BLANK_ENDED.search(lines[-1]) and looks_like_prose(" ".join(lines)))

    def _paragraphs(self, lines: list[str]) -> Iterator[Block]:
        """One block for each list item in the chunk, one for the lines before the first."""
        starts = [0]
        number = 0
        for i, line in enumerate(lines):
            item = _ITEM.match(line)
            if item and (i == 0 or _opens_item(item, number)):
                number = _number_of(item)
                starts += [i] if i else []
        for begin, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            yield from self._paragraph(lines[begin:end])

    def _paragraph(self, lines: list[str]) -> Iterator[Block]:
        first = lines[0]
        item = _ITEM.match(first)
        if item:
            self._content_indent = item.end()
            lines = [first[item.end() :], *lines[1:]]
        elif _indent(first) < self._content_indent:
            self._content_indent = _indent(first)
        if not item and len(lines) > 1 and _indent(lines[1]) > _indent(first) and not _BLANK_ENDED.search(first):
            lines = lines[1:] if len(first.split()) <= HEADING_WORDS else lines
        joined = " ".join(lines)
        if joined.rstrip().endswith("::"):
            self._literal_above = _indent(first)
            joined = joined.rstrip()[:-1]
        text = strip_inline(joined)
        if not text or not _LETTER.search(text):
            return
        yield self._block(text, single=len(lines) == 1, item=bool(item))

    def _block(self, text: str, *, single: bool, item: bool) -> Block:
        if item:
            return Block("item", text, self._heading)
        if (
            single
            and len(text.split()) <= HEADING_WORDS
            and len(text) <= HEADING_CHARS
            and not _BLANK_ENDED.search(text)
        ):
            self._heading = text
            return Block("line", text, text)
        return Block("prose", text, self._heading)
