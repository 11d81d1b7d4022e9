"""The sink of one file that grows: a Format's bytes in an AppendFile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from lcbatch.ports import Entry, Name, View
from lcbatch.records import Json
from lcbatch.sinks.appendfile import AppendFile
from lcbatch.sinks.faults import RewriteNeeded
from lcbatch.sinks.lines import Format

_GROUP = 512
_GROUP_CHARS = 4 * 1024 * 1024


class FileSink:
    """Appends rows to a file, and replaces it by temporary file and rename where appending cannot do.

    The state is the file's mark, the format's memory and the shape of the options: another shape is a rebuild. `append`
    may raise RewriteNeeded. `rebuild` may iterate `entries` again, so it takes a collection and no bare iterator.
    """

    def __init__(self, view: View, file: AppendFile, format_: Format) -> None:
        self.view = view
        self._file = file
        self._format = format_

    @property
    def notice(self) -> str | None:
        """What the user should be told about how the output was found, None where all was as it should be."""
        return self._file.notice

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:
        """See Sink.open. Raises CannotCreateOutput: no permission, or a file with content that is not ours."""
        taken = self._file.take_up(state, clean=clean)
        if state is None or not taken:
            return taken
        if state["shape"] != self._shape():
            return False
        self._format.resume(state["format"])
        return True

    def append(self, entries: Sequence[Entry]) -> None:
        """Add a group in one write. Raises OutputFailed, RewriteNeeded."""
        self._file.write(self._format.encode(entries))

    def sync(self) -> Mapping[str, Json]:
        """Make it safe from power loss. Raises OutputFailed; a failed sync is never tried again."""
        return {**self._file.sync().to_json(), "shape": self._shape(), "format": dict(self._format.state())}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        """Write a new file and put it in the old one's place. Bounded memory; an error leaves the old."""
        if iter(entries) is entries:
            raise TypeError("a rebuild needs something that can be iterated again")
        while True:
            self._format.begin()
            # A table may learn only from later rows which columns it needs; then it begins again, knowing them.
            with contextlib.suppress(RewriteNeeded):
                self._replace(entries)
                return self.sync()

    def _replace(self, entries: Iterable[Entry]) -> None:
        rows = iter(entries)
        with self._file.replacement() as write:
            while group := _next_group(rows):
                write(self._format.encode(group))

    def discard(self, names: Sequence[Name]) -> None:
        """Nothing: a line is taken out by the rebuild that follows."""

    def abort(self) -> None:
        """Nothing: a file takes what it is given."""

    def close(self) -> None:
        self._file.close()

    def _shape(self) -> Json:
        return {
            **self._format.shape(),
            "order": self.view.order.value,
            "done": self.view.done,
            "failed": self.view.failed,
        }


def _next_group(rows: Iterator[Entry]) -> list[Entry]:
    """What is written at once: many rows, or few where they are long."""
    group, chars = [], 0
    for entry in islice(rows, _GROUP):
        group.append(entry)
        chars += len(entry.fields) + len(entry.output or "")
        if chars > _GROUP_CHARS:
            break
    return group
