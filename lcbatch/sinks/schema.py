"""Column types for Parquet, found by looking at every value: the narrowest that holds all, else JSON text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from lcbatch.records import Json
from lcbatch.sinks.table import WHOLE, Cells, Slot

_EXACT_IN_FLOAT = 2**53
_INT64 = 2**63
MAX_COLUMNS = 1000
"""Beyond these, cells go into `_extra`: rows that each have keys of their own must not make a column each."""


class Type(Enum):
    """What a column's values are. LONG are integers that a float cannot hold; EMPTY is a list without items; VECTORS are arrays
    of 32-bit floats.
    """

    NULL = auto()
    BOOL = auto()
    INT = auto()
    LONG = auto()
    FLOAT = auto()
    TEXT = auto()
    EMPTY = auto()
    INTS = auto()
    FLOATS = auto()
    VECTORS = auto()
    TEXTS = auto()
    JSON = auto()


_WIDER = {
    frozenset({Type.INT, Type.LONG}): Type.LONG,
    frozenset({Type.INT, Type.FLOAT}): Type.FLOAT,
    frozenset({Type.EMPTY, Type.INTS}): Type.INTS,
    frozenset({Type.EMPTY, Type.FLOATS}): Type.FLOATS,
    frozenset({Type.EMPTY, Type.TEXTS}): Type.TEXTS,
    frozenset({Type.INTS, Type.FLOATS}): Type.FLOATS,
}


def type_of(value: Json) -> Type:
    """The narrowest type of one value."""
    if value is None:
        return Type.NULL
    if isinstance(value, bool):
        return Type.BOOL
    if isinstance(value, int):
        return _type_of_int(value)
    if isinstance(value, float):
        return Type.FLOAT
    if isinstance(value, str):
        return Type.TEXT
    if hasattr(value, "dtype"):
        return Type.VECTORS
    return _type_of_list(value) if isinstance(value, list) else Type.JSON


def _type_of_int(value: int) -> Type:
    if -_EXACT_IN_FLOAT <= value <= _EXACT_IN_FLOAT:
        return Type.INT
    return Type.LONG if -_INT64 <= value < _INT64 else Type.JSON


def _type_of_list(values: list[Json]) -> Type:
    if not values:
        return Type.EMPTY
    kinds = set(map(type, values))
    if kinds == {str}:
        return Type.TEXTS
    if not kinds <= {int, float}:
        return Type.JSON
    if int in kinds and any(type(value) is int and abs(value) > _EXACT_IN_FLOAT for value in values):
        return Type.JSON
    return Type.FLOATS if float in kinds else Type.INTS


def wider(one: Type, other: Type) -> Type:
    """The narrowest type that holds both."""
    if one is other or other is Type.NULL:
        return one
    if one is Type.NULL:
        return other
    return _WIDER.get(frozenset({one, other}), Type.JSON)


@dataclass(slots=True)
class Schema:
    """The types of the columns seen so far, in the order in which they came. Owned by one rebuild.

    `lengths` are those of the vectors.
    """

    types: dict[Slot, Type] = field(default_factory=dict)
    extra: bool = False
    lengths: set[int] = field(default_factory=set)

    def see(self, rows: Iterable[Cells]) -> bool:
        """Make room for rows. Says whether anything had to change."""
        changed = False
        for cells in rows:
            for slot, value in cells.items():
                known = self.types.get(slot)
                if known is None and len(self.types) >= MAX_COLUMNS and slot != WHOLE:
                    changed, self.extra = changed or not self.extra, True
                    continue
                needed = type_of(value) if known is None else wider(known, type_of(value))
                if needed is not known:
                    self.types[slot] = needed
                    changed = True
                if needed is Type.VECTORS and len(value) not in self.lengths:
                    self.lengths.add(len(value))
                    changed = True
        return changed

    def slots(self) -> tuple[Slot, ...]:
        """Columns as they stand in the file: the input's fields, then the output's, then `meta`'s."""
        rank = {part: place for place, part in enumerate(type(next(iter(self.types)).part))} if self.types else {}
        return tuple(sorted(self.types, key=lambda slot: rank[slot.part]))
