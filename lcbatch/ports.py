"""Every interface between rooms, on one page. One method each where that can be.

A room implements what stands here and never imports another room; `wiring.py` and `app.py` put them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeAlias

from lcbatch.events import Event
from lcbatch.records import Answer, Document, Fields, Item, Json, Outcome, Reply, Request, Row, Usage

Clock: TypeAlias = Callable[[], float]
"""Seconds on a monotonic clock."""

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

Within: TypeAlias = Callable[[float], AbstractAsyncContextManager[asyncio.Timeout]]
"""Bounds a block to so many seconds: TimeoutError out of it when they are over, as `asyncio.timeout` does."""

Wait: TypeAlias = Callable[[Awaitable[Any]], Awaitable[None]]
"""Waits for something that costs nothing to give up (a turn, a pause): cancelled when the run is to stop."""

Emit: TypeAlias = Callable[[Event], None]

Price: TypeAlias = Callable[[str, Usage], float | None]
"""US dollars for the tokens of one call to a model, None where the price is unknown."""


class Observer(Protocol):
    """Is told what happens. Returns nothing, must not block; one that raises is dropped after one notice."""

    def on_event(self, event: Event) -> None: ...


class Source(Protocol):
    """The input. `batches` yields items as they become available, never more than a few hundred at once.

    `rereadable` says that reading it a second time gives the same items (files do, a pipe does not). Cancelling the
    iteration closes what it has open.
    """

    @property
    def rereadable(self) -> bool: ...

    @property
    def passed_over(self) -> int: ...

    def batches(self) -> AsyncGenerator[list[Item]]: ...


class DocumentReader(Protocol):
    """Turns a document's file into text. What cannot be read comes as CallFailed with the row's verdict."""

    async def __call__(self, document: Document) -> str: ...


class Call(Protocol):
    """One model call. Raises CallFailed with its verdict, and nothing else that is the provider's doing."""

    async def __call__(self, request: Request) -> Reply: ...


Ask: TypeAlias = Callable[[Request], Awaitable[Answer]]
"""Puts a request to a model. What is wrong with the request itself is raised before there is anything to await."""

Layer: TypeAlias = Callable[[Call], Call]


class Chain(Protocol):
    """Turns a row's fields into an output.

    `uses` names the fields that decide the answer (None: all of them); `identity` is plain JSON that changes exactly when
    the answers may. A text that is one reply's own is returned as it came, so that it is stored once.
    """

    @property
    def uses(self) -> frozenset[str] | None: ...

    @property
    def identity(self) -> Mapping[str, Json]: ...

    def missing(self, fields: Fields) -> str | None:
        """The name of a field that the chain needs and `fields` lack, None when it could run."""
        ...

    async def __call__(self, fields: Fields) -> Json: ...


Work: TypeAlias = Callable[[Row], Awaitable[Outcome]]
"""Runs one row to its outcome. Raises only what must end the run."""


class Executor(Protocol):
    """Runs `work` over rows, bounded.

    Entering gives an iterator over groups of outcomes, in the order in which they finish. `drain` begins no more rows,
    `cancel` cuts off those in flight (they stay without outcome); both may be called at any time, again and again.
    """

    def run(
        self, rows: AsyncIterator[Row], work: Work
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Outcome]]]: ...

    def drain(self) -> None: ...

    def cancel(self) -> None: ...


class State(Enum):
    """How a row stands when it is placed."""

    ANSWERED = "answered"
    FAILED_BEFORE = "failed_before"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Keyed:
    """An item with its identities: `content` over the fields that the chain uses, `whole` over all of them (16 bytes each).

    With --samples an item is several of these, counted from 0, and `content` is over `sample` too.
    """

    item: Item
    content: bytes
    whole: bytes
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """A row in its place. `row` is None unless it is to be run: a pending one without it waits for an equal row's answer."""

    state: State
    row: Row | None


class Replies(Protocol):
    """The stored answers of single calls, for the `stored` layer. `chain_fingerprint` is that of the chain that runs."""

    @property
    def chain_fingerprint(self) -> bytes: ...

    def reply(self, row: Row, key: bytes) -> Reply | None:
        """The stored reply, or None."""
        ...

    def keep_reply(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:
        """Put a reply on its way to disk, before any outcome that is put later. `kept` is called once it is committed."""
        ...

    def shared_reply(self, row: Row, key: bytes) -> tuple[Reply, bool] | None:
        """The stored reply that belongs to a request, whichever row asked, and whether it was this one."""
        ...

    def keep_shared(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:
        """As `keep_reply`, for the request and not for the row that asked it."""
        ...

    async def all_kept(self) -> None:
        """Returns once all that is on its way is committed. Never, where it cannot be: the run is being stopped then."""
        ...

    def layout(self, row: Row) -> Json | None:
        """What was noted of the document of this id, in whatever version."""
        ...

    def keep_layout(self, row: Row, layout: Json) -> None:
        """Note how a document was cut, before any reply that is kept later. Does not wait."""
        ...


class Layouts(Protocol):
    """How the document of the current row was cut in an earlier run, so that an edited one is cut alike."""

    def recall(self) -> Json | None:
        """What was noted last, None where nothing was."""
        ...

    def note(self, layout: Json) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What a sink is given of one row that stands in the output. `fields` and `output` are JSON text.

    `id` is the user's label, else a name that no other row has; `sample` counts the answers to one item of the input; `twin`
    tells rows of one id and sample apart: 0 is the first of them.
    `answer` is what the model said last to a row that failed, None where it said nothing.
    """

    seq: int
    ordinal: int
    id: str
    place: str
    fields: str
    is_document: bool
    output: str | None
    kind: str | None = None
    message: str | None = None
    meta: Mapping[str, Json] = field(default_factory=dict)
    twin: int = 0
    answer: str | None = None
    sample: int = 0

    @property
    def name(self) -> Name:
        """What the row's own file is called by."""
        return Name(sample_name(self.id, self.sample), self.twin)


def sample_name(row_id: str, sample: int) -> str:
    """What a sample of a row is called by. The first has the row's own name, so that asking for more renames none."""
    return f"{row_id}.sample-{sample}" if sample else row_id


class Name(NamedTuple):
    """What a row's own file is called by: its id with the mark of its sample, and which it is of those called so."""

    id: str
    twin: int = 0


class Order(Enum):
    """In which order a projection shows rows: as they finished, or as they stand in the input."""

    FINISHED = "finished"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class View:
    """Which rows a projection shows, and in which order."""

    name: str
    order: Order
    done: bool
    failed: bool


SETTLED = "settled"
"""Set in the state that the store keeps of an output once its run has finished it: from then on any difference is an edit."""


class Sink(Protocol):
    """A projection of the run store into a file, a folder or a pipe. Called from one thread, never concurrently.

    `state` is plain JSON that the store keeps between runs: what the sink needs to find its position again.
    """

    view: View

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:
        """Take up the output where `state` says (None: there is none yet), cutting off what came after.

        `clean` says that the last run finished this output, so that any difference is somebody's edit. False as answer:
        the output is not what the state says and has to be rebuilt.
        """
        ...

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries in the view's order. On return they are handed to the system, not yet synced."""
        ...

    def sync(self) -> Mapping[str, Json]:
        """Make all appended entries safe from power loss; the state to keep."""
        ...

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        """Replace the whole output in one step and sync it; the state to keep. An error leaves the old output."""
        ...

    def discard(self, names: Sequence[Name]) -> None:
        """Rows of these names leave the output. A sink of one file waits for its rebuild instead."""
        ...

    def abort(self) -> None:
        """End a wait for somebody else, as for the reader of a pipe: the call that waits, and each that would, raises.

        The one method that may be called from any thread, at any time and again.
        """
        ...

    def close(self) -> None: ...


class Projectable(Protocol):
    """What the projector needs of the run store. `entries` may be called from the projector's own thread."""

    def entries(self, view: View, after: int) -> Iterator[list[Entry]]:
        """Groups of entries after a position: a `seq`, or for input order the number of ordinals already shown.

        Input order ends at the first row that does not stand yet.
        """
        ...

    def all_entries(self, view: View) -> Iterator[Entry]:
        """Every entry that stands, for a rebuild; rows that do not stand yet are left out."""
        ...

    def has_unplaced(self) -> bool:
        """Whether rows stand that are not in the input any more. Input order shows them in a rebuild alone, last."""
        ...
