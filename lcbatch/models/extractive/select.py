"""Which of the ranked sentences make the summary: maximal marginal relevance within a length.

Source: Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking" (SIGIR 1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .rank import Vector, cosine

RELEVANCE: Final = 0.7
"""MMR's lambda: the weight of the score against the likeness to what is chosen already; 0.7 is the paper's for a focused list."""

REDUNDANT: Final = 0.5
"""A sentence so like a chosen one says it again; it is passed over however well it scores."""

OVERRUN: Final = 1.1
"""A summary is at most this many times as long as asked."""

ENOUGH: Final = 0.9
"""From this share of the length on nothing more is looked for: the next sentence would only be the best that is short."""

MAX_CHAIN: Final = 3
"""A sentence that needs more than two before it to be understood is left out."""

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
    """The sentence before that must be in the summary too: this one opens with "However" or "They". Its own number where
    that one is missing, so that it can be chosen only when nothing else is left."""


def choose(candidates: Sequence[Candidate], words: float, relevance: float = RELEVANCE) -> list[int]:
    """Return the numbers of the chosen candidates in document order: at least one, together at most 1.1 times `words`
    unless the first alone is longer. Ties go to the earlier sentence.
    """
    order = sorted(range(len(candidates)), key=lambda i: (-candidates[i].score, i))
    selection = _Selection(candidates, words, relevance)
    selection.fill(order[:POOL])
    selection.top_up(order[POOL:])
    if selection.words * 2 < words:
        selection.top_up(order, alone=True)
    if not selection.chosen:
        # Nothing fits: the sentence that says most for its length.
        return [min(order, key=lambda i: (-candidates[i].score / candidates[i].words, i))]
    return sorted(selection.chosen)


class _Selection:
    """What is chosen so far; owned by one call of `choose`."""

    def __init__(self, candidates: Sequence[Candidate], words: float, relevance: float) -> None:
        self._candidates = candidates
        self._enough = words * ENOUGH
        self._limit = words * OVERRUN
        self._relevance = relevance
        self.chosen: set[int] = set()
        self.words = 0.0

    def fill(self, pool: Sequence[int]) -> None:
        """Take the best of `pool` by MMR, with what it leans on, until the length is reached or nothing fits."""
        groups = [self._with_support(i) for i in pool]
        likeness = {i: 0.0 for group in groups for i in group}
        while self.words < self._enough:
            fitting = (self._missing(group) for group in groups)
            best = max(
                (group for group in fitting if self._fits(group) and all(likeness[i] <= REDUNDANT for i in group)),
                key=lambda group: self._worth(group, likeness),
                default=None,
            )
            if best is None:
                return
            self._take(best)
            likeness = {i: max(before, *(self._likeness(i, j) for j in best)) for i, before in likeness.items()}

    def top_up(self, order: Sequence[int], *, alone: bool = False) -> None:
        """Take what fits and says something new, in order of score: linear, for the long tail and for long summaries.

        `alone` takes sentences without what they lean on: better than a summary of half the length.
        """
        for i in order:
            if self.words >= self._enough:
                return
            group = self._missing((i,) if alone else self._with_support(i))
            if self._fits(group) and all(self._likeness(i, j) <= REDUNDANT for i in group for j in self.chosen):
                self._take(group)

    def _take(self, group: tuple[int, ...]) -> None:
        self.chosen.update(group)
        self.words += sum(self._candidates[i].words for i in group)

    def _with_support(self, i: int) -> tuple[int, ...]:
        """Return `i` with the chain of sentences before it that it leans on; () where the chain has no firm end."""
        group = [i]
        while (before := self._candidates[group[0]].leans_on) is not None:
            if before == group[0] or len(group) == MAX_CHAIN:
                return ()
            group.insert(0, before)
        return tuple(group)

    def _missing(self, group: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(i for i in group if i not in self.chosen)

    def _fits(self, group: tuple[int, ...]) -> bool:
        return bool(group) and self.words + sum(self._candidates[i].words for i in group) <= self._limit

    def _worth(self, group: tuple[int, ...], likeness: dict[int, float]) -> float:
        """MMR of a sentence; of a group the mean, so that weak support makes a strong sentence dearer."""
        gain = sum(self._relevance * self._candidates[i].score - (1 - self._relevance) * likeness[i] for i in group)
        return gain / len(group)

    def _likeness(self, i: int, j: int) -> float:
        return cosine(self._candidates[i].vector, self._candidates[j].vector)
