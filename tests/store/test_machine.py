"""The store and its outputs against a model in dicts: any sequence of runs, edits, crashes and retries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from lcbatch.errors import Failure, Kind
from lcbatch.ports import Keyed, Order, Placed, Sink, View
from lcbatch.records import Done, Failed, Json, Outcome, Row
from lcbatch.sinks import Projector
from lcbatch.store.opened import open_store
from lcbatch.store.rows import row_key
from lcbatch.store.run_store import RunStore

from .model import KINDS, Item, Key, Model, keys_of, line_of
from .outputs import Files, Output
from .support import crash_image, dump, fast_folder, keyed, states_of


@dataclass(frozen=True)
class Session:
    """What one run is: `ends` says after how many answers it stops, and `crashes` that it does so by kill -9."""

    chain: str
    keep: bool
    streamed: bool
    batch: int
    answers: Sequence[str]
    ends: int
    crashes: bool
    drop: bool


_SESSIONS = st.builds(
    Session,
    chain=st.sampled_from([*["first"] * 6, "second"]),
    keep=st.booleans(),
    streamed=st.booleans(),
    batch=st.integers(1, 4),
    answers=st.lists(st.sampled_from(["yes", "yes", Kind.TIMEOUT, Kind.PARSE]), min_size=1, max_size=5),
    ends=st.sampled_from([*[100] * 6, 0, 1, 3]),
    crashes=st.sampled_from([False, False, False, True]),
    drop=st.sampled_from([True, True, True, False]),
)


Edit: TypeAlias = Callable[[list[Item]], None]


def _adding(at: int, item: Item) -> Edit:
    return lambda rows: rows.insert(at, item)


def _appending(items: Iterable[Item]) -> Edit:
    return lambda rows: rows.extend(items)


def _removing(start: int, stop: int) -> Edit:
    return lambda rows: rows.__delitem__(slice(start, stop))


def _changing(at: int, **changes: Json) -> Edit:
    """A row is edited, or a column of it that passes through, or its id."""
    return lambda rows: rows.__setitem__(slice(at, at + 1), [replace(row, **changes) for row in rows[at : at + 1]])


_AT = st.integers(0, 6)
_TEXTS = st.sampled_from("abcdef")
_IDS = st.sampled_from([None, "x", "y", "z"])
_ITEMS = st.builds(Item, _TEXTS, st.just(0), _IDS)
_EDITS = st.lists(
    st.one_of(
        st.builds(_appending, st.lists(_ITEMS, min_size=1, max_size=3)),
        st.builds(lambda at, note: _changing(at, note=note), _AT, st.integers(1, 3)),
        st.builds(lambda at, text: _changing(at, text=text), _AT, _TEXTS),
        st.builds(lambda at, label: _changing(at, id=label), _AT, _IDS),
        st.builds(_removing, _AT, st.just(100)),
        st.builds(_removing, _AT, _AT),
        st.builds(_adding, _AT, _ITEMS),
        st.just(list.reverse),
    ),
    max_size=2,
)


def keyed_of(items: Iterable[Item]) -> list[Keyed]:
    return [keyed(item.text, id=item.id, note=item.note) for item in items]


def key_of(row: Row) -> Key:
    """Which row of the model it is."""
    text = row.fields["text"]
    content = keyed(text).content
    return next((text, times) for times in count() if row_key(content, times) == row.key)


class StoreMachine(RuleBasedStateMachine):
    """Every rule opens the store, does something to it, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = fast_folder()
        self._store = Path(self._folder.name) / "0" / "out.lcbatch"
        self._store.parent.mkdir()
        self._crashes = 0
        self.model = Model()
        self.input: list[Item] = []

    def teardown(self) -> None:
        self._folder.cleanup()

    @initialize(order=st.sampled_from(Order), failed_too=st.booleans(), items=st.lists(_ITEMS, min_size=1, max_size=6))
    def begin(self, *, order: Order, failed_too: bool, items: list[Item]) -> None:
        output = View("output", order, done=True, failed=failed_too)
        self.folder = Files(View("folder", Order.FINISHED, done=True, failed=False))
        self.outputs = [Output(output), Output(View("errors", Order.FINISHED, done=False, failed=True))]
        self.input = items

    @rule(edits=_EDITS, session=_SESSIONS)
    def run(self, *, edits: list[Edit], session: Session) -> None:
        for edit in edits:
            edit(self.input)
        asyncio.run(self._run(session))

    @rule(chain=st.sampled_from(["first", "second"]), batch=st.integers(1, 4))
    def refuse(self, *, chain: str, batch: int) -> None:
        asyncio.run(self._refuse(chain, batch))

    @rule(
        session=_SESSIONS,
        kinds=st.sampled_from([None, frozenset({Kind.PARSE}), frozenset({Kind.TIMEOUT})]),
    )
    def retry(self, *, session: Session, kinds: frozenset[Kind] | None) -> None:
        if self.model.chain is not None:
            asyncio.run(self._retry(session, kinds))

    async def _run(self, session: Session) -> None:
        items = keyed_of(self.input)
        async with self._opened() as store:
            if not session.streamed:
                await store.hold()
            await self._adopt(store, session.chain, keep=session.keep)
            if session.streamed:
                async with self._projected(store, session) as projectors:
                    complete = await self._stream(store, session, items, projectors)
                    await self._end(store, session, projectors, complete=complete)
            else:
                async for _ in self._placed(store, session.batch, items):
                    pass
                await self._end_reading(store, session)
                await store.release(commit=True)
                async with self._projected(store, session) as projectors:
                    pending = [row async for page in store.pending() for row in page]
                    assert [row.ordinal for row in pending] == self.model.to_run()
                    left = await self._answer(store, session, pending[: session.ends], 0, projectors)
                    await self._end(store, session, projectors, complete=left >= len(pending))
        self._after(session)

    async def _stream(self, store: RunStore, session: Session, items: list[Keyed], projectors: list[Projector]) -> bool:
        """Answer rows as they are placed; whether that came to the input's end."""
        answered = 0
        async for placed in self._placed(store, session.batch, items):
            rows = [one.row for one in placed if one.row is not None]
            wanted = rows[: session.ends - answered]
            answered = await self._answer(store, session, wanted, answered, projectors)
            if len(wanted) < len(rows):
                self.model.cut_reading()
                return False
        await self._end_reading(store, session)
        return True

    async def _refuse(self, chain: str, batch: int) -> None:
        items = keyed_of(self.input)
        async with self._opened() as store:
            before = dump(self._store)
            await store.hold()
            await store.adopt(await store.lineage({"prompt": chain}), keep_answers=False)
            await store.begin_placing()
            for start in range(0, len(items), batch):
                await store.place(items[start : start + batch])
            await store.end_placing(await store.gone())
            await store.release(commit=False)
            assert dump(self._store) == before

    async def _retry(self, session: Session, kinds: frozenset[Kind] | None) -> None:
        async with self._opened() as store:
            chain = "other model"
            await store.answer_with(await store.lineage({"prompt": chain}))
            assert self.model.chain is not None
            if chain not in self.model.accepts[self.model.chain]:
                self.model.accepts[self.model.chain].append(chain)
            expected = self.model.retried(kinds)
            assert (await store.requeue(kinds)).rows == len(expected)
            async with self._projected(store, session) as projectors:
                rows = [row async for page in store.pending(only_requeued=True) for row in page]
                assert sorted(map(key_of, rows)) == sorted(expected)
                if not self.model.cut:
                    in_order = [key for key in self.model.places if key in expected]
                    assert [key_of(row) for row in rows][: len(in_order)] == in_order
                await self._answer(store, session, rows[: session.ends], 0, projectors, chain=chain)
                complete = await store.all_stand()
                assert complete == (not self.model.to_run())
                await self._end(store, session, projectors, complete=complete)
        self._after(session)

    # --- their parts

    async def _adopt(self, store: RunStore, chain: str, *, keep: bool) -> None:
        lineage = await store.lineage({"prompt": chain})
        assert lineage.same == (self.model.chain in {None, chain})
        assert lineage.answered == len(self.model.standing)
        await store.adopt(lineage, keep_answers=keep)
        self.model.adopt(chain, keep=keep)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[RunStore]:
        async with open_store(self._store) as store:
            self.model.settle()
            yield store

    async def _placed(self, store: RunStore, batch: int, items: list[Keyed]) -> AsyncIterator[list[Placed]]:
        keys = keys_of(self.input)
        self.model.begin_reading()
        await store.begin_placing()
        for start in range(0, len(items), batch):
            placed = await store.place(items[start : start + batch])
            told = zip(keys[start : start + batch], self.input[start : start + batch], strict=True)
            expected = [self.model.place(key, item) for key, item in told]
            assert states_of(placed) == states_of(Placed(state, None) for state in expected)
            yield placed

    async def _end_reading(self, store: RunStore, session: Session) -> None:
        gone = await store.gone()
        await store.end_placing([replace(row, stays=not row.edited and not session.drop) for row in gone])
        self.model.end_reading(drop=session.drop)

    async def _answer(
        self,
        store: RunStore,
        session: Session,
        rows: Sequence[Row],
        before: int,
        projectors: list[Projector],
        *,
        chain: str = "",
    ) -> int:
        """Put outcomes one by one, as the pipeline does; how many there are now."""
        for number, row in enumerate(rows, before):
            text, times = key_of(row)
            said = session.answers[number % len(session.answers)]
            answer = said if said in KINDS else f"{chain or session.chain} says {text}{times}"
            outcome: Outcome = Failed(row, Failure(Kind(said), "no")) if said in KINDS else Done(row, answer)
            await store.put([outcome])
            self.model.put((text, times), chain or session.chain, answer)
            for projector in projectors:
                projector.wake()
                await projector.caught_up()
        return before + len(rows)

    @asynccontextmanager
    async def _projected(self, store: RunStore, session: Session) -> AsyncIterator[list[Projector]]:
        await store.begin_run(session.chain, {}, in_flight=1)
        async with AsyncExitStack() as stack:
            projectors = []
            for sink in self._sinks():
                kept = await store.projection(sink.view, {})
                projector = Projector(sink, store=store, commit=store.commit_position)
                projectors.append(await stack.enter_async_context(projector))
                await projector.start(kept.position, kept.state, stale=kept.stale)
            yield projectors

    async def _end(self, store: RunStore, session: Session, projectors: list[Projector], *, complete: bool) -> None:
        """A crash leaves everything as it is now; any other end brings the outputs up to date."""
        self._compare_store(store)
        if session.crashes:
            self._crashes += 1
            self._crash_image = crash_image(self._store, self._store.parent.parent / str(self._crashes))
            self._kept = self.folder.kept(), [output.kept() for output in self.outputs]
            return
        await store.settle()
        self.model.settle()
        departed = await store.departed()
        for projector in projectors:
            if await store.is_stale(projector.sink.view):
                projector.mark_stale()
            if departed:
                await projector.discard(departed)
            await projector.finish(complete=complete)
        await store.forget_departed()
        await store.end_run(0)
        self._compare_outputs(complete=complete)

    def _compare_outputs(self, *, complete: bool) -> None:
        for sink in self.outputs:
            assert Counter(sink.lines) == self.model.lines(sink.view)
            if complete and sink.view.order is Order.INPUT:
                in_order = self.model.lines_in_order(sink.view)
                assert sink.lines[: len(in_order)] == in_order
        files, lines = Counter(self.folder.files.values()), self.model.lines(self.folder.view)
        assert files <= lines, "there is litter"
        # Ids are compared over a whole reading: where one was cut short, two rows may go by the same name.
        if not self.model.was_cut:
            assert files == lines, "one has overwritten another"
            named = {name.id: line for name, line in self.folder.files.items() if name.twin == 0}
            assert named.items() >= self.model.files().items()

    def _after(self, session: Session) -> None:
        if session.crashes:
            self._store = self._crash_image
            self.folder, self.outputs = self._kept

    def _sinks(self) -> list[Sink]:
        return [*self.outputs, self.folder]

    def _compare_store(self, store: RunStore) -> None:
        everything = View("all", Order.FINISHED, done=True, failed=True)
        entries = list(store.all_entries(everything))
        numbers = [entry.seq for entry in entries]
        assert numbers == sorted(set(numbers))
        assert Counter(map(line_of, entries)) == self.model.lines(everything)
        by_input = View("all", Order.INPUT, done=True, failed=True)
        assert Counter(map(line_of, store.all_entries(by_input))) == self.model.lines(everything)
        in_groups = [entry for group in store.entries(everything, 0) for entry in group]
        assert in_groups == entries


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=10, deadline=None)
