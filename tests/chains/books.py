"""Books of made-up words: as long as a test needs them, the same each time."""

from __future__ import annotations

import random

_WORDS = (
    "the",
    "of",
    "river",
    "stone",
    "a",
    "under",
    "lamp",
    "walked",
    "quiet",
    "house",
    "and",
    "letter",
    "by",
    "an",
    "old",
)


def book(size: int, *, seed: int = 1, chapters: bool = True) -> str:
    """Chapters of paragraphs, of at least so many characters."""
    dice = dice_of(seed)
    parts, length = list[str](), 0
    while length < size:
        if chapters and len(parts) % 40 == 0:
            parts.append(f"Chapter {len(parts) // 40 + 1}")
        else:
            parts.append(paragraph(dice))
        length += len(parts[-1]) + 2
    return "\n\n".join(parts) + "\n"


def paragraph(dice: random.Random) -> str:
    """Some sentences in lines of a book's width."""
    sentences = [
        " ".join(dice.choices(_WORDS, k=dice.randrange(5, 25))).capitalize() + "." for _ in range(dice.randrange(1, 9))
    ]
    words, lines, line = " ".join(sentences).split(), list[str](), ""
    for word in words:
        if len(line) + len(word) > 72:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def dice_of(seed: int) -> random.Random:
    """Chance that is the same each time."""
    return random.Random(seed)  # noqa: S311 - no secret
