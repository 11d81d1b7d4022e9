"""What speaks for and against a sentence as part of a summary, besides its rank: the classical cues of extraction.

Sources: Baxendale, "Machine-Made Index for Technical Literature" (1958): first sentences of paragraphs. Edmundson, "New
Methods in Automatic Extracting" (1969): title words, headings, bonus and stigma cues. Paice, "The automatic generation of
literature abstracts" (1981): "this paper ..." as an indicator. Kupiec, Pedersen & Chen, "A Trainable Document Summarizer"
(1995): cues combined as a product, each treated as independent of the others. Louis & Nenkova, "Text specificity and impact
on quality of news summaries" (2011): people's summaries are made of general sentences.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from .fitness import speaks_of_itself
from .inline import CODE_OPEN, code_share
from .language import count_words
from .lexicon import Lexicon, words_of
from .markup import Block

TITLE_GAIN: Final = 2.0
"""A sentence that says the title counts up to 1 + this; the title is the one summary that the author wrote."""

POSITION_GAIN: Final = 1.0
"""The first block counts twice; the gain falls with the square root of the block's number, so it fades and never ends."""

CUE_GAIN: Final = 0.25
"""First in its paragraph; first beneath a heading; under one such as Introduction; "this report", "we propose": each counts a
quarter more. An aside or a call in brackets, the mark of a detail, counts a quarter less."""

FLAW_LOSS: Final = 0.5
"""A list item, a question, speech, a pointer to what is not there, mostly code, a fragment: each halves."""

SHORT_WORDS: Final = 9.0
"""Below this a sentence has a flaw: most so short are remarks and fragments ("Either form of coroutine.")."""

MAX_CODE_SHARE: Final = 0.35
"""With more of its characters in inline code a sentence has a flaw: it speaks about a line that is not there."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The constants above as one value, so that `bench/quality.py` can vary them."""

    title: float = TITLE_GAIN
    position: float = POSITION_GAIN
    cue: float = CUE_GAIN
    flaw: float = FLAW_LOSS


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sentence stands."""

    block: int
    """Number of its block in the document, from 0."""
    sentence: int
    """Number of the sentence in its block, from 0."""
    opens_section: bool
    """Its block is the first beneath a heading."""


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
_WORD = re.compile(r"[^\W_]+")

# Single words are looked up in the set of a sentence's words: one pass instead of one search for each list.
_PURPOSE: Final = words_of(
    "propose proposes proposed proposal introduce introduces introduced introducing describe describes described "
    "present presents recommend recommends specify specifies define defines aim aims goal goals purpose intended "
    "objective objectives beschreibt beschreiben vorgeschlagen schlägt schlagen ziel zweck décrit décrivent "
    "proposons proposent présente objectif propone presenta objetivo descrive obiettivo scopo propõe descreve "
    "apresenta beschrijft doel beskriver syfte celem opisuje предлагает предлагается описывает описывается "
    "рассматривает рассматривается целью يهدف يقترح"
)
_PURPOSE_UNSPACED: Final = ("目的", "提案", "提出", "介绍", "उद्देश्य")
_POINTER: Final = words_of(
    "following below above earlier mentioned aforementioned https http www folgende folgenden folgender folgendes "
    "siehe oben unten dessous dessus suivant suivante suivants suivantes siguiente siguientes arriba abajo "
    "следующий следующая следующее следующие ниже выше"
)
_POINTER_WORDS: Final = frozenset(
    {"see", "section", "figure", "table", "appendix", "follows", "later", "point", "rest", "remainder"}
)
_POINTER_PHRASE = re.compile(
    r"\(see\b|\bas follows|\b(?:see|in) (?:the )?(?:next |previous )?(?:section|figure|table|appendix)|"
    r"(?:previous|next|this) section|later in|from this point|(?:rest|remainder) of th(?:is|e)\b",
    re.IGNORECASE,
)
_FATES: Final = words_of(
    "rejected withdrawn deferred superseded accepted approved obsolete withdrawing abandoned renumbered renamed "
    "replaced extracted merged"
)
_OWN_FATE = re.compile(
    r"\b(?:this|the) (?:\w+ )?[\w-]+(?: \d+)? (?:has been|was|is|has|should be|will be)(?: \w+)? "
    rf"(?:{'|'.join(sorted(_FATES))})\b",
    re.IGNORECASE,
)
_QUOTES: Final = frozenset("“”«»„「」")
_OPENING_QUOTES: Final = ('"', "'", "‘", "『", "—", "–")
_SPEAKER = re.compile(r"\b(?:I|I'm|I've|my|me|My)\b")
_DEFINITION = re.compile(r"\S+(?: \([^)]*\))? (?:--|[–—]) ")
_QUESTION = re.compile(r"[?？؟][\"'”’»)\]]*$")


def prior(sentence: str, block: Block, place: Place, lexicon: Lexicon, weights: Weights) -> float:
    """Return what the cues make of a sentence with its inline marks, 1.0 for none.

    The title is not in it: `summarize.py` multiplies it in, since it needs the sentence's vector.
    """
    words = frozenset(_WORD.findall(sentence.lower()))
    gains = (
        place.sentence == 0,
        place.opens_section,
        _heading_cue(block.heading) > 0,
        _states_purpose(sentence, words, lexicon),
    )
    value = 1.0 + weights.position / math.sqrt(1 + place.block)
    value *= (1.0 + weights.cue) ** sum(gains)
    if "(" in sentence:
        value *= 1.0 - weights.cue
    return value * (1.0 - weights.flaw) ** _flaws(sentence, words, block)


@lru_cache(maxsize=1024)
def _heading_cue(heading: str) -> int:
    """1 for a heading above the gist of a document, -1 for one above its details, else 0."""
    if _STIGMA.match(heading):
        return -1
    return 1 if _BONUS.search(heading) else 0


def _states_purpose(sentence: str, words: frozenset[str], lexicon: Lexicon) -> bool:
    if not _PURPOSE.isdisjoint(words) or (
        not sentence.isascii() and any(word in sentence for word in _PURPOSE_UNSPACED)
    ):
        return True
    return not words.isdisjoint(lexicon.anaphors) and speaks_of_itself(sentence, lexicon)


def _flaws(sentence: str, words: frozenset[str], block: Block) -> int:
    return sum(
        (
            # Items are often phrases with a full stop, and they tell details: two flaws.
            2 * (block.kind in {"item", "quote"}),
            bool(_DEFINITION.match(sentence)),
            sentence.lstrip(CODE_OPEN)[:1].islower(),
            count_words(sentence) < SHORT_WORDS,
            _heading_cue(block.heading) < 0,
            bool(_QUESTION.search(sentence[-4:])),
            _is_speech(sentence, words),
            _points_elsewhere(sentence, words),
            # What became of the document says nothing of what is in it: it counts as two flaws.
            2 * (not _FATES.isdisjoint(words) and bool(_OWN_FATE.search(sentence))),
            code_share(sentence) > MAX_CODE_SHARE,
        )
    )


def _is_speech(sentence: str, words: frozenset[str]) -> bool:
    """Whether someone is quoted or speaks of himself: what he says is seldom what the document says."""
    if sentence.startswith(_OPENING_QUOTES) or not _QUOTES.isdisjoint(sentence):
        return True
    return not words.isdisjoint({"i", "my", "me"}) and bool(_SPEAKER.search(sentence))


def _points_elsewhere(sentence: str, words: frozenset[str]) -> bool:
    """Whether a sentence needs a figure, a section or a line that the summary does not have."""
    if not _POINTER.isdisjoint(words):
        return True
    return not words.isdisjoint(_POINTER_WORDS) and bool(_POINTER_PHRASE.search(sentence))
