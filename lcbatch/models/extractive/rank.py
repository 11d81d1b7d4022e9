"""How central each sentence is to its document: LexRank over TF-IDF vectors, steadied by two simpler measures.

Sources: Erkan & Radev, "LexRank: Graph-based Lexical Centrality as Salience in Text Summarization", JAIR 22 (2004), for
the continuous variant used here; Otterbacher, Erkan & Radev, "Biased LexRank" (2009), for a prior in the random walk;
Radev, Jing, Stys & Tam, "Centroid-based summarization of multiple documents" (2004); Nenkova & Vanderwende, "The Impact
of Frequency on Summarization" (2005), for the mean probability of a sentence's words (SumBasic).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from operator import mul
from typing import Final

Vector = dict[int, float]
"""A sparse vector of length 1 (or empty): term number to weight."""

DAMPING: Final = 0.15
"""Share of the walk that jumps by the prior instead of along a similarity; Erkan & Radev's value, PageRank's too."""

TOLERANCE: Final = 1e-3
"""The walk ends when the ranks, which sum to 1, change by less than this in sum."""

MAX_STEPS: Final = 60


def tfidf(sentences: Sequence[Sequence[str]]) -> list[Vector]:
    """Return one unit vector for each sentence: term frequency times log(1 + N / sentences with the term)."""
    numbers: dict[str, int] = {}
    counts = [Counter(numbers.setdefault(term, len(numbers)) for term in terms) for terms in sentences]
    holders = Counter(number for count in counts for number in count)
    total = len(counts)
    idf = {number: math.log(1 + total / held) for number, held in holders.items()}
    return [_unit({number: count * idf[number] for number, count in vector.items()}) for vector in counts]


def _unit(vector: Vector) -> Vector:
    length = math.sqrt(math.fsum(weight * weight for weight in vector.values()))
    return {number: weight / length for number, weight in vector.items()} if length else {}


def cosine(one: Vector, other: Vector) -> float:
    """Return the cosine of two unit vectors, 0 to 1."""
    if len(other) < len(one):
        one, other = other, one
    return sum(weight * other[number] for number, weight in one.items() if number in other)


class _Similarities:
    """The matrix of all cosines, X·Xᵀ, never built: a product with it is two passes over X, the rows of sentence vectors.

    So a step of the walk costs as much as the text is long, in time and memory, and a book is ranked whole.
    """

    def __init__(self, vectors: Sequence[Vector]) -> None:
        self._rows = [(tuple(vector), tuple(vector.values())) for vector in vectors]
        columns: dict[int, tuple[list[int], list[float]]] = {}
        for row, vector in enumerate(vectors):
            for number, weight in vector.items():
                rows, weights = columns.setdefault(number, ([], []))
                rows.append(row)
                weights.append(weight)
        self._columns = columns

    def times(self, values: Sequence[float]) -> list[float]:
        """Return X·(Xᵀ·values)."""
        pick = values.__getitem__
        by_term = {number: sum(map(mul, weights, map(pick, rows))) for number, (rows, weights) in self._columns.items()}
        back = by_term.__getitem__
        return [sum(map(mul, weights, map(back, numbers))) for numbers, weights in self._rows]

    def degrees(self) -> list[float]:
        """Return each sentence's sum of cosines with all: its likeness to the document as one bag of words, the centroid."""
        return self.times([1.0] * len(self._rows))


def lexrank(vectors: Sequence[Vector], prior: Sequence[float], damping: float = DAMPING) -> list[float]:
    """Return each sentence's share of the random walk over cosine similarities; shares sum to 1.

    `prior` weighs where the walk jumps to; it need not sum to 1. A sentence's similarity with itself (1) is in the walk, as
    in the paper. A sentence without terms is reached by jumps alone.
    """
    similarities = _Similarities(vectors)
    return _walk(similarities, similarities.degrees(), prior, damping)


def _walk(similarities: _Similarities, degrees: Sequence[float], prior: Sequence[float], damping: float) -> list[float]:
    total = math.fsum(prior) or 1.0
    jump = [weight / total for weight in prior]
    ranks = jump
    for _ in range(MAX_STEPS):
        sent = [rank / degree if degree else 0.0 for rank, degree in zip(ranks, degrees, strict=True)]
        moved = [damping * j + (1 - damping) * walked for j, walked in zip(jump, similarities.times(sent), strict=True)]
        change = math.fsum(abs(new - old) for new, old in zip(moved, ranks, strict=True))
        ranks = moved
        if change < TOLERANCE:
            break
    return ranks


def word_probability(sentences: Sequence[Sequence[str]]) -> list[float]:
    """Return the mean, over each sentence's terms, of how often the term stands in the document; 0.0 for no terms.

    The one measure of the three that does not grow with a sentence's length.
    """
    counts = Counter(term for terms in sentences for term in terms)
    return [sum(counts[term] for term in terms) / len(terms) if terms else 0.0 for terms in sentences]


def centrality(sentences: Sequence[Sequence[str]], vectors: Sequence[Vector]) -> list[float]:
    """Return the geometric mean of LexRank, likeness to the centroid and word probability.

    Rankers err on different sentences, and a consensus errs less than its members (Hong, Marcus & Nenkova 2015); the
    geometric mean needs no common scale.
    """
    similarities = _Similarities(vectors)
    degrees = similarities.degrees()
    ranks = _walk(similarities, degrees, [1.0] * len(vectors), DAMPING)
    measures = (ranks, degrees, word_probability(sentences))
    return [math.prod(values) ** (1 / len(measures)) for values in zip(*measures, strict=True)]
