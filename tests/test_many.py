"""Several answers a row (--samples) and equal rows called once (--dedupe), against a model in dicts and one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from lcbatch import jsontext
from lcbatch.errors import TRANSIENT, Failure, Kind, RefusedError, UsageError
from lcbatch.events import InputRead, InputSize, Notice, RowsPlanned, RowsShared
from lcbatch.job import Job
from lcbatch.plan import Plan
from lcbatch.ports import Order, View
from lcbatch.records import Account, Document, Done, Failed, Item, Outcome, Reply, Row, Usage
from lcbatch.store.opened import open_store
from lcbatch.store.run_store import RunStore
from lcbatch.testing import Events, FakeChain, ListSource
from tests.store.model import KINDS
from tests.store.support import fast_folder, query

_ALL = View("all", Order.INPUT, done=True, failed=True)

Line: TypeAlias = tuple[str, int, int, str]
"""What stands of a row: text, note, sample, and the answer or the kind of the failure."""


@dataclass(frozen=True)
class Said:
    """A row of the input: `text` alone decides its answer."""

    text: str
    note: int = 0
    id: str | None = None

    @property
    def item(self) -> Item:
        return Item({"text": self.text, "note": self.note}, f"in.jsonl:{self.text}", self.id)


def said(texts: str) -> list[Said]:
    """Rows that differ by their note."""
    return [Said(text, note) for note, text in enumerate(texts)]


@dataclass
class Desk:
    """A store on which runs are made one after the other. Every call has an answer that no other call has."""

    store: Path
    events: Events = field(default_factory=Events)
    calls: int = 0

    def run(
        self,
        rows: Sequence[Said] | Sequence[Item],
        *,
        answers: Sequence[str] = ("yes",),
        ends: int | None = None,
        chain: FakeChain | None = None,
        **options: Any,
    ) -> list[str]:
        """Plan and answer; `text/sample` of the rows that were called, in order. After `ends` calls it is cut off."""
        items = [row.item if isinstance(row, Said) else row for row in rows]

        async def main() -> list[str]:
            async with open_store(self.store) as store:
                plan = Plan(
                    Job.of("in.jsonl", **options),
                    store,
                    chain or FakeChain(),
                    ListSource(items, size=3),
                    self.events,
                    lambda: None,
                )
                await _prepare(plan, store)
                called = await self._called(store, plan.rows(), answers, ends)
                if ends is None:
                    await store.settle()
                return called

        return asyncio.run(main())

    def retry(self, *, dedupe: bool, answers: Sequence[str] = ("yes",)) -> list[str]:
        """Ask failed rows again; as `run`."""

        async def main() -> list[str]:
            async with open_store(self.store) as store:
                await store.answer_with(await store.lineage(Plan.identity_of(FakeChain())))
                found = await store.requeue(None, dedupe=dedupe)
                self.events(RowsPlanned(reused=found.answered))

                async def rows() -> Any:
                    async for page in store.pending(only_requeued=True):
                        for row in page:
                            yield row

                called = await self._called(store, rows(), answers, None)
                await store.settle()
                return called

        return asyncio.run(main())

    async def _called(self, store: RunStore, rows: Any, answers: Sequence[str], ends: int | None) -> list[str]:
        called: list[str] = []
        async for row in rows:
            if ends is not None and len(called) >= ends:
                break
            called.append(f"{row.fields['text']}/{row.sample}")
            shared = await store.put([self._outcome(store, row, answers[self.calls % len(answers)])])
            self.events(shared)
        return called

    def _outcome(self, store: RunStore, row: Row, answer: str) -> Outcome:
        self.calls += 1
        key = jsontext.digest(str(self.calls).encode())
        store.replies.keep_reply(row, key, Reply(f"answer {self.calls}", {}, "sim", cost_usd=0.5))
        if answer in KINDS:
            return Failed(row, Failure(Kind(answer), "no"), made_of=key)
        account = Account("sim", calls=1, attempts=1, usage=Usage(3, 4), cost_usd=0.5)
        return Done(row, f"answer {self.calls}", account, reply_key=key)

    def lines(self) -> list[Line]:
        """What stands, in the order of the input."""

        async def main() -> list[Line]:
            async with open_store(self.store) as store:
                return [
                    (
                        (fields := jsontext.loads(entry.fields))["text"],
                        fields["note"],
                        entry.sample,
                        str(entry.kind or jsontext.loads(entry.output or "null")),
                    )
                    for entry in store.all_entries(_ALL)
                ]

        return asyncio.run(main())

    def names(self) -> list[str]:
        """What the files of the rows would be called by."""

        async def main() -> list[str]:
            async with open_store(self.store) as store:
                return [f"{entry.name.id}+{entry.name.twin}" for entry in store.all_entries(_ALL)]

        return asyncio.run(main())


async def _prepare(plan: Plan, store: RunStore) -> None:
    """As app.py does it: the whole input first, where the store holds rows."""
    if not store.holds_rows:
        await plan.adopt_chain()
        return
    await store.hold()
    try:
        await plan.adopt_chain()
        await plan.place_everything()
    except BaseException:
        await store.release(commit=False)
        raise
    await store.release(commit=True)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "out.jsonl.lcbatch")


def answers_of(lines: Iterable[Line]) -> list[str]:
    return [answer for *_, answer in lines]


# --- samples


def test_each_row_is_asked_for_as_many_answers_in_the_order_of_the_input(desk: Desk) -> None:
    assert desk.run(said("ab"), samples=3) == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
    assert [line[:3] for line in desk.lines()] == [("a", 0, n) for n in range(3)] + [("b", 1, n) for n in range(3)]
    assert len(set(answers_of(desk.lines()))) == 6
    assert desk.run(said("ab"), samples=3) == []


def test_more_samples_pay_for_the_new_ones_alone_and_fewer_lose_none(desk: Desk) -> None:
    desk.run(said("ab"))
    first = desk.lines()
    assert desk.run(said("ab"), samples=2) == ["a/1", "b/1"]
    both = desk.lines()
    assert [line for line in both if line[2] == 0] == first
    assert desk.run(said("ab"), samples=1) == []
    assert desk.lines() == first
    assert desk.run(said("ab"), samples=3) == ["a/2", "b/2"]
    assert [line for line in desk.lines() if line[2] < 2] == both


@pytest.mark.parametrize("on_removed", ["refuse", "keep", "drop"])
def test_fewer_samples_were_asked_for_and_are_no_rows_gone(desk: Desk, on_removed: str) -> None:
    desk.run(said("abcd"), samples=5)
    desk.events.clear()
    assert desk.run(said("abcd"), samples=2, on_removed=on_removed) == []
    assert len(desk.lines()) == 8
    assert sum(event.gone for event in desk.events.of(RowsPlanned)) == 0
    assert "12 answers leave the output" in desk.events.of(Notice)[-1].text
    assert "--samples 5 brings them back" in desk.events.of(Notice)[-1].text


def test_fewer_samples_do_not_hide_that_rows_are_gone(desk: Desk) -> None:
    desk.run(said("abcdefgh"), samples=10)
    with pytest.raises(RefusedError, match="1 of the 8 rows"):
        desk.run(said("abcdefg"), samples=1)
    assert len(desk.lines()) == 80


def test_a_limit_takes_no_sample_out_of_the_output(desk: Desk) -> None:
    desk.run(said("ab"), samples=3)
    assert desk.run(said("ab"), samples=1, limit=1) == []
    assert len(desk.lines()) == 6


def test_all_samples_of_an_edited_row_stand_until_its_own_come(desk: Desk) -> None:
    before = [Said("old", id="x"), Said("other", id="y")]
    desk.run(before, samples=3)
    edited = [Said("new", id="x"), Said("other", id="y")]
    assert desk.run(edited, samples=2, ends=1) == ["new/0"]
    assert sorted(line[0] + str(line[2]) for line in desk.lines()) == ["new0", "old1", "other0", "other1"]
    assert desk.run(edited, samples=2) == ["new/1"]
    assert sorted(line[0] + str(line[2]) for line in desk.lines()) == ["new0", "new1", "other0", "other1"]


def test_samples_have_names_of_their_own_and_the_first_keeps_the_rows(desk: Desk) -> None:
    rows = [Said("one", id="a"), Said("two", id="a"), Said("three", id="a.sample-1"), Said("four")]
    desk.run(rows)
    assert desk.names() == ["a+0", "a+1", "a.sample-1+0", "row-4+0"]
    desk.run(rows, samples=2)
    names = desk.names()
    assert [names[at] for at in (0, 2, 6)] == ["a+0", "a+1", "row-4+0"]
    assert len(set(names)) == len(names)
    assert names[1] == "a.sample-1+0"


def test_figures_count_answers(desk: Desk) -> None:
    desk.run(said("abcd"), samples=3)
    assert desk.events.of(InputRead) == [InputRead(12, to_the_end=True)]
    assert desk.events.of(InputSize) == [InputSize(12)]


@pytest.mark.parametrize("options", [{"samples": 2}, {"samples": 1}])
def test_a_field_that_the_number_would_hide_is_refused(desk: Desk, options: dict[str, Any]) -> None:
    rows = [Item({"text": "a", "sample": "blood", "note": 0}, "1")]
    with pytest.raises(UsageError, match="field 'sample' already"):
        desk.run(rows, **options)
    assert desk.run(rows, **options, keep="text") == [f"a/{n}" for n in range(options["samples"])]


def test_the_answers_field_cannot_be_that_of_the_number(desk: Desk) -> None:
    with pytest.raises(UsageError, match="--output-field"):
        desk.run(said("a"), samples=2, output_field="sample")


# --- equal rows


def test_equal_rows_are_called_once_and_all_stand(desk: Desk) -> None:
    assert desk.run(said("abaab"), dedupe=True) == ["a/0", "b/0"]
    lines = desk.lines()
    assert [(text, note) for text, note, *_ in lines] == [("a", 0), ("b", 1), ("a", 2), ("a", 3), ("b", 4)]
    assert len({(text, answer) for text, _, _, answer in lines}) == 2
    costs = [cost for (cost,) in query(desk.store, "SELECT json_extract(account, '$.cost_usd') FROM answers")]
    assert sum(costs) == 1.0


def test_samples_of_equal_rows_are_shared_one_by_one(desk: Desk) -> None:
    assert desk.run(said("aa"), dedupe=True, samples=2) == ["a/0", "a/1"]
    answers = answers_of(desk.lines())
    assert answers == [answers[0], answers[1], answers[0], answers[1]]


def test_a_failure_is_that_of_all_equal_rows_and_a_retry_pays_once(desk: Desk) -> None:
    desk.run(said("aabaa"), dedupe=True, answers=[Kind.REFUSAL, "yes"])
    assert answers_of(desk.lines()) == ["refusal", "refusal", "answer 2", "refusal", "refusal"]
    assert desk.run(said("aabaa"), dedupe=True) == [], "what failed for good is left so"
    assert desk.retry(dedupe=True) == ["a/0"]
    assert answers_of(desk.lines()) == ["answer 3", "answer 3", "answer 2", "answer 3", "answer 3"]


def test_a_passing_failure_is_asked_again_once(desk: Desk) -> None:
    desk.run(said("aaaa"), dedupe=True, answers=[Kind.TIMEOUT])
    assert answers_of(desk.lines()) == ["timeout"] * 4
    desk.events.clear()
    assert desk.run(said("aaaa"), dedupe=True) == ["a/0"]
    assert desk.events.of(RowsShared) == [RowsShared(reused=3)]


def test_without_dedupe_what_was_shared_stands_and_only_open_rows_are_called(desk: Desk) -> None:
    desk.run(said("aa"), dedupe=True)
    assert desk.run(said("aaa")) == ["a/0"]
    assert answers_of(desk.lines()) == ["answer 1", "answer 1", "answer 2"]


def test_with_dedupe_answers_that_rows_have_are_kept(desk: Desk) -> None:
    desk.run(said("aa"))
    assert desk.run(said("aaa"), dedupe=True) == []
    assert answers_of(desk.lines()) == ["answer 1", "answer 2", "answer 1"]


def test_an_equal_rows_answer_spares_the_retry_its_call(desk: Desk) -> None:
    desk.run(said("aab"), answers=[Kind.REFUSAL, "yes", Kind.REFUSAL])
    assert desk.retry(dedupe=True) == ["b/0"]
    assert answers_of(desk.lines()) == ["answer 2", "answer 2", "answer 4"]


def test_going_back_to_an_earlier_chain_is_free_for_equal_rows_too(desk: Desk) -> None:
    first, second = FakeChain(), FakeChain(identity={"prompt": "second"})
    desk.run(said("aba"), chain=first, dedupe=True)
    before = desk.lines()
    assert desk.run(said("aba"), chain=second, dedupe=True, on_change="redo") == ["a/0", "b/0"]
    assert desk.run(said("aba"), chain=first, on_change="redo") == []
    assert desk.lines() == before


def test_a_row_that_could_not_be_read_fails_by_itself(desk: Desk) -> None:
    rows = [Item({"note": note}, f"in.jsonl:{note}") for note in range(3)]
    items = [said("a")[0].item, *rows]
    broken = [replace(item, failure=Failure(Kind.BAD_ROW, f"{item.place}: no")) for item in items[1:]]
    good = [replace(row, fields={"text": "a", "note": 9}) for row in items[:1]]
    called: list[str] = []

    async def main() -> None:
        async with open_store(desk.store) as store:
            job = Job.of("in.jsonl", dedupe=True)
            plan = Plan(job, store, FakeChain(), ListSource([*good, *broken]), desk.events, lambda: None)
            await plan.adopt_chain()
            called.extend([row.place async for row in plan.rows()])

    asyncio.run(main())
    assert called == ["in.jsonl:a", "in.jsonl:0", "in.jsonl:1", "in.jsonl:2"]


def test_copies_of_a_document_under_other_names_are_one(desk: Desk) -> None:
    def document(path: str, digest: str) -> Item:
        fields = {"path": path, "name": path, "text": digest, "note": 0}
        return Item(fields, path, path, Document(f"/abs/{path}", digest, 10))

    rows = [document("a.md", "11"), document("b.md", "22"), document("copy of a.md", "11")]
    assert desk.run(rows, dedupe=True) == ["11/0", "22/0"]
    assert len(desk.lines()) == 3


# --- any sequence of runs

Key: TypeAlias = tuple[str, int, int]
"""Text, how many equal rows came before it, sample."""


class Model:
    """What must be so, in the simplest way: what each row came to, and what the input was last."""

    def __init__(self) -> None:
        self.ended: dict[Key, str] = {}
        self.rows: list[tuple[Key, Said]] = []
        self.calls = 0

    def read(self, rows: Sequence[Said], samples: int, *, dedupe: bool) -> tuple[list[Key], dict[Key, list[Key]]]:
        """Who is to be called, in order, and who waits for whom."""
        self.rows = [
            ((row.text, sum(other.text == row.text for other in rows[:at]), sample), row)
            for at, row in enumerate(rows)
            for sample in range(samples)
        ]
        to_call: list[Key] = []
        waiting: dict[Key, list[Key]] = {}
        for key, _ in self.rows:
            own = self.ended.get(key)
            if own is not None and own not in KINDS:
                continue
            leader = (key[0], 0, key[2])
            if not dedupe:
                shared = None
            elif key != leader:
                shared = None if leader in to_call else self.ended[leader]
                if leader in to_call:
                    waiting.setdefault(leader, []).append(key)
                    continue
            else:
                shared = self.answer_like(key)
            if shared is not None and not (shared in KINDS and own in KINDS and own not in TRANSIENT):
                self.ended[key] = shared
            elif own is None or own in TRANSIENT:
                to_call.append(key)
        return to_call, waiting

    def answer_like(self, key: Key) -> str | None:
        equal = sorted(other for other in self.ended if (other[0], other[2]) == (key[0], key[2]))
        return next((self.ended[other] for other in equal if self.ended[other] not in KINDS), None)

    def failed(self, *, dedupe: bool) -> tuple[list[Key], dict[Key, list[Key]]]:
        """The same of a retry."""
        chosen = [key for key, _ in self.rows if self.ended.get(key) in KINDS]
        if not dedupe:
            return chosen, {}
        to_call: list[Key] = []
        waiting: dict[Key, list[Key]] = {}
        for key in chosen:
            leader = min(other for other in chosen if (other[0], other[2]) == (key[0], key[2]))
            if (answer := self.answer_like(key)) is not None:
                self.ended[key] = answer
            elif key == leader:
                to_call.append(key)
            else:
                waiting.setdefault(leader, []).append(key)
        return to_call, waiting

    def answer(self, keys: Sequence[Key], waiting: dict[Key, list[Key]], answers: Sequence[str]) -> None:
        for key in keys:
            answer = answers[self.calls % len(answers)]
            self.calls += 1
            for each in [key, *waiting.get(key, [])]:
                self.ended[each] = answer if answer in KINDS else f"answer {self.calls}"

    def lines(self) -> list[Line]:
        return [(row.text, row.note, key[2], self.ended[key]) for key, row in self.rows if key in self.ended]


_ROWS = st.lists(st.builds(Said, st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=6)
_ANSWERS = st.lists(st.sampled_from(["yes", "yes", "yes", Kind.TIMEOUT, Kind.REFUSAL]), min_size=1, max_size=4)


class ManyMachine(RuleBasedStateMachine):
    """Each rule is a run, or a retry, with options of its own; the input is edited in between."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = fast_folder()
        self._desk = Desk(Path(self._folder.name) / "out.lcbatch")
        self._model = Model()

    def teardown(self) -> None:
        self._folder.cleanup()

    @rule(
        rows=_ROWS,
        samples=st.sampled_from([None, 1, 2, 3]),
        dedupe=st.booleans(),
        answers=_ANSWERS,
        ends=st.sampled_from([None, None, None, 0, 1, 2]),
    )
    def run(self, *, rows: list[Said], samples: int | None, dedupe: bool, answers: list[str], ends: int | None) -> None:
        if not self._model.rows:
            ends = None  # a first reading that is cut off has no end, and is another test's
        options: dict[str, Any] = {} if samples is None else {"samples": samples}
        to_call, waiting = self._model.read(rows, samples or 1, dedupe=dedupe)
        called = self._desk.run(rows, dedupe=dedupe, answers=answers, ends=ends, on_removed="drop", **options)
        self._compare(called, to_call[:ends], waiting, answers)

    @rule(dedupe=st.booleans(), answers=_ANSWERS)
    def retry(self, *, dedupe: bool, answers: list[str]) -> None:
        if self._model.rows:
            to_call, waiting = self._model.failed(dedupe=dedupe)
            self._compare(self._desk.retry(dedupe=dedupe, answers=answers), to_call, waiting, answers)

    def _compare(
        self, called: list[str], expected: list[Key], waiting: dict[Key, list[Key]], answers: list[str]
    ) -> None:
        assert called == [f"{text}/{sample}" for text, _, sample in expected]
        self._model.answer(expected, waiting, answers)
        assert self._desk.lines() == self._model.lines()


TestManyMachine = ManyMachine.TestCase
TestManyMachine.settings = settings(max_examples=60, stateful_step_count=8, deadline=None)
