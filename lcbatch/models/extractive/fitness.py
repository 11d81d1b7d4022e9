"""Which sentences may stand in a summary at all, and which of them only after the sentence before."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

from .inline import NOTE_HERE
from .lexicon import Lexicon, words_of
from .markup import Block, looks_like_prose
from .sentences import ends_inside

MIN_WORDS: Final = 6.0
"""Shorter sentences are hardly ever in a summary (Kupiec, Pedersen & Chen 1995 leave them out too)."""

MAX_WORDS: Final = 50.0
"""Longer than this a sentence is mostly an enumeration or a missed boundary, and would be half of a summary."""

LENIENT_MAX_WORDS: Final = 200.0
"""Where a document has no whole sentences, any line of prose up to this length may stand in."""

_APPARATUS = re.compile(
    r"(?:\w+ )?(?:references(?: and footnotes)?|bibliography|copyright|licen[cs]e|licensing|acknowledge?ments?|thanks|credits|"
    r"footnotes|see also|further reading|external links|(?:table of )?contents|index|change ?log|(?:version|revision|document|"
    r"post|change) history|status(?: of this \w+)?|rejection(?: notice)?|withdrawal|deferral|acceptance|resolution|"
    r"supersession|withdrawn|deferred|literatur(?:verzeichnis)?|quellen|danksagung|inhalt(?:sverzeichnis)?|références|"
    r"bibliographie|remerciements|table des matières|referencias|bibliografía|agradecimientos|índice|bibliografia|"
    r"ringraziamenti|литература|список литературы|источники|содержание|благодарности|参考文献|目次|目录|المراجع)"
    r"(?: notice| notes?)?[.:]?",
    re.IGNORECASE,
)
_LICENCE: Final = (
    "all rights reserved",
    "permission is hereby granted",
    "licensed under",
    "licenced under",
    "spdx-license",
    "without warranty",
    "warranties of any kind",
    "warranty of any kind",
    "in the public domain",
    "copyright (c)",
    "©",
    "project gutenberg",
    "alle rechte vorbehalten",
    "tous droits réservés",
    "все права защищены",
)
_ENDED = re.compile(rf"[.!?…。！？｡؟۔।॥][\"'”“’‘»›)\]」』）{NOTE_HERE}]*$")
_EXPLETIVE = re.compile(
    r"it (?:is|was|has been|will be|would be|seems|should be|may be) .{1,60}\b(?:that|to|whether)\b", re.IGNORECASE
)
_ACRONYM = re.compile(r"[A-Z]{2,6}s?")
_WORD = re.compile(r"[\w'-]+(?:\.[\w]+)*")
_PAIRS: Final = (("(", ")"), ("[", "]"), ("«", "»"), ("「", "」"))
_QUOTES: Final = ('"', "„“”")
"""Marks of which an even number closes: which one opens and which closes differs from language to language."""

_NOT_BACK: Final = words_of(
    "that its their his her such both each it's sein seine ihr ihre son sa ses leur leurs su sus suo seu sua zijn "
    "hun haar"
)
"""Words that point back as a sentence's first, and mostly forward or at nothing as its second ("Given that", "In its current
form"); nor do they name the document itself ("his proposal")."""


def is_apparatus(block: Block) -> bool:
    """Whether a block is no part of what the document says: references, licence, its own history and status."""
    if _is_apparatus_heading(block.heading):
        return True
    lowered = block.text.lower()
    return any(phrase in lowered for phrase in _LICENCE)


@lru_cache(maxsize=1024)
def _is_apparatus_heading(heading: str) -> bool:
    return _APPARATUS.fullmatch(heading.strip(" 0123456789.")) is not None


def is_quotable(sentence: str, words: float, lexicon: Lexicon, *, strict: bool) -> bool:
    """Whether a sentence (inline marks still in it) can stand in a summary.

    Strict: it is whole, with a stop of its own, brackets closed, no note missing that it needs. Otherwise any prose will do.
    """
    if not strict:
        return looks_like_prose(sentence) and words <= LENIENT_MAX_WORDS and not sentence.endswith(":")
    if not MIN_WORDS <= words <= MAX_WORDS or sentence[0].islower() or not _ENDED.search(sentence[-6:]):
        return False
    if ends_inside(sentence, lexicon) or has_hole(sentence, lexicon) or not looks_like_prose(sentence):
        return False
    if leaves_quotation_open(sentence):
        return False
    return all(sentence.count(left) == sentence.count(right) for left, right in _PAIRS)


def leaves_quotation_open(text: str) -> bool:
    """Whether an odd number of quotation marks stands in `text`: what follows it is still someone's speech."""
    return any(sum(map(text.count, marks)) % 2 for marks in _QUOTES)


def has_hole(sentence: str, lexicon: Lexicon) -> bool:
    """Whether a citation stood where the sentence needs a word: "as proposed in [3]."."""
    at = sentence.find(NOTE_HERE)
    while at >= 0:
        before = sentence[:at].split()
        word = before[-1].strip("(").lower() if before else ""
        if not before or word in lexicon.stopwords or word in {"see", "siehe", "voir", "cf.", "см."}:
            return True
        at = sentence.find(NOTE_HERE, at + 1)
    return False


def dangles(sentence: str, lexicon: Lexicon) -> bool:
    """Whether a sentence leans on the one before it: a connective or a word that points back opens it."""
    lowered = sentence[:60].lower()
    if lexicon.code in {"ja", "zh"}:
        return lowered.startswith((*lexicon.connectives, *lexicon.anaphors))
    words = _WORD.findall(lowered)
    if words and words[0] in lexicon.anaphors:
        return not (_EXPLETIVE.match(sentence) or speaks_of_itself(sentence[:60], lexicon))
    if len(words) > 1 and words[0] in lexicon.stopwords and words[1] in lexicon.anaphors and words[1] not in _NOT_BACK:
        # "In this case", "If they": but not "Since it is impossible to" nor "In this report".
        return not (_EXPLETIVE.match(sentence.partition(" ")[2]) or speaks_of_itself(sentence[:60], lexicon))
    return f"{' '.join(words)} ".startswith(lexicon.openings)


def speaks_of_itself(sentence: str, lexicon: Lexicon) -> bool:
    """Whether "this report", "dieser Artikel" or a series' acronym ("this RFC") stands in the sentence."""
    words = _WORD.findall(sentence)
    for before, word in pairwise(words):
        pointing = before.lower()
        if (
            pointing in lexicon.anaphors
            and pointing not in _NOT_BACK
            and (word.lower() in lexicon.selves or _ACRONYM.fullmatch(word))
        ):
            return True
    return False
