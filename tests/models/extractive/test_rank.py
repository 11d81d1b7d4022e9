"""LexRank without its matrix gives what the matrix gives."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.models.extractive.rank import DAMPING, centrality, cosine, lexrank, tfidf, word_probability

WORDS = st.sampled_from(["well", "water", "pump", "solar", "tank", "field"])
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=6), min_size=1, max_size=8)


def by_matrix(sentences: list[list[str]], prior: list[float]) -> list[float]:
    """The paper's formula, written out with the matrix."""
    vectors = tfidf(sentences)
    size = range(len(vectors))
    similar = [[cosine(vectors[i], vectors[j]) for j in size] for i in size]
    degree = [sum(row) for row in similar]
    ranks = [1 / len(vectors)] * len(vectors)
    for _ in range(300):
        ranks = [
            DAMPING * prior[i] / sum(prior) + (1 - DAMPING) * sum(similar[j][i] * ranks[j] / degree[j] for j in size)
            for i in size
        ]
    return ranks


@given(SENTENCES)
def test_the_factored_walk_equals_the_walk_over_the_matrix(sentences: list[list[str]]) -> None:
    prior = [1.0 + i for i in range(len(sentences))]
    assert lexrank(tfidf(sentences), prior) == pytest.approx(by_matrix(sentences, prior), abs=5e-3)


@given(SENTENCES)
def test_ranks_are_shares_of_one(sentences: list[list[str]]) -> None:
    assert math.fsum(lexrank(tfidf(sentences), [1.0] * len(sentences))) == pytest.approx(1.0)


def test_the_sentence_that_shares_most_ranks_first() -> None:
    sentences = [["bee", "school"], ["pump", "water", "sun"], ["pump", "tank"], ["water", "well"]]
    ranks = centrality(sentences, tfidf(sentences))
    assert max(range(4), key=ranks.__getitem__) == 1


def test_a_sentence_without_terms_is_harmless() -> None:
    sentences: list[list[str]] = [[], ["pump"], ["pump"]]
    assert centrality(sentences, tfidf(sentences))[0] == 0.0


def test_vectors_are_of_length_one() -> None:
    for vector in tfidf([["a", "a", "b"], ["b", "c"]]):
        assert math.fsum(weight**2 for weight in vector.values()) == pytest.approx(1.0)


def test_word_probability_is_the_mean_count() -> None:
    assert word_probability([["a", "b"], ["a"], []]) == [1.5, 2.0, 0.0]
