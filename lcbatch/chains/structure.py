"""Where a document may be cut: its headings with their depth, its paragraphs, and the definitions of source code.

langchain-text-splitters knows where code of each language is best cut, and is asked for that. Its splitters themselves are not
used: they strip and rewrite what they cut, and here the parts together have to be the document.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import PurePath

_BLANK = re.compile(rb"\n(?:[ \t]*\n)+")
_PAGE = re.compile(rb"\f\n?")
_ATX = re.compile(rb"^(#{1,6})[ \t]+(\S[^\n]*)$", re.MULTILINE)
_UNDERLINED = re.compile(
    rb"^(?:([=\-`:.'\"~^_*+#])\1{2,}[ \t]*\n)?[ \t]?(\S[^\n]{0,119})\n([=\-`:.'\"~^_*+#])\3{2,}[ \t]*$", re.MULTILINE
)
_CHAPTER = re.compile(
    rb"(?:\A|\n[ \t]*\n)[ \t]*((?P<part>part|book|volume|act)|(?P<chapter>chapter|letter|scene)|section)"
    rb"[ \t]+[\w.\-]{1,12}\.?[ \t]*(?=\n[ \t]*\n|[^\n]{0,60}\n[ \t]*\n)",
    re.IGNORECASE,
)
_FENCE = re.compile(rb"^ {0,3}(```+|~~~+)[^\n]*\n.*?(?:^ {0,3}\1[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)

MOST_PATH_BYTES = 200
"""Of a path of headings the innermost are shown."""

_LANGUAGES: Mapping[str, str] = {
    ".py": "python", ".js": "js", ".mjs": "js", ".ts": "ts", ".tsx": "ts", ".java": "java", ".kt": "kotlin", ".go": "go",
    ".rs": "rust", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp", ".cs": "csharp", ".rb": "ruby",
    ".php": "php", ".swift": "swift", ".scala": "scala", ".lua": "lua", ".sol": "sol", ".proto": "proto", ".tex": "latex",
    ".ps1": "powershell", ".pl": "perl", ".hs": "haskell", ".ex": "elixir", ".exs": "elixir",
}  # fmt: skip
"""Suffixes by langchain-text-splitters' names of languages."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading at a byte offset; `depth` counts from 1."""

    at: int
    depth: int
    title: str


@dataclass(frozen=True, slots=True)
class Structure:
    """A document's bytes (UTF-8), the offsets where it may be cut in ascending order, and its headings.

    `strong` are those offsets before which something new begins: a heading, a page, a definition.
    """

    data: bytes
    cuts: tuple[int, ...]
    strong: frozenset[int]
    headings: tuple[Heading, ...]

    def text(self, start: int, end: int) -> str:
        """What stands between two offsets."""
        return self.data[start:end].decode("utf-8", "surrogatepass")

    def path_at(self, offset: int) -> str:
        """The titles of the headings above an offset, outermost first; those that the text there begins with do not count."""
        after = bisect_left(self.headings, offset, key=attrgetter("at"))
        begins = after < len(self.headings) and self.headings[after].at == offset
        depth: float = self.headings[after].depth if begins else math.inf
        above: list[Heading] = []
        while after and depth > 1:
            after -= 1
            if (heading := self.headings[after]).depth < depth:
                depth = heading.depth
                above.insert(0, heading)
        path = " > ".join(one.title for one in above)
        return path.encode("utf-8", "replace")[-MOST_PATH_BYTES:].decode("utf-8", "ignore")


def structure_of(text: str, name: str) -> Structure:
    """Read a document's structure; `name` is its file's, whose suffix tells source code."""
    data = text.encode("utf-8", "surrogatepass")
    language = _LANGUAGES.get(PurePath(name).suffix.lower())
    headings = () if language else tuple(_headings(data))
    strong = {heading.at for heading in headings} | {match.end() for match in _PAGE.finditer(data)}
    if language:
        strong |= set(_definitions(data, language))
    cuts = strong | {match.end() for match in _BLANK.finditer(data)}
    inside = sorted(cut for cut in cuts if 0 < cut < len(data))
    return Structure(data, tuple(inside), frozenset(strong), headings)


def _definitions(data: bytes, language: str) -> Iterator[int]:
    """Offsets of lines that begin a definition, by the separators that langchain-text-splitters has for the language."""
    from langchain_text_splitters import Language, RecursiveCharacterTextSplitter  # noqa: PLC0415 - LangChain loads late

    for separator in RecursiveCharacterTextSplitter.get_separators_for_language(Language(language)):
        if separator.startswith("\n") and separator.strip():
            yield from (match.start() + 1 for match in re.finditer(separator.encode(), data))


def _headings(data: bytes) -> Iterator[Heading]:
    """Markdown's, reStructuredText's, and the chapters of plain books. What stands in fenced code is none."""
    fenced = [match.span() for match in _FENCE.finditer(data)] if b"```" in data or b"~~~" in data else []
    found: dict[int, tuple[int, bytes]] = {}
    for match in _ATX.finditer(data):  # what closes it is taken off here: a pattern would try each blank of a long run
        found[match.start()] = (len(match[1]), match[2].rstrip(b" \t#") or match[2][:1])
    ranks: dict[tuple[bool, bytes], int] = {}
    for match in _UNDERLINED.finditer(data):
        if len(match[3]) and _is_title(match):
            style = (match[1] is not None, match[3])
            found.setdefault(match.start(), (ranks.setdefault(style, len(ranks) + 1), match[2]))
    if not found:
        for match in _CHAPTER.finditer(data):
            depth = 1 if match["part"] else 2 if match["chapter"] else 3
            line = data[match.start(1) : data.find(b"\n", match.start(1))]
            found[match.start(1)] = (depth, line)
    for at in sorted(found):
        fence = bisect_right(fenced, at, key=itemgetter(0)) - 1
        if fence < 0 or at >= fenced[fence][1]:
            depth, title = found[at]
            yield Heading(at, depth, title.decode("utf-8", "replace").strip())


def _is_title(match: re.Match[bytes]) -> bool:
    """A line underlined at about its own length: shorter ones are rules and the borders of tables."""
    underline = match.end() - match.start(3)
    return underline >= len(match[2].decode("utf-8", "replace").rstrip()) and (match[1] is None or match[1] == match[3])
