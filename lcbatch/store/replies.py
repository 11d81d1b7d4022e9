"""The answers of single calls, in an open store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable

from lcbatch import jsontext
from lcbatch.errors import LcbatchError
from lcbatch.records import Json, Reply, Row
from lcbatch.store import answers
from lcbatch.store.past import PastReplies, layout_name
from lcbatch.store.standing import Columns
from lcbatch.store.writer import Writer


def _nobody_waits() -> None:
    """For what is kept without anything being held until it is."""


class StoredReplies:
    """ports.Replies: what is asked for is read at once; what is kept is on its way to disk, and in the reserve once that is full.

    Rows from `first_new_row` on are new in this run.
    """

    def __init__(self, reader: sqlite3.Connection, writer: Writer, first_new_row: int) -> None:
        self.chain_fingerprint = b""
        self._reader = reader
        self._writer = writer
        self._first_new_row = first_new_row

    def reply(self, row: Row, key: bytes) -> Reply | None:
        """The stored reply. A row that is new in this run cannot have one, and costs no look-up."""
        if row.ref >= self._first_new_row:
            return None
        return answers.load_reply(self._reader, row.ref, key)

    def shared_reply(self, row: Row, key: bytes) -> tuple[Reply, bool] | None:
        """The stored reply that belongs to a request, and whether this row asked it."""
        return PastReplies(self._reader, self.chain_fingerprint).shared_reply(row, key)

    def keep_shared(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None] = _nobody_waits) -> None:
        """Put it on its way to disk."""
        self._keep(answers.shared_columns(row, key, reply), kept)

    def layout(self, row: Row) -> Json | None:
        """How the document of this id was cut last."""
        return PastReplies(self._reader, self.chain_fingerprint).layout(row)

    def keep_layout(self, row: Row, layout: Json) -> None:
        """Put it on its way to disk. Lost with a full disk, as it can be found again."""
        name, text = layout_name(self.chain_fingerprint, row), jsontext.dumps(layout)
        self._writer.post(lambda connection: answers.keep_layout(connection, name, text), lambda: ())

    def keep_reply(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None] = _nobody_waits) -> None:
        """Put a reply on its way to disk."""
        self._keep(answers.reply_columns(row, key, reply), kept)

    def _keep(self, columns: Columns, kept: Callable[[], None]) -> None:
        self._writer.post(
            lambda connection: answers.insert_reply(connection, columns),
            lambda: [answers.rescue_line("reply", columns)],
            kept,
        )

    async def all_kept(self) -> None:
        """Returns once all that is on its way is committed."""
        try:
            await self._writer.submit(lambda _: None)
        except LcbatchError:
            # The run is being stopped, and cuts off whoever waits here: a failed row would be one more that is not asked again.
            await asyncio.get_running_loop().create_future()
