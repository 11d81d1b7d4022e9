from __future__ import annotations

import base64
import math
import struct

import pytest

from lcbatch.simulator.embeddings import Input, as_base64, embedding_for, input_text, input_tokens, inputs_of


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dimensions", [1, 7, 256])
def test_a_vector_is_of_length_one_and_the_dimensions_asked(dimensions: int) -> None:
    vector = embedding_for("hello", dimensions)
    assert len(vector) == dimensions
    assert math.isclose(dot(vector, vector), 1, rel_tol=1e-9)


def test_equal_texts_have_equal_vectors_and_others_nearly_orthogonal_ones() -> None:
    assert embedding_for("hello", 256) == embedding_for("hello", 256)
    assert abs(dot(embedding_for("hello", 256), embedding_for("other", 256))) < 0.3
    assert embedding_for("hello", 256, "m1") != embedding_for("hello", 256, "m2")


def test_base64_holds_the_same_floats() -> None:
    vector = embedding_for("hello", 16)
    assert list(struct.unpack("<16f", base64.b64decode(as_base64(vector)))) == pytest.approx(vector, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("a", ["a"]), (["a", ""], ["a", ""]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_the_shapes_of_an_input(given: object, inputs: list[Input]) -> None:
    assert inputs_of({"input": given}) == inputs


@pytest.mark.parametrize("given", [None, [], {}, [{}], [[]], 7])
def test_other_shapes_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="input"):
        inputs_of({"input": given})


def test_tokens_and_text_of_an_input() -> None:
    assert [input_tokens("12345"), input_tokens([1, 2, 3])] == [2, 3]
    assert [input_text("a"), input_text([1, 2])] == ["a", "[1,2]"]
