"""Sentence boundaries in running text of many languages.

A stop ends a sentence unless something says that it does not: an abbreviation, an initial, a number, a lower-case word
after it. The rules are those on which Kiss & Strunk's Punkt (2006) rests, with short lists in place of training.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from .inline import CODE_CLOSE, CODE_OPEN, NOTE_HERE
from .lexicon import UNIVERSAL_ABBREVIATIONS, Lexicon, words_of

_CLOSERS = "\"'”“’‘»›)\\]」』）】》" + CODE_CLOSE + NOTE_HERE
_OPENERS = "\"'“‘«‹„‚([¿¡「『（【《—–-" + CODE_OPEN

# Western stops need a space after them, full-width ones, the danda and the Arabic stops do not.
_STOP = re.compile(
    f"(?:(?<![.!?…])[.!?…]+[{_CLOSERS}]*(?:[ \u00a0\u202f]»)?(?=\\s|$)|[。！？｡︒]+[{_CLOSERS}]*|[؟۔।॥]+[{_CLOSERS}]*)"
)
_GREEK_STOP = re.compile(f"(?:(?<![.!?…;\u037e])[.!?…;\u037e]+[{_CLOSERS}]*(?=\\s|$))")
_LAST_WORD = re.compile(r"[^\s(\[{\"'“‘«„—]+$")
_CODE_SPAN = re.compile(f"{CODE_OPEN}[^{CODE_CLOSE}]*{CODE_CLOSE}")

_MAY_END: Final = words_of("etc inc ltd co corp usw u.s u.k a.m p.m jr sr т.д т.п κλπ κ.λπ enz osv itd itp")
"""Abbreviations that often stand at a sentence's end."""

MAX_ORDINAL_DIGITS: Final = 2
"""German "3. Oktober" and "19. Jahrhundert"; a longer number before a stop is a year or an amount and may end a sentence."""


LONGEST_WORD: Final = 40
"""How far back the word before a stop is looked for; no abbreviation is longer."""


def split_sentences(text: str, lexicon: Lexicon) -> list[str]:
    """Return the sentences of `text`, one paragraph in one line, each with its own stop.

    Joined they are `text` again but for spaces.
    """
    stops = _GREEK_STOP if lexicon.code == "el" else _STOP
    code = [(span.start(), span.end()) for span in _CODE_SPAN.finditer(text)] if CODE_OPEN in text else []
    sentences: list[str] = []
    start = 0
    for stop in stops.finditer(text):
        if _in_code(stop.start(), code):
            continue
        if _ends(text, start, stop, lexicon):
            sentences.append(text[start : stop.end()].strip())
            start = stop.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _in_code(at: int, code: list[tuple[int, int]]) -> bool:
    """Whether a stop stands inside inline code, before its last character; the spans are in order."""
    place = bisect_right(code, (at,)) - 1
    return place >= 0 and at < code[place][1] - 1


def _ends(text: str, start: int, stop: re.Match[str], lexicon: Lexicon) -> bool:
    mark = stop.group()
    follows = text[stop.end() : stop.end() + 40].lstrip()
    if not follows or mark[0] in "。！？｡︒؟۔।॥":
        return not mark.endswith(tuple("」』）")) or not follows.startswith(("と", "って"))
    opening = follows.lstrip(_OPENERS)
    if follows[0] != CODE_OPEN and opening[:1].islower():
        return False
    if mark[0] != "." or mark.startswith(".."):
        return True
    return not _is_inner_stop(text[start : stop.start()], opening, lexicon)


def _is_inner_stop(before: str, after: str, lexicon: Lexicon) -> bool:
    """Whether a full stop after `before` belongs to its last word."""
    found = _LAST_WORD.search(before[-LONGEST_WORD:])
    word = found.group() if found else ""
    lowered = word.lower()
    if word == before and (word.isdigit() or len(word) == 1):
        return True  # "1. Install it": the number of an item
    opener = after.split(maxsplit=1)[0].lower() if after else ""
    if lowered in UNIVERSAL_ABBREVIATIONS or lowered in lexicon.abbreviations:
        # An abbreviation may also end the sentence; then a function word with a capital opens the next.
        return not (lowered in _MAY_END and (opener in lexicon.stopwords or lowered == "etc"))
    if len(word) == 1 and word.isalpha() and word.isupper() and word != "I":
        # An initial stands before a name; "vitamin C. The next" is two sentences.
        return after[:1].isupper() and opener not in lexicon.stopwords
    return lexicon.ordinal_stop and word.isdigit() and len(word) <= MAX_ORDINAL_DIGITS


def ends_inside(sentence: str, lexicon: Lexicon) -> bool:
    """Whether a paragraph broke off at an abbreviation, as before an example in a block of its own ("..., e.g.")."""
    word = sentence.rstrip(".").rpartition(" ")[2].lower().lstrip("(")
    return sentence.endswith(".") and word in lexicon.abbreviations and "." in word and word not in _MAY_END
