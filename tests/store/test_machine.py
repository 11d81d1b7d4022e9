"""The store and its outputs against a model in dicts: any sequence of runs, edits, crashes and retries.

The model is what DESIGN.md promises, said in the simplest way; the store must always agree with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from lcbatch import jsontext
from lcbatch.errors import TRANSIENT, Failure, Kind
from lcbatch.ports import Entry, Keyed, Order, Placed, State, View
from lcbatch.records import Done, Failed, Json, Outcome, Row
from lcbatch.sinks import Projector
from lcbatch.sinks.appendfile import REBUILDING
from lcbatch.store.run_store import RunStore, open_store

from .support import crash_image, dump, fast_folder, keyed, states_of

Key: TypeAlias = tuple[str, int]
"""A row's text, and how many equal ones came before it."""

KINDS: frozenset[str] = frozenset(map(str, Kind))

Line: TypeAlias = tuple[str, int, str]
"""What an output shows of a row: text, note, the answer or the kind of the failure."""


@dataclass
class Output:
    """A sink whose file is a list: what was appended survives a kill, `open` cuts it to where the store stood."""

    view: View
    lines: list[Line] = field(default_factory=list)

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:
        assert state is not None or not self.lines, "the store does not know of this output"
        assert not clean or state is None or state["lines"] == len(self.lines), "a clean end left other lines"
        if state is None:
            return True
        del self.lines[state["lines"] :]
        return len(self.lines) == state["lines"] and not state.get(REBUILDING)

    def append(self, entries: Sequence[Entry]) -> None:
        self.lines += map(line_of, entries)

    def sync(self) -> Mapping[str, Json]:
        return {"lines": len(self.lines)}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        self.lines = [line_of(entry) for entry in entries]
        return self.sync()

    def discard(self, ids: Sequence[str]) -> None:
        """It is of one file."""

    def close(self) -> None:
        """It has nothing open."""


def line_of(entry: Entry) -> Line:
    fields = jsontext.loads(entry.fields)
    said = entry.kind if entry.output is None else jsontext.loads(entry.output)
    return fields["text"], fields["note"], str(said)


@dataclass
class Model:
    """What must be so: the answers ever given, those that stand, and the input as it was read last."""

    chain: str | None = None
    accepts: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[Key, dict[str, str]] = field(default_factory=dict)
    standing: dict[Key, str] = field(default_factory=dict)
    notes: dict[Key, int] = field(default_factory=dict)
    places: list[Key] = field(default_factory=list)

    def adopt(self, chain: str, *, keep: bool) -> None:
        accepted = self.accepts.setdefault(chain, [chain])
        if self.chain is not None and self.chain != chain:
            if keep:
                accepted += [one for one in self.accepts[self.chain] if one not in accepted]
            else:
                self.standing.clear()
        self.chain = chain

    def place(self, key: Key, note: int) -> State:
        self.notes[key] = note
        best = self._best(key)
        if best is not None and (key not in self.standing or (self.standing[key] in KINDS and best not in KINDS)):
            self.standing[key] = best
        answer = self.standing.get(key)
        if answer is None:
            return State.PENDING
        if answer in TRANSIENT:
            del self.standing[key]
            return State.PENDING
        return State.FAILED_BEFORE if answer in KINDS else State.ANSWERED

    def put(self, key: Key, chain: str, answer: str) -> None:
        known = self.answers.setdefault(key, {})
        if not (answer in KINDS and known.get(chain, answer) not in KINDS):
            known.pop(chain, None)
            known[chain] = answer
        self.standing[key] = known[chain]

    def end_reading(self, places: list[Key], *, drop: bool) -> None:
        self.places = places
        if drop:
            self.standing = {key: answer for key, answer in self.standing.items() if key in places}

    def cut_reading(self, read: list[Key]) -> None:
        """What was read beyond the input's old end has its place; another input than before counts only when it has ended."""
        if read[: len(self.places)] == self.places:
            self.places = read

    def retried(self, kinds: frozenset[Kind] | None) -> list[Key]:
        """Failed rows of the input that a retry takes up, in input order: they stand no longer."""
        assert self.chain is not None
        chosen = []
        for key in self.places:
            known = self.answers.get(key, {})
            failures = [known[chain] for chain in known if chain in self.accepts[self.chain]]
            last = self.standing.get(key) or (failures[-1] if failures and set(failures) <= KINDS else None)
            if last in KINDS and (kinds is None or last in kinds):
                chosen.append(key)
        for key, answer in list(self.standing.items()):
            if key in chosen and answer in KINDS:
                del self.standing[key]
        return chosen

    def lines(self, view: View) -> Counter[Line]:
        return Counter(self._line(key) for key in self.standing if self._shown(key, view))

    def lines_in_order(self, view: View) -> list[Line]:
        return [self._line(key) for key in self.places if key in self.standing and self._shown(key, view)]

    def _line(self, key: Key) -> Line:
        return key[0], self.notes[key], self.standing[key]

    def _shown(self, key: Key, view: View) -> bool:
        return view.failed if self.standing[key] in KINDS else view.done

    def _best(self, key: Key) -> str | None:
        """An answer before a failure, the chain's own before another's, the latest before an earlier one."""
        assert self.chain is not None
        accepted = self.accepts[self.chain]
        known = [(chain, answer) for chain, answer in self.answers.get(key, {}).items() if chain in accepted]
        ranked = [(answer not in KINDS, chain == self.chain, at, answer) for at, (chain, answer) in enumerate(known)]
        return max(ranked)[3] if ranked else None


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


Edit: TypeAlias = Callable[[list[tuple[str, int]]], None]


def _adding(at: int, text: str) -> Edit:
    return lambda rows: rows.insert(at, (text, 0))


def _appending(texts: str) -> Edit:
    return lambda rows: rows.extend((text, 0) for text in texts)


def _removing(start: int, stop: int) -> Edit:
    return lambda rows: rows.__delitem__(slice(start, stop))


def _noting(at: int, note: int) -> Edit:
    """A column that passes through is edited."""
    return lambda rows: rows.__setitem__(slice(at, at + 1), [(text, note) for text, _ in rows[at : at + 1]])


_AT = st.integers(0, 6)
_TEXTS = "abcdef"
_EDITS = st.lists(
    st.one_of(
        st.builds(_appending, st.text(_TEXTS, min_size=1, max_size=3)),
        st.builds(_noting, _AT, st.integers(1, 3)),
        st.builds(_removing, _AT, st.just(100)),
        st.builds(_removing, _AT, _AT),
        st.builds(_adding, _AT, st.sampled_from(_TEXTS)),
        st.just(list.reverse),
    ),
    max_size=2,
)


def keys_of(items: Sequence[tuple[str, int]]) -> list[Key]:
    seen: Counter[str] = Counter()
    keys = []
    for text, _ in items:
        keys.append((text, seen[text]))
        seen[text] += 1
    return keys


class StoreMachine(RuleBasedStateMachine):
    """Every rule opens the store, does something to it, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = fast_folder()
        self._store = Path(self._folder.name) / "0" / "out.lcbatch"
        self._store.parent.mkdir()
        self._crashes = 0
        self.model = Model()
        self.input: list[tuple[str, int]] = []
        self.left: list[Row] = []

    def teardown(self) -> None:
        self._folder.cleanup()

    @initialize(order=st.sampled_from(Order), failed_too=st.booleans(), items=st.text("abc", min_size=1, max_size=6))
    def begin(self, *, order: Order, failed_too: bool, items: str) -> None:
        output = View("output", order, done=True, failed=failed_too)
        self.sinks = [Output(output), Output(View("errors", Order.FINISHED, done=False, failed=True))]
        self.input = [(text, 0) for text in items]

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
        items = [keyed(text, note=note) for text, note in self.input]
        async with open_store(self._store) as store:
            if not session.streamed:
                await store.hold()
            await self._adopt(store, session.chain, keep=session.keep)
            if session.streamed:
                async with self._projected(store, session) as projectors:
                    complete = await self._stream(store, session, items, projectors)
                    await self._end(store, session, projectors, complete=complete)
            else:
                await store.begin_placing()
                async for _ in self._placed(store, session.batch, items):
                    pass
                await self._end_reading(store, session)
                await store.release(commit=True)
                async with self._projected(store, session) as projectors:
                    pending = [row async for page in store.pending() for row in page]
                    standing = self.model.standing
                    assert [row.ordinal for row in pending] == [
                        at for at, key in enumerate(self.model.places) if key not in standing
                    ]
                    left = await self._answer(store, session, pending[: session.ends], 0, projectors)
                    await self._end(store, session, projectors, complete=left >= len(pending))
        self._after(session)

    async def _stream(self, store: RunStore, session: Session, items: list[Keyed], projectors: list[Projector]) -> bool:
        """Answer rows as they are placed; whether that came to the input's end."""
        answered = read = 0
        await store.begin_placing()
        async for placed in self._placed(store, session.batch, items):
            read += len(placed)
            rows = [one.row for one in placed if one.row is not None]
            wanted = rows[: session.ends - answered]
            answered = await self._answer(store, session, wanted, answered, projectors)
            if len(wanted) < len(rows):
                self.model.cut_reading(keys_of(self.input)[:read])
                return False
        await self._end_reading(store, session)
        return True

    async def _refuse(self, chain: str, batch: int) -> None:
        items = [keyed(text, note=note) for text, note in self.input]
        async with open_store(self._store) as store:
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
        async with open_store(self._store) as store:
            chain = "other model"
            await store.answer_with(await store.lineage({"prompt": chain}))
            assert self.model.chain is not None
            if chain not in self.model.accepts[self.model.chain]:
                self.model.accepts[self.model.chain].append(chain)
            await store.requeue(kinds)
            expected = self.model.retried(kinds)
            async with self._projected(store, session) as projectors:
                rows = [row async for page in store.pending(only_requeued=True) for row in page]
                assert [self.model.places[row.ordinal] for row in rows] == expected
                await self._answer(store, session, rows[: session.ends], 0, projectors, chain=chain)
                complete = await store.all_stand()
                assert complete == (set(self.model.places) <= set(self.model.standing))
                await self._end(store, session, projectors, complete=complete)
        self._after(session)

    # --- their parts

    async def _adopt(self, store: RunStore, chain: str, *, keep: bool) -> None:
        lineage = await store.lineage({"prompt": chain})
        assert lineage.same == (self.model.chain in {None, chain})
        assert lineage.answered == len(self.model.standing)
        await store.adopt(lineage, keep_answers=keep)
        self.model.adopt(chain, keep=keep)

    async def _placed(self, store: RunStore, batch: int, items: list[Keyed]) -> AsyncIterator[list[Placed]]:
        keys = keys_of(self.input)
        for start in range(0, len(items), batch):
            placed = await store.place(items[start : start + batch])
            told = zip(keys[start : start + batch], self.input[start : start + batch], strict=True)
            expected = [self.model.place(key, note) for key, (_, note) in told]
            assert states_of(placed) == states_of(Placed(state, None) for state in expected)
            yield placed

    async def _end_reading(self, store: RunStore, session: Session) -> None:
        await store.end_placing(await store.gone() if session.drop else [])
        self.model.end_reading(keys_of(self.input), drop=session.drop)

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
        keys = keys_of(self.input) if not chain else self.model.places
        for number, row in enumerate(rows, before):
            text, times = keys[row.ordinal]
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
            for sink in self.sinks:
                kept = await store.projection(sink.view, {})
                projector = Projector(sink, store=store, commit=store.commit_position)
                projectors.append(await stack.enter_async_context(projector))
                await projector.start(kept.position, kept.state, clean=store.clean, stale=kept.stale)
            yield projectors

    async def _end(self, store: RunStore, session: Session, projectors: list[Projector], *, complete: bool) -> None:
        """A crash leaves everything as it is now; any other end brings the outputs up to date."""
        self._compare_store(store)
        if session.crashes:
            self._crashes += 1
            self._crash_image = crash_image(self._store, self._store.parent.parent / str(self._crashes))
            self._kept = [list(sink.lines) for sink in self.sinks]
            return
        for projector in projectors:
            if await store.is_stale(projector.sink.view):
                projector.mark_stale()
            await projector.finish(complete=complete)
        await store.end_run(0)
        for sink in self.sinks:
            assert Counter(sink.lines) == self.model.lines(sink.view)
            if complete and sink.view.order is Order.INPUT:
                in_order = self.model.lines_in_order(sink.view)
                assert sink.lines[: len(in_order)] == in_order

    def _after(self, session: Session) -> None:
        if session.crashes:
            self._store = self._crash_image
            for sink, lines in zip(self.sinks, self._kept, strict=True):
                sink.lines = lines

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
TestStoreMachine.settings = settings(max_examples=100, stateful_step_count=10, deadline=None)
