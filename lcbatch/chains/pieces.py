"""Long texts in pieces that an embedding model takes: where each begins and ends, exactly, in characters of the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_CHARS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English."""

_TOKENS = ((0x7F, 0.25), (0x7FF, 0.6), (0xFFFF, 1.2))
"""Tokens of a character up to this code point, as cl100k makes them of Cyrillic and of CJK text, rounded up.

These are the characters that take one byte in UTF-8, two and three.
"""

_REST_TOKENS = 3.0
"""Of emoji and of rare scripts."""

_BREAKS = ("\n\n", "\n", ". ", "。", " ")
"""Where a piece may end, the best place first."""


def tokens_of(text: str) -> float:
    """About how many tokens a text has; rather too many than too few, where it is not English.

    Characters of one kind in `_TOKENS` take equally many bytes in UTF-8, so that none needs a look: it is done for every row
    between two answers, and one by one it took a second for a thousand pages of Cyrillic.
    """
    if text.isascii():
        return len(text) / _CHARS_PER_TOKEN
    chars = len(text)
    one_byte = len(text.encode("ascii", "ignore"))
    four_bytes = len(text.encode("utf-16-le", "surrogatepass")) // 2 - chars
    three_bytes = len(text.encode("utf-8", "surrogatepass")) - 2 * chars + one_byte - 2 * four_bytes
    counts = (one_byte, chars - one_byte - three_bytes - four_bytes, three_bytes)
    return sum(n * tokens for n, (_, tokens) in zip(counts, _TOKENS, strict=True)) + four_bytes * _REST_TOKENS


def _tokens_of(char: str) -> float:
    code = ord(char)
    return next((tokens for most, tokens in _TOKENS if code <= most), _REST_TOKENS)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Cuts a text into pieces of at most `tokens`, each beginning with about the last `overlap` tokens of the one before.

    A piece ends at a paragraph, else at a line, a sentence, a word, if there is one in its second half. Every character that is
    no blank stands in a piece. `tokens` is above `overlap`, which is at least 0.
    """

    tokens: int
    overlap: int

    def __call__(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of each piece in order, without the blanks around it."""
        start = _after_blanks(text, 0)
        while start < len(text):
            most = self._reach(text, start, self.tokens)
            end = most if most == len(text) else _break_before(text, (start + most) // 2, most)
            kept = start + len(text[start:end].rstrip())
            yield start, kept
            if _after_blanks(text, end) == len(text):
                return
            start = _after_blanks(text, self._resume(text, start, end))

    def _reach(self, text: str, start: int, tokens: float) -> int:
        """How far so many tokens reach, at least one character."""
        end = min(len(text), start + max(1, int(tokens * _CHARS_PER_TOKEN)))
        if text[start:end].isascii():
            return end
        left = float(tokens)
        for at in range(start, end):
            left -= _tokens_of(text[at])
            if left < 0:
                return max(at, start + 1)
        return end

    def _resume(self, text: str, start: int, end: int) -> int:
        """Where the next piece begins: `overlap` tokens before the end of this one, at a word, and never at its beginning."""
        at, left = end, float(self.overlap)
        while at > start + 1 and (left := left - _tokens_of(text[at - 1])) >= 0:
            at -= 1
        if at == end:
            return end
        word = text.find(" ", at, end)
        line = text.find("\n", at, end)
        found = [place for place in (word, line) if place >= 0]
        return min(found) + 1 if found else at


def _after_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _break_before(text: str, least: int, most: int) -> int:
    """The best place to end between the two, just behind a break."""
    for mark in _BREAKS:
        at = text.rfind(mark, least, most)
        if at >= 0:
            return at + len(mark)
    return most
