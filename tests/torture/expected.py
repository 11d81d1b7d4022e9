"""What must be so after any runs, deaths and edits: who is called, what stands. Held against the store by test_model.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lcbatch.errors import TRANSIENT, Kind

Key: TypeAlias = tuple[str, int, int]
"""A row's text, how many equal rows came before it, and the sample's number."""

KINDS = frozenset(map(str, Kind))


@dataclass(frozen=True)
class Row:
    """A row of the input: `text` alone decides its answer."""

    text: str
    note: int


@dataclass
class Model:
    """What must be so. `known` are outcomes by row and prompt, as the store has them; `accepts` whose answers count for whom."""

    known: dict[Key, dict[str, str]] = field(default_factory=dict)
    standing: dict[Key, str] = field(default_factory=dict)
    accepts: dict[str, set[str]] = field(default_factory=dict)
    prompt: str | None = None
    billed: dict[str, str] = field(default_factory=dict)
    billed_runs: int = 0

    def adopt(self, prompt: str, *, keep: bool) -> None:
        accepted = self.accepts.setdefault(prompt, {prompt})
        if keep and self.prompt not in {None, prompt}:
            accepted |= self.accepts[str(self.prompt)]
        self.prompt = prompt

    def outcomes(self, key: Key) -> list[str]:
        """What counts for a row under the prompt of now."""
        known = self.known.get(key, {})
        return [known[prompt] for prompt in self.accepts[str(self.prompt)] if prompt in known]

    def answered(self, key: Key) -> bool:
        return any(outcome not in KINDS for outcome in self.outcomes(key))

    def failed(self, key: Key) -> bool:
        """Whether what stands for a row is a failure. One that was to be asked anew, and was not yet, stands as it did."""
        if self.outcomes(key):
            return not self.answered(key)
        return self.known[key][self.standing[key]] in KINDS

    def open(self, key: Key) -> bool:
        """Whether a plain run asks for it."""
        outcomes = self.outcomes(key)
        return not self.answered(key) and all(outcome in TRANSIENT for outcome in outcomes)

    def to_call(self, wanted: Sequence[Key], *, dedupe: bool) -> Counter[str]:
        """The texts that a run has to call, so often each."""
        if not dedupe:
            return Counter(key[0] for key in wanted if self.open(key))
        groups = {(text, 0, sample) for text, _, sample in wanted}
        return Counter(key[0] for key in groups if self.open(key) and not self.equal_answers(key))

    def to_retry(self, *, dedupe: bool) -> Counter[str]:
        failed = [key for key in self.standing if self.outcomes(key) and not self.answered(key)]
        if not dedupe:
            return Counter(key[0] for key in failed)
        groups = {(text, 0, sample) for text, _, sample in failed}
        return Counter(key[0] for key in groups if not self.equal_answers(key))

    def equal_answers(self, key: Key) -> set[str]:
        """Answers that rows equal to it have."""
        equal = [other for other in self.known if (other[0], other[2]) == (key[0], key[2])]
        return {outcome for other in equal for outcome in self.outcomes(other) if outcome not in KINDS}


def keys_of(rows: Sequence[Row], samples: int) -> list[Key]:
    seen: Counter[str] = Counter()
    keys = []
    for row in rows:
        keys += [(row.text, seen[row.text], sample) for sample in range(samples)]
        seen[row.text] += 1
    return keys
