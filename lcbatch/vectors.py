"""Vectors as they travel and are kept: little-endian 32-bit floats in base64, as OpenAI sends them.

A vector of 1536 numbers is 8 KB of text so, where JSON numbers would take 18 to 32. Nothing is rounded: float32 is what
embedding models compute in, and what vector stores hold.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BYTES = 4


def packed(numbers: Sequence[float]) -> str:
    """A vector as text. Raises ValueError or TypeError for what is no list of numbers."""
    import numpy as np  # noqa: PLC0415 - 80 ms that only vectors pay

    array = np.asarray(numbers, dtype="<f4")
    if array.ndim != 1 or not array.size:
        raise ValueError("a vector is a list of numbers")
    return base64.b64encode(array.tobytes()).decode("ascii")


def is_packed(text: object) -> bool:
    """Whether this is a vector as text, by its length and letters."""
    if not isinstance(text, str) or not text:
        return False
    try:
        return len(base64.b64decode(text, validate=True)) % _BYTES == 0
    except ValueError:
        return False


def unpacked(text: str, *, unit: bool = False) -> NDArray[np.float32]:
    """The numbers of a packed vector; with `unit`, divided by their Euclidean length (zeros stay zeros)."""
    import numpy as np  # noqa: PLC0415

    array = np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32, copy=False)
    if not unit:
        return array
    norm = float(np.linalg.norm(array.astype(np.float64)))
    return array if not norm else (array / norm).astype(np.float32)


def as_json(text: str, *, unit: bool = False) -> str:
    """A packed vector as a JSON list, each number in the fewest digits that give the same float32 again."""
    import orjson  # noqa: PLC0415

    return orjson.dumps(unpacked(text, unit=unit), option=orjson.OPT_SERIALIZE_NUMPY).decode()
