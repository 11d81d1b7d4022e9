"""The stored replies as somebody reads them who will add none: for a dry run, which has to know what is paid for already."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.records import Json, Reply, Row
from lcbatch.store import answers


def fingerprint_of(identity: Mapping[str, Json]) -> bytes:
    """The hash of a chain's identity, as the store has it."""
    return jsontext.digest(jsontext.canonical(identity))


def layout_name(chain_fingerprint: bytes, row: Row) -> str:
    """Under which name the store keeps how a document was cut."""
    return f"layout {jsontext.digest(chain_fingerprint, row.id.encode('utf-8', 'surrogatepass')).hex()}"


@dataclass(frozen=True, slots=True)
class PastReplies:
    """ports.Replies over a connection that only reads. What is to be kept is forgotten."""

    connection: sqlite3.Connection
    chain_fingerprint: bytes

    def reply(self, row: Row, key: bytes) -> Reply | None:
        return answers.load_reply(self.connection, row.ref, key)

    def keep_reply(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:  # noqa: ARG002
        """Nothing is kept."""
        kept()

    def shared_reply(self, row: Row, key: bytes) -> tuple[Reply, bool] | None:
        found = answers.load_shared(self.connection, key)
        return None if found is None else (found[0], found[1] == row.ref)

    def keep_shared(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:  # noqa: ARG002
        """Nothing is kept."""
        kept()

    async def all_kept(self) -> None:
        """There is nothing to wait for."""

    def layout(self, row: Row) -> Json | None:
        return answers.load_layout(self.connection, layout_name(self.chain_fingerprint, row))

    def keep_layout(self, row: Row, layout: Json) -> None:
        """Nothing is noted."""
