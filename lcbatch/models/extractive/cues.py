"""What speaks for and against a sentence as part of a summary, besides its rank: the classical cues of extraction.

Sources: Baxendale, "Machine-Made Index for Technical Literature" (1958): first sentences of paragraphs. Edmundson, "New
Methods in Automatic Extracting" (1969): title words, headings, bonus and stigma cues. Paice, "The automatic generation of
literature abstracts" (1981): "this paper ..." as an indicator. Kupiec, Pedersen & Chen (1995): cues combined as a product,
each treated as independent of the others; sentences of less than six words left out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from .inline import NOTE_HERE, code_share
from .language import count_words
from .lexicon import Lexicon
from .markup import Block, looks_like_prose
from .sentences import ends_inside

TITLE_GAIN: Final = 2.0
"""A sentence that says the title counts up to 1 + this; the title is the one sentence that the author chose as a summary."""

POSITION_GAIN: Final = 1.0
"""The first block counts twice; the gain falls with the square root of the block's number, so it fades and never ends."""

CUE_GAIN: Final = 0.25
"""First in its paragraph; under a heading such as Introduction; "this report ...": each counts a quarter more."""

FLAW_LOSS: Final = 0.5
"""A list item, a question, speech, a pointer to what is not there, a code-heavy sentence: each halves."""

MIN_WORDS: Final = 6.0
"""Kupiec et al.: shorter sentences are hardly ever in a summary."""

SHORT_WORDS: Final = 9.0
"""Below this a sentence has a flaw: most so short are remarks and fragments ("Either form of coroutine.")."""

MAX_WORDS: Final = 50.0
"""Longer than this a sentence is mostly an enumeration or a missed boundary, and would be half of a summary."""

MAX_CODE_SHARE: Final = 0.35


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sentence stands."""

    block: int
    """Number of its block in the document, from 0."""
    sentence: int
    """Number of the sentence in its block, from 0."""
    opens_section: bool
    """Its block is the first beneath a heading."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The constants above as one value, so that `bench/quality.py` can vary them."""

    title: float = TITLE_GAIN
    position: float = POSITION_GAIN
    cue: float = CUE_GAIN
    flaw: float = FLAW_LOSS


_BONUS = re.compile(
    r"\b(?:introduction|motivation|overview|summary|abstract|conclusions?|background|purpose|goals?|objectives?|rationale|"
    r"proposal|scope|aims?|findings|results|einleitung|einführung|überblick|zusammenfassung|ziele?|fazit|hintergrund|"
    r"ergebnisse?|résumé|objectifs?|contexte|introducción|resumen|conclusión|objetivos?|introduzione|riassunto|"
    r"conclusioni|introdução|resumo|conclusão|inleiding|samenvatting|conclusie|inledning|sammanfattning|wstęp|"
    r"podsumowanie|wnioski)\b|введение|заключение|вывод|обзор|резюме|εισαγωγή|συμπέρασμα|はじめに|概要|まとめ|結論|引言|摘要|"
    r"结论|مقدمة|خاتمة|ملخص|प्रस्तावना|निष्कर्ष",
    re.IGNORECASE,
)
_STIGMA = re.compile(
    r"(?:appendix|rejected|alternatives?|open (?:issues|questions)|examples?|faq|questions|objections|anhang|beispiele?|"
    r"annexe|exemples?|anexo|ejemplos?|приложение|пример)\b",
    re.IGNORECASE,
)
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
_LICENCE = re.compile(
    r"all rights reserved|permission is hereby granted|licen[cs]ed under|spdx-license|without warranty|warranties? of any kind|"
    r"(?:placed|is) in the public domain|copyright (?:\(c\)|©|\d{4})|©|project gutenberg|alle rechte vorbehalten|"
    r"tous droits réservés|все права защищены",
    re.IGNORECASE,
)
_OWN_FATE = re.compile(
    r"\b(?:this|the) (?:\w+ )?[\w-]+(?: \d+)? (?:has been|was|is|has|should be|will be)(?: \w+)? "
    r"(?:rejected|withdrawn|deferred|superseded|accepted|approved|obsolete|withdrawing|abandoned|renumbered|renamed|replaced|extracted|merged)\b",
    re.IGNORECASE,
)
_POINTER = re.compile(
    r"\(see\b|\b(?:following|below|above|as follows|(?:see|in) (?:the )?(?:next |previous )?(?:section|figure|table|appendix)|previous "
    r"section|next section|earlier in|later in|mentioned|aforementioned|folgende[nrms]?|siehe|oben|unten|ci-dessous|ci-dessus|"
    r"suivante?s?|siguientes?|arriba|abajo)\b|следующ|ниже|выше|https?://|www\.",
    re.IGNORECASE,
)
_PURPOSE = re.compile(
    r"\b(?:propos(?:e|es|ed|al)|introduc(?:e|es|ed|ing)|describ(?:e|es|ed)|presents?|recommends?|specif(?:y|ies)|defines?|aims?|"
    r"goals?|purpose|intended|beschreib(?:t|en)|vorgeschlagen|schlägt|schlagen|ziel|zweck|décri(?:t|vent)|propos(?:e|ons|ent)|"
    r"présente|objectif|propone|describe|presenta|objetivo|descrive|obiettivo|scopo|propõe|descreve|apresenta|beschrijft|"
    r"doel|beskriver|syfte|celem|opisuje)\b|предлага|описыва|рассматрива|целью|目的|提案|提出|介绍|يهدف|يقترح|उद्देश्य",
    re.IGNORECASE,
)
_SPEECH = re.compile(r"^[\"“«„「『‘—–]|[“”«»„「」]|\b(?:I|I'm|I've|my|me)\b")  # noqa: RUF001 - quotation marks of several languages
_DEFINITION = re.compile(r"\S+(?: \([^)]*\))? (?:--|[–—]) ")  # noqa: RUF001 - dashes as people type them
_QUESTION = re.compile(r"[?？؟][\"'”’»)\]]*$")  # noqa: RUF001 - full-width and Arabic marks
_ENDED = re.compile(r"[.!?…。！？｡؟۔।॥][\"'”’»›)\]」』）]*$")  # noqa: RUF001 - the stops of several scripts
_EXPLETIVE = re.compile(r"it (?:is|was|has been|will be|would be|seems|should be|may be) .{1,60}\b(?:that|to|whether)\b", re.IGNORECASE)
_CATAPHORIC: Final = frozenset(
    "that its their his her such both each it's sein seine ihr ihre son sa ses leur leurs su sus suo seu sua zijn hun haar".split()
)
"""After a function word these mostly point forward or at nothing ("Given that", "In its current form", "As such")."""

_ACRONYM = re.compile(r"[A-Z]{2,6}s?")
_WORD = re.compile(r"[\w'-]+(?:\.[\w]+)*")
_PAIRS: Final = (("(", ")"), ("[", "]"), ("“", "”"), ("«", "»"), ("「", "」"))


def is_apparatus(block: Block) -> bool:
    """Whether a block is no part of what the document says: references, licence, its own history and status."""
    return bool(_APPARATUS.fullmatch(block.heading.strip(" 0123456789."))) or bool(_LICENCE.search(block.text))


def is_quotable(sentence: str, words: float, lexicon: Lexicon, *, strict: bool) -> bool:
    """Whether a sentence (inline marks still in it) can stand in a summary at all.

    Strict: it is whole, with a stop of its own, brackets closed, no note missing that it needs. Otherwise any prose will do.
    """
    if not looks_like_prose(sentence) or words > MAX_WORDS * (1 if strict else 4):
        return False
    if not strict:
        return not sentence.endswith(":")
    if words < MIN_WORDS or sentence[0].islower() or not _ENDED.search(sentence):
        return False
    if ends_inside(sentence, lexicon):
        return False
    return all(sentence.count(left) == sentence.count(right) for left, right in _PAIRS) and sentence.count('"') % 2 == 0


def has_hole(sentence: str, lexicon: Lexicon) -> bool:
    """Whether a citation stood where the sentence needs a word: "as proposed in [3]."."""
    at = sentence.find(NOTE_HERE)
    while at >= 0:
        before = sentence[:at].split()
        if not before or before[-1].strip("(").lower() in lexicon.stopwords | {"see", "siehe", "voir", "cf."}:
            return True
        at = sentence.find(NOTE_HERE, at + 1)
    return False


def dangles(sentence: str, lexicon: Lexicon) -> bool:
    """Whether a sentence leans on the one before it: a connective or a word that points back opens it."""
    lowered = sentence.lower()
    words = _WORD.findall(lowered[:60])
    if lexicon.code in {"ja", "zh", "ko"}:
        return lowered.startswith((*lexicon.connectives, *lexicon.anaphors))
    if words and words[0] in lexicon.anaphors:
        return not (_EXPLETIVE.match(sentence) or speaks_of_itself(sentence[:60], lexicon))
    if len(words) > 1 and words[0] in lexicon.stopwords and words[1] in lexicon.anaphors - _CATAPHORIC:
        # "In this case", "If they": but not "Since it is impossible to" nor "In this report".
        return not (_EXPLETIVE.match(sentence.partition(" ")[2]) or speaks_of_itself(sentence[:60], lexicon))
    opening = " ".join(words) + " "
    return any(opening.startswith(f"{connective} ") for connective in lexicon.connectives)


def speaks_of_itself(sentence: str, lexicon: Lexicon) -> bool:
    """Whether "this report", "dieser Artikel" or a series' acronym ("this RFC") stands in the sentence."""
    words = _WORD.findall(sentence)
    for before, word in zip(words, words[1:], strict=False):
        if before.lower() in lexicon.anaphors - _CATAPHORIC and (word.lower() in lexicon.selves or _ACRONYM.fullmatch(word)):
            return True
    return False


def prior(sentence: str, block: Block, place: Place, lexicon: Lexicon, weights: Weights) -> float:
    """Return what the cues make of a sentence, 1.0 for none.

    The title is not in it: `summarize.py` multiplies it in, since it needs the sentence's vector.
    """
    gains = (
        place.sentence == 0,
        place.opens_section,
        bool(_BONUS.search(block.heading)),
        bool(_PURPOSE.search(sentence)) or speaks_of_itself(sentence, lexicon),
    )
    value = 1.0 + weights.position / math.sqrt(1 + place.block)
    return value * (1.0 + weights.cue) ** sum(gains) * (1.0 - weights.flaw) ** _flaws(sentence, block)


def _flaws(sentence: str, block: Block) -> int:
    return sum(
        (
            block.kind in {"item", "quote"},
            bool(_DEFINITION.match(sentence)),
            count_words(sentence) < SHORT_WORDS,
            bool(_STIGMA.match(block.heading)),
            bool(_QUESTION.search(sentence)),
            bool(_SPEECH.search(sentence)),
            bool(_POINTER.search(sentence)),
            bool(_OWN_FATE.search(sentence)) * 2,
            code_share(sentence) > MAX_CODE_SHARE,
        )
    )
