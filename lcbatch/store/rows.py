"""A row as the store has it in its columns, and as it travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from lcbatch import jsontext
from lcbatch.errors import Failure, Kind
from lcbatch.ports import Keyed
from lcbatch.records import Document, Row
from lcbatch.store import sums


def row_columns(keyed: Keyed, row_id: int, equal_before: int, twin: int) -> tuple[Any, ...]:
    """The columns `sums.ROW` of an item and their sum, `fields` as UTF-8, to be cast to text.

    As text they would stand in memory twice more: as the str, and where that is no ASCII as the UTF-8 that goes to SQLite.
    """
    item = keyed.item
    document = None if item.document is None else jsontext.dumps(astuple(item.document))
    failure = None if item.failure is None else jsontext.dumps([item.failure.kind, item.failure.message])
    before = (row_id, keyed.content, equal_before, keyed.whole, item.id, item.place, document, failure)
    fields, after = jsontext.encoded(item.fields), (twin, keyed.sample)
    return (*before, fields, *after, sums.ROW.sum(*before, sums.entering(fields), *after))


def placed_row(keyed: Keyed, ref: int, equal_before: int, ordinal: int) -> Row:
    """The row of an item."""
    item = keyed.item
    return Row(
        ordinal=ordinal,
        key=row_key(keyed.content, equal_before),
        id=item.id if item.id is not None else str(ordinal + 1),
        fields=item.fields,
        place=item.place,
        ref=ref,
        document=item.document,
        failure=item.failure,
        sample=keyed.sample,
    )


def row_key(content: bytes, equal_before: int) -> bytes:
    """The identity of a row: what it says, and how many equal ones came before it."""
    return jsontext.digest(content, equal_before.to_bytes(8, "little"))


def restored_row(columns: Sequence[Any], ordinal: int) -> Row:
    """A row as it was placed, from the columns `sums.ROW` and its sum. Raises OtherSum."""
    sums.verify(sums.ROW, columns, "row")
    row_id, content, equal_before, _, label, place, document, failure, fields, _, sample, _ = columns
    kind, message = jsontext.loads(failure) if failure is not None else (None, "")
    return Row(
        ordinal=ordinal,
        key=row_key(content, equal_before),
        id=label if label is not None else str(ordinal + 1),
        fields=jsontext.loads(fields),
        place=place,
        ref=row_id,
        document=Document(*jsontext.loads(document)) if document is not None else None,
        failure=Failure(Kind(kind), message) if kind is not None else None,
        sample=sample,
    )
