"""A folder to work in, with a chain of plain functions: runs that need no provider."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcbatch.app import Report, run_job
from lcbatch.job import Job
from lcbatch.world import World, library_world

_CHAIN = """
def answer(fields):
    if fields["text"] == "bad":
        raise ValueError("no answer to that")
    return fields["text"].upper()
"""


class Work:
    """Rows of one field `text`, whose answers are upper case; `bad` has none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "chain.py").write_text(_CHAIN)

    def write(self, *words: str, name: str = "in.jsonl") -> None:
        """An input."""
        (self.folder / name).write_text("".join(json.dumps({"text": word}) + "\n" for word in words))

    def run(self, command: str = "", name: str = "in.jsonl", **options: Any) -> Report:
        """Run it, inside this process."""
        given = {"chain": f"{self.folder}/chain.py:answer", "output": str(self.folder / "out.jsonl"), **options}
        job = Job.of(str(self.folder / name), progress="none", **given)
        return asyncio.run(run_job(job, self.world(command)))

    def world(self, command: str = "") -> World:
        """Outside of a library call, with a state folder of its own."""
        return replace(library_world(), command=command, env={"XDG_STATE_HOME": str(self.folder / "state")})

    def names(self) -> set[str]:
        """What lies in the folder, but for Python's own."""
        return {path.name for path in self.folder.iterdir()} - {"__pycache__", "chain.py"}
