"""Which language a text is in, its terms, and its length in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from .lexicon import LANGUAGES, UNKNOWN, Lexicon

SAMPLE_CHARS: Final = 20_000
"""How much of a text is looked at to tell its language: function words settle it within a page or two."""

CHARS_PER_UNSPACED_WORD: Final = 2.0
"""Scripts written without spaces are counted as one word per two characters, the usual mean length of a Chinese word."""

# Han, kana, Thai, Lao, Myanmar and Khmer are written without spaces between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_TOKEN = re.compile(r"[^\W_]+")
_UNSPACED_STOP = re.compile("[。！？、，；：「」『』（）・…]")

# Ranges are tried in this order: kana before Han, because Japanese is written in both.
_SCRIPTS: Final = (
    ("ja", re.compile("[\u3040-\u30ff]"), 0.05),
    ("ko", re.compile("[\uac00-\ud7af]"), 0.3),
    ("zh", re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"), 0.3),
    ("ar", re.compile("[\u0600-\u06ff]"), 0.3),
    ("hi", re.compile("[\u0900-\u097f]"), 0.3),
    ("ru", re.compile("[\u0400-\u04ff]"), 0.3),
    ("el", re.compile("[\u0370-\u03ff\u1f00-\u1fff]"), 0.3),
)
_LATIN: Final = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl")


def lexicon_for(language: str | None, text: str) -> Lexicon:
    """Return the lexicon that the caller named, or else the one of the language that `text` seems to be in.

    `language` is an ISO 639 code, a tag such as `de-AT`, or a name ("German", "Deutsch"). One that is not listed falls
    back to detection: it says what the reader wants, and an extract cannot translate.
    """
    if language:
        wanted = re.split(r"[-_]", language.strip().lower(), maxsplit=1)[0]
        for lexicon in LANGUAGES.values():
            if wanted in lexicon.names:
                return lexicon
    return _detect(text[:SAMPLE_CHARS])


def _detect(sample: str) -> Lexicon:
    """By script first, among the Latin languages by counting function words; ties go to the earlier in the list."""
    letters = sum(map(str.isalpha, sample)) or 1
    for code, pattern, share in _SCRIPTS:
        if len(pattern.findall(sample)) >= share * letters:
            return LANGUAGES[code]
    counts = Counter(_TOKEN.findall(sample.lower()))
    hits = {code: sum(counts[word] for word in LANGUAGES[code].stopwords) for code in _LATIN}
    best = max(_LATIN, key=lambda code: hits[code])
    return LANGUAGES[best] if hits[best] else UNKNOWN


@lru_cache(maxsize=8192)
def _conflate(word: str) -> str:
    """Cut a long word to its first characters, so that inflected forms of one word count as one term.

    Truncation needs no language's rules; Can et al. (2008) found it as good as stemmers in Turkish retrieval.
    """
    return word[:CONFLATION_CHARS]


CONFLATION_CHARS: Final = 7


def terms(text: str, lexicon: Lexicon) -> list[str]:
    """Return the content terms of `text`, in order and with repeats.

    Words are lower-cased and truncated, function words left out; unspaced scripts give overlapping pairs of
    characters, the usual unit of Chinese and Japanese retrieval.
    """
    stopwords = lexicon.stopwords
    found: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        if token.isascii() or not _UNSPACED_RUN.search(token):
            if token not in stopwords and len(token) > 1:
                found.append(_conflate(token))
        else:
            found.extend(_pairs(token))
    return found


def _pairs(token: str) -> Iterator[str]:
    end = 0
    for run in _UNSPACED_RUN.finditer(token):
        if run.start() > end:
            yield _conflate(token[end : run.start()])
        chars = run.group()
        yield from (chars[i : i + 2] for i in range(max(1, len(chars) - 1)))
        end = run.end()
    if end < len(token):
        yield _conflate(token[end:])


def count_words(text: str) -> float:
    """Return the length of `text` in words: those between spaces, and half of each unspaced character."""
    if text.isascii() or not _UNSPACED_RUN.search(text):
        return float(len(text.split()))
    unspaced = sum(len(run) for run in _UNSPACED_RUN.findall(text))
    spaced = len(_UNSPACED_STOP.sub(" ", _UNSPACED_RUN.sub(" ", text)).split())
    return spaced + unspaced / CHARS_PER_UNSPACED_WORD
