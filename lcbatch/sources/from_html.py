"""Text of an HTML page: its main content through trafilatura, else all that is visible."""

from __future__ import annotations

import importlib
import re
from html.parser import HTMLParser
from typing import Final

from lcbatch.sources.encodings import NotText, check_text, mark_of, unmarked_utf16
from lcbatch.sources.extract import Extraction, Unreadable

_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w-]{2,40})""", re.IGNORECASE)
_LOOK_BYTES: Final = 4096
_LITTLE_CHARS: Final = 200
"""A main text shorter than this, on a page with much more, means that none was found: tables, lists, short notes."""


def extract(asked: Extraction) -> str:
    """The page's main text; where none stands out, all visible text.

    Raises Unreadable without trafilatura, and for what is evidently binary.
    """
    with open(asked.path, "rb") as file:  # noqa: PTH123 - the name may hold undecodable bytes
        page = _decoded(file.read(asked.max_bytes), asked.encoding)
    try:
        check_text(page)
    except NotText as problem:
        raise Unreadable(str(problem)) from problem
    try:
        trafilatura = importlib.import_module("trafilatura")
    except ImportError as missing:
        raise Unreadable(f"reading HTML needs trafilatura ({missing})") from missing
    text: str = trafilatura.extract(page, include_comments=False, include_tables=True) or ""
    if len(text) >= _LITTLE_CHARS:
        return text
    whole = visible_text(page)
    return whole if len(whole) > 2 * len(text) else text


def _decoded(raw: bytes, encoding: str) -> str:
    """By its mark, as told, as UTF-8 where it is that, by what the page says of itself, else as browsers do."""
    marked = mark_of(raw)
    if marked:
        return raw[len(marked[0]) :].decode(marked[1], "replace")
    if encoding not in {"utf-8", "utf-8-sig"}:
        return raw.decode(encoding, "replace")
    if wide := unmarked_utf16(raw):
        return raw.decode(wide, "replace")
    declared = _CHARSET.search(raw[:_LOOK_BYTES])
    for name in ("utf-8", declared[1].decode() if declared else "cp1252"):
        try:
            return raw.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return raw.decode("cp1252", "replace")


class _Visible(HTMLParser):
    _UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "head"})
    _BLOCKS = frozenset(
        {"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "table", "pre", "td"}
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._hidden += tag in self._UNSEEN
        if tag in self._BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self._UNSEEN and self._hidden > 0
        if tag in self._BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def visible_text(page: str) -> str:
    """All text of a page outside scripts and styles."""
    parser = _Visible()
    parser.feed(page)
    parser.close()
    text = re.sub(r"[^\S\n]+", " ", "".join(parser.parts))
    return re.sub(r"\s*\n\s*", "\n", text).strip()
