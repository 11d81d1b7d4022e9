"""The records that travel: what goes in (Item, Row), what one model call is (Request, Reply), what comes out (Outcome).

All are frozen; the one mutable thing, RowScope, has one owner: the worker that runs its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lcbatch.errors import Failure

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict of them. Checked where it enters, not at every step."""

Fields: TypeAlias = Mapping[str, Json]
"""What a row carries, by name."""

RAW_FIELD = "_lcbatch_raw"
"""Field that holds an input line which could not be decoded, so that the errors file is valid input again."""

ERROR_FIELD = "_lcbatch_error"
"""Field that the errors file adds to a row; sources strip it."""


SAMPLE_FIELD = "sample"
"""Field that numbers the answers to one row, from 0, where more than one is asked for."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file whose text becomes the field `text` when its row is run; the text itself is never kept.

    `path` is where it lies (absolute), `digest` the BLAKE2b-128 of its bytes, `size` in bytes, `encoding` that of text
    files, `loader` an optional `module:Class` of a LangChain document loader.
    """

    path: str
    digest: str
    size: int
    encoding: str = "utf-8"
    loader: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One unit of input as its source found it, before it has a place and an identity.

    `place` says where for messages (`people.csv:12`); `id` is the user's label, None where the input has none;
    `failure` is set on an item that could not be read, which then becomes a failed row.
    """

    fields: Fields
    place: str
    id: str | None = None
    document: Document | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One unit of input with its identity.

    `ordinal` counts from 0 over the whole input, each sample of an item by itself; `key` is 16 bytes, the hash of (the fields
    that the chain uses, `sample`, how many equal ones came before); `ref` is the run store's own handle and means nothing
    elsewhere.
    """

    ordinal: int
    key: bytes
    id: str
    fields: Fields
    place: str
    ref: int
    document: Document | None = None
    failure: Failure | None = None
    sample: int = 0


_MOST_TOKENS = 10**12
"""More than any call takes, and few enough that a store adds up all of them."""


def _count(told: object) -> int:
    if isinstance(told, float) and told.is_integer():
        told = int(told)
    return told if type(told) is int and 0 <= told <= _MOST_TOKENS else 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more calls, as the provider counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def told(cls, prompt: object, completion: object = 0) -> Usage:
        """What an answer says of itself, where it is a count at all: a negative one would give money back to the cap."""
        return cls(_count(prompt), _count(completion))

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One model call to make. `messages` and `params` are plain JSON; `native` is what its maker wants back unchanged.

    `step` names the part of the chain that asks (`map`, `reduce`, a node's name), for the figures by step; it decides nothing.
    A reply to a `shared` one belongs to the request: any row of the same chain that asks the same gets it, also when the row that
    asked first has been edited since.
    """

    messages: list[Json]
    params: Mapping[str, Json] = field(default_factory=dict)
    native: Any = None
    step: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, as plain JSON: `message` is the whole assistant message, `text` its text alone.

    `model` is what the provider calls itself, "" where it does not say. `native` is LangChain's own message, where there is one.
    """

    text: str
    message: Mapping[str, Json]
    model: str
    finish_reason: str | None
    usage: Usage
    native: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One model call's answer, as plain JSON.

    `message` is the whole assistant message; `text` its text alone. `cost_usd` is None where no price is known.
    `latency_s` is that of the attempt which succeeded; `attempts` counts every request sent for this call.
    """

    text: str
    message: Mapping[str, Json]
    model: str
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    latency_s: float = 0.0
    attempts: int = 1
    native: Any = None


@dataclass(frozen=True, slots=True)
class Account:
    """What a row took: calls made and answered from the store, tokens, US dollars (None: unknown), seconds."""

    model: str = ""
    calls: int = 0
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    latency_s: float = 0.0
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A row that was answered.

    `reply_key` names the stored reply whose text is `output`, so that it is kept once; `made_of` the last reply of a row whose
    output is something else, from which it may be parsed again.
    """

    row: Row
    output: Json
    account: Account = field(default_factory=Account)
    reply_key: bytes | None = None
    made_of: bytes | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that was not answered, and why. `made_of` names the last reply that it had all the same."""

    row: Row
    failure: Failure
    account: Account = field(default_factory=Account)
    made_of: bytes | None = None


Outcome: TypeAlias = Done | Failed


@dataclass(slots=True, eq=False)
class RowScope:
    """What is known of the row being run: whose it is, and what its calls took so far. Owned by the row's worker.

    `calls_out` of its calls have not returned; `when_call_ends` is told of the next that does; `unkept` of its replies are not
    committed yet; `cut_off` says that the run gave the row up because it stops, `ended` that the chain has returned or failed.
    """

    row: Row
    started_s: float
    occurrences: dict[bytes, int] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    last_reply: tuple[bytes, str] | None = None
    calls_out: int = 0
    unkept: int = 0
    when_call_ends: Callable[[], None] | None = None
    cut_off: bool = False
    ended: bool = False

    def occurrence(self, request_digest: bytes) -> int:
        """How many equal requests this row made before; counts this one."""
        seen = self.occurrences.get(request_digest, 0)
        self.occurrences[request_digest] = seen + 1
        return seen

    def call_ended(self) -> None:
        """One of the row's calls is over, whatever came of it."""
        self.calls_out -= 1
        if self.when_call_ends is not None:
            self.when_call_ends()

    def charge(self, reply: Reply, reply_key: bytes | None) -> None:
        """Add one answered call; `reply_key` under which the row itself has the reply, None where it is shared."""
        so_far = self.account
        known = so_far.cost_usd is not None and reply.cost_usd is not None
        self.account = Account(
            model=reply.model,
            calls=so_far.calls + 1,
            attempts=so_far.attempts + reply.attempts,
            usage=so_far.usage + reply.usage,
            cost_usd=(so_far.cost_usd or 0.0) + (reply.cost_usd or 0.0) if known else None,
            latency_s=so_far.latency_s,
            finish_reason=reply.finish_reason,
        )
        self.last_reply = (reply_key, reply.text) if reply_key is not None else None


current_row: ContextVar[RowScope] = ContextVar("lcbatch_current_row")
"""Which row a call belongs to: set by the executor, read by the `stored` layer, and by whoever may cut off those that wait."""

current_step: ContextVar[str] = ContextVar("lcbatch_current_step", default="")
"""The named part of a user's own chain that is running, "" outside of any: what the calls it makes say as Request's `step`."""

answer_came: ContextVar[Callable[[], None]] = ContextVar("lcbatch_answer_came", default=lambda: None)
"""To be called by who has an answer's whole body and needs time to understand it: the attempt's timeout counts no further, since
an answer that is there is paid."""
