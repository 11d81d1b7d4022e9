"""MMR: good, different, in order, within the length, nothing without what it leans on."""

from __future__ import annotations

from lcbatch.models.extractive.rank import Vector, tfidf
from lcbatch.models.extractive.select import Candidate, choose


def vectors(*sentences: str) -> list[Vector]:
    return tfidf([sentence.split() for sentence in sentences])


def test_the_best_are_chosen_and_stand_in_document_order() -> None:
    one, two, three = vectors("a b", "c d", "e f")
    candidates = [Candidate(0.5, 10, one), Candidate(0.1, 10, two), Candidate(1.0, 10, three)]
    assert choose(candidates, 20) == [0, 2]


def test_a_near_duplicate_is_passed_over_for_something_new() -> None:
    one, again, other = vectors("pump water sun tank", "pump water sun well", "bee school")
    candidates = [Candidate(1.0, 10, one), Candidate(0.9, 10, again), Candidate(0.2, 10, other)]
    assert choose(candidates, 20) == [0, 2]


def test_half_alike_loses_to_new_of_nearly_the_same_score() -> None:
    one, like, other = vectors("pump water sun tank", "pump water bee school", "farm field crop rain")
    candidates = [Candidate(1.0, 10, one), Candidate(0.62, 10, like), Candidate(0.6, 10, other)]
    assert choose(candidates, 20) == [0, 2]
    assert choose(candidates, 20, relevance=1.0) == [0, 1]


def test_the_length_is_kept_by_taking_the_next_that_fits() -> None:
    one, two, three = vectors("a b", "c d", "e f")
    candidates = [Candidate(1.0, 15, one), Candidate(0.9, 15, two), Candidate(0.1, 5, three)]
    assert choose(candidates, 20) == [0, 2]


def test_one_sentence_is_chosen_even_where_none_fits() -> None:
    one, two = vectors("a b", "c d")
    assert choose([Candidate(1.0, 90, one), Candidate(0.9, 30, two)], 10) == [1]


def test_a_sentence_that_leans_brings_its_support_along() -> None:
    vector = vectors("a b", "c d", "e f", "g h")
    candidates = [
        Candidate(0.3, 10, vector[0]),
        Candidate(1.0, 10, vector[1], leans_on=0),
        Candidate(0.4, 10, vector[2]),
        Candidate(0.35, 10, vector[3]),
    ]
    assert choose(candidates, 20) == [0, 1]


def test_a_sentence_whose_support_is_missing_is_left_out_while_others_fit() -> None:
    vector = vectors("a b", "c d", "e f")
    candidates = [
        Candidate(1.0, 10, vector[0], leans_on=0),
        Candidate(0.2, 10, vector[1]),
        Candidate(0.1, 10, vector[2]),
    ]
    assert choose(candidates, 20) == [1, 2]


def test_it_is_taken_alone_rather_than_leave_the_summary_half_empty() -> None:
    vector = vectors("a b", "c d")
    candidates = [Candidate(1.0, 10, vector[0], leans_on=0), Candidate(0.2, 4, vector[1])]
    assert choose(candidates, 14) == [0, 1]


def test_equal_scores_go_to_the_earlier() -> None:
    vector = vectors("a b", "c d", "e f")
    assert choose([Candidate(0.5, 10, v) for v in vector], 10) == [0]
