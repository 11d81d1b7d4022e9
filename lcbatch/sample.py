"""The rows that a run would call: counted by why, and a sample of them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence, Set

from lcbatch.estimate import Measured
from lcbatch.records import Row
from lcbatch.store.reading import ANSWERED, FAILED

SAMPLE_ROWS = 1000
"""Their mean is within some 3 % of the input's where rows differ in length as prompts do."""

_SAMPLE_DOCUMENTS = 64
"""Reading one takes up to a tenth of a second."""

_SEED = 20_260_701


class Seen:
    """The rows to call: counted, and a sample of them kept whose every part of the input is as likely (Li, 1994, "L")."""

    def __init__(self, limit: int | None, ended: bytearray) -> None:
        self.first: Row | None = None
        self.sample: list[Row] = []
        self.to_call = self.beyond_limit = self.stale = self.again = self.unreadable = 0
        self.documents = self.document_bytes = 0
        self.new_documents: set[str] = set()
        """Ids of those that were never asked about as they are now."""
        self._limit = math.inf if limit is None else limit
        self._ended = ended
        self._chance = random.Random(_SEED)  # noqa: S311 - the same sample each time, no secret
        self._weight = 1.0
        self._next = SAMPLE_ROWS

    def see(self, row: Row) -> None:
        """Take up the next row that is to be called."""
        if self.to_call >= self._limit:
            self.beyond_limit += 1
            return
        ended = self._ended[row.ref] if row.ref < len(self._ended) else 0
        if ended & ANSWERED:
            self.stale += 1
        elif ended & FAILED:
            self.again += 1
        self.unreadable += row.failure is not None
        if row.document is not None and not ended & (ANSWERED | FAILED):
            self.new_documents.add(row.id)
        if row.document is not None:
            self.documents += 1
            self.document_bytes += row.document.size
        self._keep(row)
        self.to_call += 1

    def why(self, row: Row, changed: Set[str]) -> str:
        """Why a document is to be called: `changed` are the ids under which another version was answered."""
        ended = self._ended[row.ref] if row.ref < len(self._ended) else 0
        if ended & ANSWERED:
            return "stale"
        if ended & FAILED:
            return "failed before"
        return "changed" if row.id in changed else "new"

    def _keep(self, row: Row) -> None:
        if self.first is None and row.failure is None:
            self.first = row
        if len(self.sample) < SAMPLE_ROWS:
            self.sample.append(row)
        elif self.to_call == self._next:
            self.sample[self._chance.randrange(SAMPLE_ROWS)] = row
        else:
            return
        if len(self.sample) == SAMPLE_ROWS and self.to_call >= SAMPLE_ROWS - 1:
            self._weight *= math.exp(math.log(1 - self._chance.random()) / SAMPLE_ROWS)
            skipped = math.log(1 - self._chance.random()) / math.log1p(-self._weight)
            self._next = self.to_call + 1 + int(skipped)

    def to_measure(self) -> list[Row]:
        """The sample, fewer where there is a document to read for each."""
        if not self.documents or len(self.sample) <= _SAMPLE_DOCUMENTS:
            return self.sample
        return self._chance.sample(self.sample, _SAMPLE_DOCUMENTS)

    def scale(self, sample: Sequence[Measured]) -> float:
        """By how much all rows are longer than these: documents are weighed by their bytes."""
        sizes = [one.row.document.size for one in sample if one.row.document is not None]
        if not sizes or not sum(sizes) or self.documents < self.to_call:
            return 1.0
        return (self.document_bytes / self.documents) / (sum(sizes) / len(sizes))
