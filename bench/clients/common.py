"""What every contestant is given, and what it hands back. Standard library only: peers have environments of their own.

The provider's address and a key come by OPENAI_BASE_URL and OPENAI_API_KEY, as their clients read them by themselves.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "sim"
PROMPT = "Classify the sentiment of this review: {text}"


@dataclass(frozen=True, slots=True)
class Task:
    """Rows to answer: JSON lines with `id` and `text`. Answers go to `out`, one line each, in any order."""

    rows_file: Path
    out: Path
    concurrency: int
    base_url: str
    api_key: str

    def rows(self) -> Iterator[dict[str, Any]]:
        """One after the other, so that a contestant that can live without a list of all does."""
        with self.rows_file.open("rb") as lines:
            for line in lines:
                yield json.loads(line)


def task_from_argv() -> Task:
    rows_file, out, concurrency = sys.argv[1:4]
    return Task(
        Path(rows_file), Path(out), int(concurrency), os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
    )


def prompt_for(row: dict[str, Any]) -> str:
    return PROMPT.replace("{text}", row["text"])


def messages_for(row: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt_for(row)}]


def line_for(row: dict[str, Any], answer: str) -> str:
    return json.dumps(row | {"output": answer}) + "\n"
