"""Which of the ranked sentences make the summary: maximal marginal relevance within a length.

Source: Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking" (SIGIR 1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .rank import Vector, cosine

RELEVANCE: Final = 0.8
"""MMR's lambda: the weight of the score against the likeness to what is chosen already."""

REDUNDANT: Final = 0.5
"""A sentence so like a chosen one says it again; it is passed over however well it scores."""

OVERRUN: Final = 1.1
"""A summary is at most this many times as long as asked."""

ENOUGH: Final = 0.9
"""From this share of the length on nothing more is looked for: the next sentence would only be the best that is short."""

POOL: Final = 400
"""So many of the best sentences are weighed against each other: a summary takes a handful, a book has thousands."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence as the selection sees it."""

    score: float
    """0 to 1, 1 for the best."""
    words: float
    vector: Vector
    leans_on: int | None = None
    """The sentence that must be chosen before this one may be: it opens with "However" or "They"."""


def choose(candidates: Sequence[Candidate], words: float, relevance: float = RELEVANCE) -> list[int]:
    """Return the numbers of the chosen candidates in document order: at least one, together at most 1.1 times `words`
    unless the first alone is longer. Ties go to the earlier sentence.
    """
    order = sorted(range(len(candidates)), key=lambda i: (-candidates[i].score, i))
    selection = _Selection(candidates, words * OVERRUN, relevance)
    pool = set(order[:POOL])
    pool |= {leant for i in pool if (leant := candidates[i].leans_on) is not None}
    selection.fill(sorted(pool), words * ENOUGH, leaning=False)
    if selection.words < words * ENOUGH:
        selection.fill(order, words * ENOUGH, leaning=False)
    if not selection.chosen or selection.words < words * ENOUGH / 2:
        selection.fill(order, words * ENOUGH, leaning=True)
    if not selection.chosen:
        # Nothing fits: the sentence that says most for its length.
        selection.chosen.append(min(order, key=lambda i: (-candidates[i].score / candidates[i].words, i)))
    return sorted(selection.chosen)


class _Selection:
    """What is chosen so far; owned by one call of `choose`."""

    def __init__(self, candidates: Sequence[Candidate], limit: float, relevance: float) -> None:
        self._candidates = candidates
        self._limit = limit
        self._relevance = relevance
        self.chosen: list[int] = []
        self.words = 0.0

    def fill(self, pool: Sequence[int], enough: float, *, leaning: bool) -> None:
        """Take the best of `pool` again and again until the summary is long enough or nothing fits.

        `leaning` lets sentences in whose support is not chosen: better than a summary of half the length.
        """
        likeness = {i: max((self._likeness(i, j) for j in self.chosen), default=0.0) for i in pool}
        while self.words < enough:
            best = max((i for i in pool if self._may(i, likeness[i], leaning=leaning)), key=lambda i: self._worth(i, likeness[i]), default=None)
            if best is None:
                return
            self.chosen.append(best)
            self.words += self._candidates[best].words
            for i in pool:
                likeness[i] = max(likeness[i], self._likeness(i, best))

    def _may(self, i: int, likeness: float, *, leaning: bool) -> bool:
        candidate = self._candidates[i]
        if i in self.chosen or self.words + candidate.words > self._limit or likeness > REDUNDANT:
            return False
        return leaning or candidate.leans_on is None or candidate.leans_on in self.chosen

    def _worth(self, i: int, likeness: float) -> float:
        return self._relevance * self._candidates[i].score - (1 - self._relevance) * likeness

    def _likeness(self, i: int, j: int) -> float:
        return cosine(self._candidates[i].vector, self._candidates[j].vector)
