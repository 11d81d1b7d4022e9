"""Rows as cells of a table: which values a row has, what its columns are called. Shared by CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lcbatch import jsontext
from lcbatch.ports import Entry
from lcbatch.records import Json
from lcbatch.sinks.selection import META, Selection, error_name, free_name
from lcbatch.vectors import unpacked

EXTRA = "_extra"


class Part(StrEnum):
    """Where a cell's value comes from: an input field, the whole output, a key of it, or of `meta`."""

    FIELD = "field"
    OUTPUT = "output"
    KEY = "key"
    META = "meta"


class Slot(NamedTuple):
    """One cell of a row, independent of what its column is called."""

    part: Part
    name: str


WHOLE = Slot(Part.OUTPUT, "")
Cells = dict[Slot, Json]


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts rows into cells. With `flatten`, each key of an output that is an object is a cell of its own.

    With `arrays` a vector is an array of 32-bit floats, else a list of numbers.
    """

    selection: Selection
    flatten: bool = True
    arrays: bool = False

    def fields(self, entry: Entry) -> Cells:
        """The input's cells."""
        return {Slot(Part.FIELD, name): value for name, value in self.selection.fields(entry).items()}

    def answer(self, entry: Entry) -> Cells:
        """The cells that the model wrote (none for a failed row), and `meta`."""
        cells: Cells = {}
        if entry.kind is None:
            value = self._value(entry)
            if self.flatten and isinstance(value, dict) and value:
                cells = {Slot(Part.KEY, key): item for key, item in value.items()}
            else:
                cells = {WHOLE: value}
        if self.selection.meta:
            cells.update({Slot(Part.META, key): item for key, item in entry.meta.items()})
        return cells

    def _value(self, entry: Entry) -> Json:
        if self.arrays and self.selection.vectors and entry.output is not None:
            return unpacked(jsontext.loads(entry.output), unit=self.selection.unit)
        return jsontext.loads(self.selection.answer(entry))


def as_whole(cells: Cells) -> Cells:
    """The same cells with the keys of an output put together again."""
    keys = {slot.name: value for slot, value in cells.items() if slot.part is Part.KEY}
    if not keys:
        return cells
    return {WHOLE: keys, **{slot: value for slot, value in cells.items() if slot.part is not Part.KEY}}


def column_names(slots: Sequence[Slot], output_field: str, taken: Iterable[str] = ()) -> dict[Slot, str]:
    """A name of its own for each slot: a key of the output by its own name, or `output.key` where that is taken."""
    used = set(taken) | {slot.name for slot in slots if slot.part is Part.FIELD}
    names: dict[Slot, str] = {}
    for slot in slots:
        if slot.part is Part.FIELD:
            names[slot] = slot.name
            continue
        wanted = {WHOLE.part: output_field, Part.META: f"{META}.{slot.name}"}.get(slot.part, slot.name)
        if slot.part is Part.KEY and wanted in used:
            wanted = f"{output_field}.{slot.name}"
        names[slot] = free_name(wanted, used)
        used.add(names[slot])
    return names


def extra_object(cells: Cells, output_field: str, columns: Iterable[str]) -> dict[str, Json]:
    """Cells without a column, as the object for `_extra`."""
    names = column_names(list(cells), output_field, () if all(s.part is Part.FIELD for s in cells) else columns)
    return {names[slot]: value for slot, value in cells.items()}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, in order: slots, then `_extra`, then `error`.

    `provisional` says that no answered row had been seen when they were fixed, so that the output's columns are a
    guess.
    """

    slots: tuple[Slot, ...]
    extra: bool = False
    error: bool = False
    provisional: bool = False

    def names(self, output_field: str) -> list[str]:
        """The header."""
        names = list(column_names(self.slots, output_field).values())
        if self.extra:
            names.append(free_name(EXTRA, names))
        if self.error:
            names.append(free_name(error_name(names), names))
        return names

    def to_json(self) -> Json:
        return {
            "slots": [[slot.part.value, slot.name] for slot in self.slots],
            "extra": self.extra,
            "error": self.error,
            "provisional": self.provisional,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Columns:
        slots = tuple(Slot(Part(part), name) for part, name in value["slots"])
        return cls(slots, extra=value["extra"], error=value["error"], provisional=value["provisional"])
