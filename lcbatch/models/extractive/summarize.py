"""Text in, extract out: the pure function behind `lcbatch:extractive`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .cues import Place, Weights, prior
from .fitness import dangles, is_apparatus, is_quotable, leaves_quotation_open
from .inline import plain
from .language import count_words, lexicon_for, terms
from .lexicon import Lexicon
from .markup import Block, Document, strip_markup
from .rank import Vector, centrality, cosine, lexrank, tfidf
from .select import OVERRUN, RELEVANCE, Candidate, choose
from .sentences import split_sentences

DEFAULT_WORDS: Final = 120

FOCUS_DAMPING: Final = 0.8
"""With a focus the walk jumps this often to sentences that share its words: a heavy bias, since the user named what counts."""

MAX_WORD_CHARS: Final = 20
"""A document with more characters than this for each word wanted is surely longer than wanted: its words need no counting."""

_UNSPACED: Final = frozenset({"ja", "zh"})
_DEFAULT_WEIGHTS: Final = Weights()


class NoProseError(ValueError):
    """The document has no sentence to quote: it is empty, or all code, tables and markup."""

    def __init__(self) -> None:
        super().__init__("no prose to summarize: the document is empty or holds only code, tables or markup")


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    """As it will be printed."""
    terms: list[str]
    words: float
    prior: float
    leans: bool
    block: int
    place: int


def summarize_text(
    text: str, *, words: int = DEFAULT_WORDS, focus: str | None = None, language: str | None = None
) -> str:
    """Return about `words` words of whole sentences from `text`, in document order.

    Pure and deterministic: the same arguments give the same summary on every machine. At most 1.1 times `words`, unless the
    shortest choice is one longer sentence; a document that is no longer comes back as its prose. Chinese and Japanese
    are counted as one word per two characters.

    Args:
        text: a document in Markdown, reStructuredText, HTML or plain text, in any language.
        words: length aimed at, 1 or more.
        focus: what the summary should be about; sentences near these words rank higher.
        language: ISO 639 code or name; found out from the text when None or not known. It never translates.

    Raises:
        NoProseError: there is no prose in `text`.
        ValueError: `words` is less than 1.
    """
    return summarize_with(text, words=words, focus=focus, language=language)


def summarize_with(
    text: str,
    *,
    words: int = DEFAULT_WORDS,
    focus: str | None = None,
    language: str | None = None,
    weights: Weights = _DEFAULT_WEIGHTS,
    relevance: float = RELEVANCE,
) -> str:
    """Do what `summarize_text` says, with the ranking's constants as arguments, for `bench/quality.py`."""
    if words < 1:
        raise ValueError(f"words must be 1 or more, not {words}")
    document = strip_markup(text)
    lexicon = lexicon_for(language, " ".join(block.text for block in document.blocks[:200]))
    sentences = _readable(document, lexicon, words, weights)
    if sum(sentence.words for sentence in sentences) <= words * OVERRUN:
        return _joined(sentences, lexicon)
    vectors = tfidf(
        [*(sentence.terms for sentence in sentences), terms(document.title, lexicon), terms(focus or "", lexicon)]
    )
    scores = _scores(sentences, vectors, weights)
    candidates = _candidates(sentences, vectors, scores)
    return _joined([sentences[i] for i in choose(candidates, words, relevance)], lexicon)


def _joined(sentences: Sequence[_Sentence], lexicon: Lexicon) -> str:
    return ("" if lexicon.code in _UNSPACED else " ").join(sentence.text for sentence in sentences)


def _readable(document: Document, lexicon: Lexicon, words: int, weights: Weights) -> list[_Sentence]:
    """Return the sentences that a summary may take: the whole and quotable ones.

    Any prose at all where those are too few for half the length, or where the prose is no longer than what is wanted: a
    short note must not lose the "Call me." at its end. Raises NoProseError when there is none.
    """
    blocks = [block for block in document.blocks if block.kind not in {"heading", "line"} and not is_apparatus(block)]
    if not _is_short(blocks, words):
        strict = list(_sentences(blocks, lexicon, weights, strict=True))
        if strict and sum(sentence.words for sentence in strict) * 2 >= words:
            return strict
    unheaded = [block for block in document.blocks if block.kind != "heading"]
    for some in (blocks, unheaded):
        if found := list(_sentences(some, lexicon, weights, strict=False)):
            return found
    raise NoProseError


def _is_short(blocks: Sequence[Block], words: int) -> bool:
    """Whether all the prose fits into the length that is wanted."""
    if sum(len(block.text) for block in blocks) > words * MAX_WORD_CHARS:
        return False
    return sum(count_words(block.text) for block in blocks) <= words * OVERRUN


def _sentences(blocks: Sequence[Block], lexicon: Lexicon, weights: Weights, *, strict: bool) -> Iterator[_Sentence]:
    heading = None
    for number, block in enumerate(blocks):
        opens_section, heading = block.heading != heading, block.heading
        in_speech = False
        for place, marked in enumerate(split_sentences(block.text, lexicon)):
            spoken, in_speech = in_speech, in_speech != leaves_quotation_open(marked)
            text = plain(marked)
            words = count_words(text)
            if not text or (strict and spoken) or not is_quotable(marked, words, lexicon, strict=strict):
                continue
            yield _Sentence(
                text=text,
                terms=terms(text, lexicon),
                words=max(words, 0.5),
                prior=prior(marked, block, Place(number, place, opens_section=opens_section), lexicon, weights),
                leans=dangles(text, lexicon),
                block=number,
                place=place,
            )


def _scores(sentences: Sequence[_Sentence], vectors: Sequence[Vector], weights: Weights) -> list[float]:
    """Rank times cues, 1 for the best; `vectors` ends with those of the title and the focus."""
    *bodies, title, focus = vectors
    about = [cosine(body, focus) for body in bodies]
    central = centrality([sentence.terms for sentence in sentences], bodies)
    ranks = lexrank(bodies, about, FOCUS_DAMPING) if any(about) else central
    scores = [
        rank * sentence.prior * (1 + weights.title * cosine(body, title))
        for rank, sentence, body in zip(ranks, sentences, bodies, strict=True)
    ]
    best = max(scores) or 1.0
    return [score / best for score in scores]


def _candidates(sentences: Sequence[_Sentence], vectors: Sequence[Vector], scores: Sequence[float]) -> list[Candidate]:
    """A sentence that dangles leans on the one before it, or on itself (never choosable alone) where that is missing."""
    numbers = {(sentence.block, sentence.place): i for i, sentence in enumerate(sentences)}
    return [
        Candidate(
            score=scores[i],
            words=sentence.words,
            vector=vectors[i],
            leans_on=numbers.get((sentence.block, sentence.place - 1), i) if sentence.leans else None,
        )
        for i, sentence in enumerate(sentences)
    ]
