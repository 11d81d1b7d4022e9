"""What the run store says of itself: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.errors import Failure, Kind
from lcbatch.records import Account, Json, Reply, Row
from lcbatch.store import answers, standing
from lcbatch.store.rows import restored_row


@dataclass(frozen=True, slots=True)
class Lineage:
    """The chain that a run comes with, against the one the output was made with (None: no run before)."""

    chain_id: int
    fingerprint: bytes
    previous: Mapping[str, Json] | None
    same: bool
    answered: int


@dataclass(frozen=True, slots=True)
class ProjectionState:
    """What was kept of a projection: its position, its sink's own state, and whether it has to be rebuilt."""

    position: int
    state: Mapping[str, Json] | None
    stale: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """What stands for a row: its failure (None: it is done), and the last reply that it had, if it is known."""

    row: Row
    failure: Failure | None
    account: Account
    reply: Reply | None
    reply_key: bytes | None


@dataclass(frozen=True, slots=True)
class Requeued:
    """Failed rows that were taken up again; `answered` of them by an equal row's answer, without a call."""

    rows: int
    answered: int


@dataclass(frozen=True, slots=True)
class Spent:
    """US dollars and tokens, over all runs of an output."""

    usd: float
    tokens: int


def answered_of(columns: standing.Columns) -> Answered:
    """What a row of `standing.answered_page` says."""
    _, done, kind, message, account, key, body, text, cost_usd, *row = columns
    return Answered(
        row=restored_row(row),
        failure=None if done else Failure(Kind(kind), jsontext.loads(message)),
        account=answers.account_of(account),
        reply=None if body is None else answers.reply_of(body, text, cost_usd),
        reply_key=key,
    )
