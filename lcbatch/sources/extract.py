"""What the extractors of heavy formats have in common. They run in worker processes only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extraction:
    """One file to extract text from; `max_bytes` bounds what it may unfold to."""

    path: str
    max_bytes: int
    encoding: str = "utf-8"
    loader: str | None = None


class Unreadable(Exception):
    """This file cannot be read; the message is a clause that follows its name."""


class NoText(Unreadable):
    """The file can be read and holds no text."""
