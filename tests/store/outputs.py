"""Sinks in memory, for the machine of test_machine.py: a file of lines, and a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lcbatch.ports import Entry, Name, View
from lcbatch.records import Json
from lcbatch.sinks.appendfile import REBUILDING

from .model import Line, line_of


@dataclass
class Output:
    """A sink whose file is a list: what was appended survives a kill, `open` cuts it to where the store stood."""

    view: View
    lines: list[Line] = field(default_factory=list)

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:
        assert state is not None or not self.lines, "the store does not know of this output"
        assert not clean or state is None or state["lines"] == len(self.lines), "a clean end left other lines"
        if state is None:
            return True
        del self.lines[state["lines"] :]
        return len(self.lines) == state["lines"] and not state.get(REBUILDING)

    def append(self, entries: Sequence[Entry]) -> None:
        self.lines += map(line_of, entries)

    def sync(self) -> Mapping[str, Json]:
        return {"lines": len(self.lines)}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        self.lines = [line_of(entry) for entry in entries]
        return self.sync()

    def discard(self, names: Sequence[Name]) -> None:
        """It is of one file."""

    def abort(self) -> None:
        """It never waits."""

    def close(self) -> None:
        """It has nothing open."""

    def kept(self) -> Output:
        """As a crash would leave it now."""
        return replace(self, lines=list(self.lines))


@dataclass
class Files:
    """A sink with a file a row, by name. Each start looks through all of them."""

    view: View
    files: dict[Name, Line] = field(default_factory=dict)

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:  # noqa: ARG002 - a file tells by its content
        return state is None

    def append(self, entries: Sequence[Entry]) -> None:
        self.files.update((Name(entry.id, entry.twin), line_of(entry)) for entry in entries)

    def sync(self) -> Mapping[str, Json]:
        return {}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        self.append(list(entries))
        return {}

    def discard(self, names: Sequence[Name]) -> None:
        for name in names:
            self.files.pop(name, None)

    def abort(self) -> None:
        """It never waits."""

    def close(self) -> None:
        """It has nothing open."""

    def kept(self) -> Files:
        """As a crash would leave it now."""
        return replace(self, files=dict(self.files))
