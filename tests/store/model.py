"""What the run store promises, said in the simplest way: dicts in memory that the machine of test_machine.py compares with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lcbatch import jsontext
from lcbatch.errors import TRANSIENT, Kind
from lcbatch.ports import Entry, State, View

Key: TypeAlias = tuple[str, int]
"""A row's text, and how many equal ones came before it."""

KINDS: frozenset[str] = frozenset(map(str, Kind))

Line: TypeAlias = tuple[str, int, str]
"""What an output shows of a row: text, note, the answer or the kind of the failure."""


@dataclass(frozen=True)
class Item:
    """A row of the input: `text` alone decides its answer."""

    text: str
    note: int = 0
    id: str | None = None


def keys_of(items: Iterable[Item]) -> list[Key]:
    seen: Counter[str] = Counter()
    keys = []
    for item in items:
        keys.append((item.text, seen[item.text]))
        seen[item.text] += 1
    return keys


def line_of(entry: Entry) -> Line:
    fields = jsontext.loads(entry.fields)
    said = entry.kind if entry.output is None else jsontext.loads(entry.output)
    return fields["text"], fields["note"], str(said)


@dataclass
class Model:
    """What must be so: the answers ever given, those that stand, and the input as it was read last.

    `standing` has chain and answer; `again` are rows that the run under way asks for something better; `edited` says which
    row has taken a standing one's place in the input.
    """

    chain: str | None = None
    accepts: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[Key, dict[str, str]] = field(default_factory=dict)
    standing: dict[Key, tuple[str, str]] = field(default_factory=dict)
    again: set[Key] = field(default_factory=set)
    edited: dict[Key, Key] = field(default_factory=dict)
    items: dict[Key, Item] = field(default_factory=dict)
    places: list[Key] = field(default_factory=list)
    cut: list[Key] = field(default_factory=list)
    reading: list[Key] = field(default_factory=list)
    differs_at: int | None = None
    was_cut: bool = False

    def adopt(self, chain: str, *, keep: bool) -> None:
        accepted = self.accepts.setdefault(chain, [chain])
        if self.chain is not None and self.chain != chain:
            if keep:
                accepted += [one for one in self.accepts[self.chain] if one not in accepted]
            else:
                self.again = set(self.standing)
        self.chain = chain

    # --- the input

    def begin_reading(self) -> None:
        self.reading, self.differs_at, self.was_cut = [], 0 if self.cut else None, True

    def place(self, key: Key, item: Item) -> State:
        at = len(self.reading)
        known = self.items.get(key)
        same = at < len(self.places) and self.places[at] == key and known is not None and known.id == item.id
        if self.differs_at is None and not same:
            self.differs_at = at
        self.reading.append(key)
        self.items[key] = item
        self.edited.pop(key, None)
        if key in self.standing and self.standing[key][0] not in self._accepted:
            self.again.add(key)
        self._recall(key)
        if not self.shown(key):
            return State.PENDING
        answer = self.standing[key][1]
        if answer in TRANSIENT:
            self.again.add(key)
            return State.PENDING
        return State.FAILED_BEFORE if answer in KINDS else State.ANSWERED

    def _recall(self, key: Key) -> None:
        """An answer before a failure, the chain's own before another's, the latest before an earlier one."""
        known = [(chain, answer) for chain, answer in self.answers.get(key, {}).items() if chain in self._accepted]
        ranked = [(answer not in KINDS, chain == self.chain, at) for at, (chain, answer) in enumerate(known)]
        if not ranked:
            return
        best = known[max(ranked)[2]]
        if not self.shown(key) or (self.standing[key][1] in KINDS and best[1] not in KINDS):
            self.standing[key] = best
            self.again.discard(key)

    def end_reading(self, *, drop: bool) -> None:
        """The input was read to its end. What is gone from it leaves; what was edited, once its successor stands."""
        gone = [key for key in self.items if key in self.standing and key not in self.reading]
        pairs = {key: self.edited[key] for key in gone if self.edited.get(key) in self.reading}
        fresh = [key for key in self.reading if key not in self.places and key not in pairs.values()]
        for key in gone:
            label = self.items[key].id
            successor = next((new for new in fresh if label is not None and self.items[new].id == label), None)
            if key not in pairs and successor is not None:
                pairs[key] = successor
                fresh.remove(successor)
        for key in gone:
            if drop and key not in pairs:
                self.leave(key)
        self.edited = pairs
        self.again |= set(pairs)
        self.places, self.cut, self.was_cut = self.reading, [], False

    def cut_reading(self) -> None:
        """What was read beyond the input's old end has its place; another input than before counts only when it has ended."""
        self.cut = []
        if self.differs_at is None or self.differs_at == len(self.places):
            self.places = max(self.places, self.reading, key=len)
        else:
            self.cut = self.reading

    # --- answers

    def put(self, key: Key, chain: str, answer: str) -> None:
        known = self.answers.setdefault(key, {})
        if not (answer in KINDS and known.get(chain, answer) not in KINDS):
            known.pop(chain, None)
            known[chain] = answer
        self.standing[key] = chain, known[chain]
        self.again.discard(key)

    def retried(self, kinds: frozenset[Kind] | None) -> list[Key]:
        """Rows that stand failed, which a retry takes up."""
        chosen = [
            key
            for key, (_, answer) in self.standing.items()
            if answer in KINDS and key not in self.edited and (kinds is None or answer in kinds)
        ]
        self.again |= set(chosen)
        return chosen

    def settle(self) -> None:
        """The run has ended, or was killed."""
        for key, successor in list(self.edited.items()):
            if self.shown(successor):
                self.leave(key)
        self.again.clear()

    def leave(self, key: Key) -> None:
        self.standing.pop(key, None)
        self.again.discard(key)
        self.edited.pop(key, None)

    # --- what is shown

    def shown(self, key: Key) -> bool:
        return key in self.standing and key not in self.again

    def lines(self, view: View) -> Counter[Line]:
        return Counter(self.line(key) for key in self.standing if self._in(view, key))

    def lines_in_order(self, view: View) -> list[Line]:
        return [self.line(key) for key in self.places if self._in(view, key)]

    def line(self, key: Key) -> Line:
        return key[0], self.items[key].note, self.standing[key][1]

    def to_run(self) -> list[int]:
        return [at for at, key in enumerate(self.places) if not self.shown(key)]

    def files(self) -> dict[str, Line]:
        """Of each id the answer of its first row in the input, which has the name to itself."""
        first: dict[str, Key] = {}
        for key in self.places:
            label = self.items[key].id
            if label is not None:
                first.setdefault(label, key)
        return {
            label: self.line(key)
            for label, key in first.items()
            if self.shown(key) and self.standing[key][1] not in KINDS
        }

    def _in(self, view: View, key: Key) -> bool:
        return self.shown(key) and (view.failed if self.standing[key][1] in KINDS else view.done)

    @property
    def _accepted(self) -> Sequence[str]:
        assert self.chain is not None
        return self.accepts[self.chain]
