"""What tests are made of: a scripted call, small fakes of the ports, and the contracts that every implementation passes.

call = ScriptedCall(["first answer", Failure(Kind.SERVER, "503")], then="all later ones")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from lcbatch.errors import CallFailed, Failure, InputDamaged
from lcbatch.events import Event
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Emit, Executor
from lcbatch.records import Done, Fields, Item, Json, Outcome, Reply, Request, Row

__all__ = [
    "Answer",
    "Events",
    "FakeChain",
    "ListSource",
    "MemoryReplies",
    "ScriptedCall",
    "check_executor",
    "error_leaves",
    "make_row",
    "rows_of",
    "run_virtual",
]

E = TypeVar("E")

Answer: TypeAlias = str | Reply | Failure | Exception
"""What a scripted call does once: answer, fail with a verdict, or raise."""


@dataclass
class ScriptedCall:
    """ports.Call that gives one answer of its script a call, and `then` for ever after.

    `requests` are those it was asked, in order. Each answer takes `latency_s` on the loop's clock. Without `then` a call
    beyond the script is a mistake of the test.
    """

    script: Sequence[Answer] = ()
    then: Answer | None = None
    latency_s: float = 0.0
    requests: list[Request] = field(default_factory=list)

    async def __call__(self, request: Request) -> Reply:
        at = len(self.requests)
        self.requests.append(request)
        answer = self.script[at] if at < len(self.script) else self.then
        if answer is None:
            raise AssertionError(f"call {at + 1} is beyond the script")
        await asyncio.sleep(self.latency_s)
        if isinstance(answer, Failure):
            raise CallFailed(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Reply) else text_reply(answer)


def text_reply(text: str, model: str = "scripted") -> Reply:
    """A reply that is text alone."""
    return Reply(text=text, message={"role": "assistant", "content": text}, model=model)


@dataclass
class MemoryReplies:
    """ports.Replies over a dict."""

    chain_fingerprint: bytes = b"chain"
    kept: dict[tuple[int, bytes], Reply] = field(default_factory=dict)
    shared: dict[bytes, tuple[int, Reply]] = field(default_factory=dict)
    layouts: dict[str, Json] = field(default_factory=dict)

    def reply(self, row: Row, key: bytes) -> Reply | None:
        return self.kept.get((row.ref, key))

    def keep_reply(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:
        self.kept[row.ref, key] = reply
        kept()

    def shared_reply(self, row: Row, key: bytes) -> tuple[Reply, bool] | None:
        found = self.shared.get(key)
        return None if found is None else (found[1], found[0] == row.ref)

    def keep_shared(self, row: Row, key: bytes, reply: Reply, kept: Callable[[], None]) -> None:
        self.shared[key] = (row.ref, reply)
        kept()

    async def all_kept(self) -> None:
        """It is, at once."""

    def layout(self, row: Row) -> Json | None:
        return self.layouts.get(row.id)

    def keep_layout(self, row: Row, layout: Json) -> None:
        self.layouts[row.id] = layout


@dataclass
class ListSource:
    """ports.Source over a list, `size` items a batch. With `waits` it never ends, as a pipe whose writer is idle; `damaged` is
    raised behind the last item.
    """

    items: Sequence[Item]
    size: int = 100
    rereadable: bool = True
    passed_over: int = 0
    waits: bool = False
    damaged: InputDamaged | None = None

    async def batches(self) -> AsyncGenerator[list[Item]]:
        for start in range(0, len(self.items), self.size):
            yield list(self.items[start : start + self.size])
        if self.damaged is not None:
            raise self.damaged
        if self.waits:
            await asyncio.get_running_loop().create_future()


@dataclass
class FakeChain:
    """ports.Chain that needs the fields which it uses, and answers what `answer` makes of them."""

    uses: frozenset[str] | None = frozenset({"text"})
    identity: Mapping[str, Json] = field(default_factory=lambda: {"prompt": "first"})
    answer: Callable[[Fields], Json] = lambda fields: {"got": dict(fields)}

    def missing(self, fields: Fields) -> str | None:
        return next((name for name in sorted(self.uses or ()) if name not in fields), None)

    async def __call__(self, fields: Fields) -> Json:
        return self.answer(fields)


class Events(list[Event]):
    """Everything that was emitted; the list itself is the Emit."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Those of one kind, in order."""
        return [event for event in self if isinstance(event, kind)]


def make_row(ordinal: int, fields: Fields | None = None, failure: Failure | None = None) -> Row:
    """A row as if it had been placed."""
    given = fields if fields is not None else {"text": f"row {ordinal}"}
    name = str(ordinal + 1)
    return Row(ordinal, ordinal.to_bytes(16, "big"), name, given, f"in.jsonl:{name}", ordinal + 1, failure=failure)


async def rows_of(source: int | Iterable[Row]) -> AsyncGenerator[Row]:
    """Rows one by one: those given, or so many made ones."""
    for row in map(make_row, range(source)) if isinstance(source, int) else source:
        yield row


def error_leaves(error: BaseException) -> list[BaseException]:
    """The exceptions that task groups wrapped."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in error_leaves(inner)]
    return [error]


async def check_executor(make: Callable[[int, Emit], Executor]) -> None:
    """The contract of ports.Executor; `make` gives a new one for a window. Takes a few seconds of the loop's clock."""
    await _each_row_ends_once(make(3, Events()))
    await _drained_begins_no_more(make(3, Events()))
    await _cancelled_leaves_rows_without_outcome(make(3, Events()))


async def _answered(row: Row) -> Outcome:
    await asyncio.sleep(0.001)
    return Done(row, row.ordinal)


async def _outcomes(executor: Executor, count: int, then: Callable[[], None] = lambda: None) -> list[int]:
    """Run so many rows and give the ordinals that ended; `then` is called after the first group."""
    ended: list[int] = []
    async with executor.run(rows_of(count), _answered) as groups:
        async for group in groups:
            ended += [outcome.row.ordinal for outcome in group]
            then()
    return ended


async def _each_row_ends_once(executor: Executor) -> None:
    assert sorted(await _outcomes(executor, 20)) == list(range(20))


async def _drained_begins_no_more(executor: Executor) -> None:
    ended = await _outcomes(executor, 20, executor.drain)
    assert len(ended) == len(set(ended))
    assert 1 <= len(ended) <= 1 + 2 * 3, "what was in flight ends, nothing else begins"


async def _cancelled_leaves_rows_without_outcome(executor: Executor) -> None:
    ended = await _outcomes(executor, 20, executor.cancel)
    assert len(ended) == len(set(ended))
    assert len(ended) <= 2 * 3
