"""Vectors that are deterministic and of length 1; equal inputs give equal vectors, others nearly orthogonal ones."""

from __future__ import annotations

import base64
import hashlib
import math
import sys
from array import array
from collections.abc import Mapping
from typing import Any

from lcbatch.simulator.answers import canonical, text_tokens

Input = str | list[int]

_MAX_INPUTS = 2048
MAX_REQUEST_TOKENS = 300_000
"""OpenAI's own bounds on one request."""


def inputs_of(body: Mapping[str, Any]) -> list[Input]:
    """The inputs of an embeddings request: one string, strings, token ids, or lists of token ids.

    Raises ValueError if it has none.
    """
    given = body.get("input")
    if isinstance(given, list) and len(given) > _MAX_INPUTS and not isinstance(given[0], int):
        raise ValueError(f"'$.input' is invalid: {len(given)} inputs, of at most {_MAX_INPUTS}")
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(item, int) for item in given):
            return [given]
        if all(isinstance(item, str) or (isinstance(item, list) and item) for item in given):
            return given
    raise ValueError(
        "'$.input' is invalid: a string, or a list of strings or of token ids, none of them empty, is needed"
    )


def input_tokens(item: Input) -> int:
    """Tokens of one input: their number, or a quarter of its characters."""
    return text_tokens(item) if isinstance(item, str) else len(item)


def input_text(item: Input) -> str:
    """An input as a ledger shows it: itself, or its token ids as JSON."""
    return item if isinstance(item, str) else canonical(item).decode()


def embedding_for(item: Input, dimensions: int, model: str = "sim-embedding") -> list[float]:
    """The unit vector of one input under a model, of that many dimensions (at least 1)."""
    seed = canonical([model, item])
    components = array("h", hashlib.shake_256(seed).digest(2 * dimensions))
    if sys.byteorder == "big":
        components.byteswap()
    # A zero vector has no direction; it could only come at very few dimensions.
    norm = math.sqrt(sum(component * component for component in components))
    if not norm:
        return [1.0] + [0.0] * (dimensions - 1)
    return [component / norm for component in components]


def as_base64(vector: list[float]) -> str:
    """The vector as OpenAI encodes it: little-endian 32-bit floats in base64."""
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()
