"""What the run store says of itself: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.errors import Failure, Kind
from lcbatch.records import Account, Json, Reply, Row
from lcbatch.store import answers, standing, sums
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


_ROW_ENDS = 1 + len(sums.ROW) + 1
_ANSWER_ENDS = _ROW_ENDS + len(sums.ANSWER) + 1


def answered_of(columns: standing.Columns) -> Answered:
    """What a row of `standing.answered_page` says. Raises OtherSum."""
    row, answer, reply = columns[1:_ROW_ENDS], columns[_ROW_ENDS:_ANSWER_ENDS], columns[_ANSWER_ENDS:]
    sums.verify(sums.ANSWER, answer, "the answer to row")
    _, _, _, done, key, kind, message, account, _, _, _ = answer
    return Answered(
        row=restored_row(row, row[0] - 1),
        failure=None if done else Failure(Kind(kind), jsontext.loads(message)),
        account=answers.account_of(account),
        reply=None if reply[0] is None else answers.reply_of(reply),
        reply_key=key,
    )
