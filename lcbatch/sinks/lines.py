"""JSON lines: one object a row, made by joining JSON texts, since parsing and writing again costs ten times as much."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lcbatch import jsontext
from lcbatch.ports import Entry
from lcbatch.records import ERROR_FIELD, SAMPLE_FIELD, Json
from lcbatch.sinks.selection import META, Selection, error_name

_BREAKS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}
"""What some readers take for the end of a line although JSON allows it inside a string."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_STEERS_TERMINAL = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Format(Protocol):
    """Turns entries into bytes. What it keeps between groups (a table's columns) is small and travels in the state."""

    def shape(self) -> Mapping[str, Json]:
        """Plain JSON that changes exactly when an existing output would have to be written differently."""
        ...

    def resume(self, state: Mapping[str, Json]) -> None:
        """Go on where `state()` was taken."""
        ...

    def begin(self) -> None:
        """Forget what was written, keep what was learnt of the rows: a new output begins."""
        ...

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """The group as bytes. Raises RewriteNeeded where what was written before has to change."""
        ...

    def state(self) -> Mapping[str, Json]: ...


class Lines:
    """A Format without memory: each row by itself through `line`, which gives JSON text with its line end."""

    def __init__(
        self,
        line: Callable[[Entry], str],
        shape: Mapping[str, Json],
        *,
        is_json: bool = True,
        for_terminal: bool = False,
    ) -> None:
        self._line = line
        self._shape = shape
        self._is_json = is_json
        self._for_terminal = for_terminal

    def shape(self) -> Mapping[str, Json]:
        return self._shape

    def resume(self, state: Mapping[str, Json]) -> None:
        """Nothing is kept."""

    def begin(self) -> None:
        """Nothing is kept."""

    def state(self) -> Mapping[str, Json]:
        return {}

    def encode(self, entries: Sequence[Entry]) -> bytes:
        text = "".join(map(self._line, entries))
        if not self._is_json:
            return text.encode("utf-8", "replace")
        for char, escape in _BREAKS.items():
            if char in text:
                text = text.replace(char, escape)
        if self._for_terminal:
            text = _STEERS_TERMINAL.sub(_escape, text)
        try:
            return text.encode()
        except UnicodeEncodeError:
            return _SURROGATE.sub(_escape, text).encode()


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def joined(head: str, *tail: str) -> str:
    """One line: the members of the JSON object text `head`, then those whose text `tail` is in pieces.

    Put together once: a piece may be an answer of 50 MB.
    """
    return "".join((head[:-1], ",", *tail, "}\n") if len(head) > len("{}") else ("{", *tail, "}\n"))


def without(names: Sequence[str]) -> Callable[[str], str]:
    """Takes members of these names out of a JSON object text, so that no key stands twice.

    The text is parsed only where a name occurs in it at all, be it inside a value. A name that an escape could hide is
    looked for by parsing wherever there is an escape.
    """
    needles = tuple(f'"{name}"' for name in names)
    hidden = any(not name.isascii() or not name.isprintable() or '"' in name or "\\" in name for name in names)

    def strip(head: str) -> str:
        if not any(needle in head for needle in needles) and not (hidden and "\\" in head):
            return head
        fields = jsontext.loads(head)
        if fields.keys().isdisjoint(names):
            return head
        return jsontext.dumps({name: value for name, value in fields.items() if name not in names})

    return strip


def row_line(selection: Selection) -> Callable[[Entry], str]:
    """The line of a row in the output: its fields, the answer, and for a failed row null and the error."""
    name = jsontext.dumps(selection.output_field)
    added = [
        selection.output_field,
        *([META] if selection.meta else []),
        *([SAMPLE_FIELD] if selection.samples else []),
    ]
    clear = without(added)
    whole = selection.keep is None

    def line(entry: Entry) -> str:
        head = clear(entry.fields if whole and not entry.is_document else jsontext.dumps(selection.fields(entry)))
        before = f'"{SAMPLE_FIELD}":{entry.sample},{name}:' if selection.samples else f"{name}:"
        tail = ""
        if selection.meta:
            tail += f',"{META}":{jsontext.dumps(dict(entry.meta))}'
        if entry.kind is not None:
            key = error_name([*jsontext.loads(head), *added])
            head = without((key,))(head)
            tail += f',"{key}":{jsontext.dumps({"kind": entry.kind, "message": entry.message, **_answer(entry)})}'
        return joined(head, before, selection.answer(entry), tail)

    return line


_without_error = without((ERROR_FIELD,))


def error_line(entry: Entry) -> str:
    """The line of a failed row in the errors file: the row as it came and `_lcbatch_error`, which sources strip.

    What the model answered all the same stands in it as `answer`. The number of a sample stands in it, too: as input the row is
    asked for as many answers as any other.
    """
    error: dict[str, Json] = {"kind": entry.kind, "message": entry.message, "attempts": entry.meta.get("attempts", 0)}
    if entry.place:
        error["place"] = entry.place
    if entry.sample:
        error[SAMPLE_FIELD] = entry.sample
    error |= _answer(entry)
    return joined(_without_error(entry.fields), f'"{ERROR_FIELD}":{jsontext.dumps(error)}')


def _answer(entry: Entry) -> dict[str, Json]:
    return {} if entry.answer is None else {"answer": entry.answer}
