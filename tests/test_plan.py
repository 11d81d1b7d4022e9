"""What is to be done: identities, refusals before anything is touched, and what a run leaves out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import (
    ConfigError,
    Failure,
    InputDamaged,
    Kind,
    LcbatchError,
    RefusedError,
    TimeIsUp,
    UsageError,
)
from lcbatch.events import InputRead, InputSize, Notice, RowsPlanned
from lcbatch.job import Job
from lcbatch.plan import Plan
from lcbatch.records import RAW_FIELD, Document, Done, Item, Row
from lcbatch.store.opened import open_store
from lcbatch.store.run_store import RunStore
from lcbatch.testing import Events, FakeChain, ListSource
from tests.store.support import DONE, dump, texts_of


def item_of(text: str, **more: Any) -> Item:
    return Item({"text": text, **more}, f"in.jsonl:{text}", more.get("id"))


def items_of(texts: str) -> list[Item]:
    return [item_of(text) for text in texts]


def document_of(path: str, digest: str) -> Item:
    return Item({"path": path, "name": Path(path).name}, path, path, Document(f"/abs/{path}", digest, 10))


@dataclass
class Desk:
    """A store that runs are planned on, one after the other, as app.py does it."""

    store: Path
    events: Events = field(default_factory=Events)
    stopping: LcbatchError | None = None

    def run(self, items: Sequence[Item], chain: FakeChain | None = None, **options: Any) -> list[str]:
        """Plan and answer; the texts (or places) of the rows that were called, in order."""
        return [str(row.fields.get("text", row.place)) for row in self.rows(items, chain, **options)]

    def rows(self, items: Sequence[Item], chain: FakeChain | None = None, **options: Any) -> list[Row]:
        """Plan and answer; the rows that were called, in order."""
        piped, lenient, answer = (options.pop(name, False) for name in ("piped", "lenient", "unanswered"))
        damaged = options.pop("damaged", None)
        source = ListSource(items, size=options.pop("size", 3), rereadable=not piped, damaged=damaged)

        async def main() -> list[Row]:
            async with open_store(self.store) as store:
                job = Job.of("in.jsonl", **options)
                chosen = chain or FakeChain()
                plan = Plan(job, store, chosen, source, self.events, lambda: self.stopping, lenient=lenient)
                await self._prepare(plan, store)
                called = []
                async for row in plan.rows():
                    called.append(row)
                    if not answer:
                        await store.put([Done(row, row.fields.get("text"))])
                await store.settle()
                return called

        return asyncio.run(main())

    @staticmethod
    async def _prepare(plan: Plan, store: RunStore) -> None:
        if not (plan.source.rereadable and store.holds_rows):
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

    def standing(self) -> list[str]:
        async def main() -> list[str]:
            async with open_store(self.store) as store:
                return texts_of(store.all_entries(DONE))

        return sorted(asyncio.run(main()))

    def refuses(self, kind: type[LcbatchError], items: Sequence[Item], *arguments: Any, **options: Any) -> LcbatchError:
        """The refusal, which touched nothing."""
        before = dump(self.store)
        with pytest.raises(kind) as caught:
            self.run(items, *arguments, **options)
        assert dump(self.store) == before
        assert caught.value.hint
        return caught.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "out.jsonl.lcbatch")


# --- what is called


def test_only_new_and_changed_rows_are_called(desk: Desk) -> None:
    assert desk.run(items_of("abc")) == ["a", "b", "c"]
    assert desk.run(items_of("abc")) == []
    assert desk.run(items_of("cxab")) == ["x"]


@pytest.mark.parametrize("piped", [False, True])
def test_what_was_planned_is_told(desk: Desk, *, piped: bool) -> None:
    desk.run(items_of("abcd"))
    desk.events.clear()
    desk.run(items_of("abXcd"), piped=piped)
    planned = desk.events.of(RowsPlanned)
    assert [sum(getattr(one, name) for one in planned) for name in ("reused", "pending", "gone")] == [4, 1, 0]
    assert desk.events.of(InputRead) == [InputRead(5, to_the_end=True)]
    assert desk.events.of(InputSize) == [InputSize(5)]


def test_a_column_that_the_template_does_not_name_changes_no_key(desk: Desk) -> None:
    desk.run([item_of("a", note=1), item_of("b", note=1)])
    assert desk.run([item_of("a", note=2), item_of("b", other="new")]) == []


def test_a_chain_without_named_fields_uses_all_of_them(desk: Desk) -> None:
    chain = FakeChain(uses=None)
    desk.run([item_of("a", note=1)], chain)
    assert desk.run([item_of("a", note=2)], chain, on_removed="drop") == ["a"]


def test_the_order_of_columns_is_no_change(desk: Desk) -> None:
    chain = FakeChain(uses=frozenset({"a", "b"}))
    desk.run([Item({"a": 1, "b": 2}, "1")], chain)
    assert desk.run([Item({"b": 2, "a": 1}, "1")], chain) == []


def test_documents_count_by_content_not_by_where_they_lie(desk: Desk) -> None:
    desk.run([document_of("old/a.md", "11"), document_of("old/b.md", "22")])
    assert desk.run([document_of("new/z.md", "11"), document_of("old/b.md", "33")], on_removed="drop") == ["old/b.md"]


def test_a_document_whose_path_is_asked_for_counts_by_it_too(desk: Desk) -> None:
    chain = FakeChain(uses=frozenset({"text", "path"}))
    desk.run([document_of("old/a.md", "11")], chain)
    assert desk.run([document_of("new/a.md", "11")], chain, on_removed="drop") == ["new/a.md"]


def test_the_limit_counts_rows_called_in_this_run(desk: Desk) -> None:
    assert desk.run(items_of("abcdefgh"), limit=3) == ["a", "b", "c"]
    assert desk.run(items_of("abcdefgh"), limit=3) == ["d", "e", "f"]
    assert desk.run(items_of("abcdefgh"), limit=3) == ["g", "h"]


def test_the_limit_never_shortens_an_output(desk: Desk) -> None:
    desk.run(items_of("abcdefghijkl"))
    assert desk.run(items_of("abcdefghijkX"), limit=5) == ["X"]
    assert desk.standing() == sorted("abcdefghijklX")
    desk.run(items_of("abcdefghijkX"))
    assert desk.standing() == sorted("abcdefghijkX")


def test_a_stop_while_everything_is_placed_takes_it_back(desk: Desk) -> None:
    desk.run(items_of("abcdefghijkl"))
    desk.stopping = TimeIsUp("--max-time has passed")
    before = dump(desk.store)
    with pytest.raises(TimeIsUp):
        desk.run(items_of("lkjihgfedcbaX"))
    assert dump(desk.store) == before


# --- rows and templates that do not fit


def test_a_row_without_the_field_fails_and_the_others_go_on(desk: Desk) -> None:
    rows = desk.rows([item_of("a"), Item({"other": 1}, "in.jsonl:2"), item_of("c")])
    failures = [row.failure for row in rows]
    assert failures[0] is failures[2] is None
    assert failures[1] == Failure(Kind.BAD_ROW, "in.jsonl:2: there is no field 'text'")


def test_a_template_that_fits_none_of_the_first_rows_is_a_mistake(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="none of the first 102 rows has a field 'text'") as caught:
        desk.run([Item({"test": 1}, str(number)) for number in range(150)] + items_of("a"))
    assert "did you mean 'test'" in caught.value.hint


def test_a_short_input_that_never_fits_is_a_mistake_too(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="none of the rows has a field 'text'"):
        desk.run([Item({"test": 1}, "1")])


def test_one_row_that_fits_releases_all_before_it(desk: Desk) -> None:
    misfits = [Item({"test": number}, str(number)) for number in range(90)]
    rows = desk.rows([*misfits, item_of("a"), Item({}, "last")])
    assert [row.failure is None for row in rows] == [False] * 90 + [True, False]


def test_lines_that_cannot_be_read_do_not_speak_against_the_template(desk: Desk) -> None:
    bad = Item({RAW_FIELD: "{"}, "in.jsonl:1", failure=Failure(Kind.BAD_ROW, "no JSON"))
    rows = desk.rows([bad] * 120)
    assert [row.failure for row in rows] == [bad.failure] * 120


def test_documents_that_cannot_be_read_do_not_speak_against_the_template(desk: Desk) -> None:
    bad = Item({"path": "a.pdf"}, "a.pdf", failure=Failure(Kind.NO_TEXT, "a scan"))
    rows = desk.rows([bad] * 120)
    assert [row.failure for row in rows] == [bad.failure] * 120
    with pytest.raises(ConfigError, match="has a field 'text'"):
        desk.rows([bad, Item({"test": 1}, "in.jsonl:1")])


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "output"), ({"output_field": "text"}, "text"), ({"meta": True, "output_field": "o"}, "meta")],
)
def test_a_clash_of_field_names_is_a_usage_error(desk: Desk, options: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=repr(name)) as caught:
        desk.run([item_of("a", output=1, meta=2)], **options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("keep", ["none", "text", "text,note"])
def test_a_field_that_is_left_out_clashes_with_nothing(desk: Desk, keep: str) -> None:
    assert desk.run([item_of("a", output=1)], keep=keep) == ["a"]


def test_a_name_in_keep_that_no_row_has_is_said(desk: Desk) -> None:
    desk.run(items_of("a"), keep="id,text")
    assert not desk.events.of(Notice)
    desk.run(items_of("ab"), keep="txt")
    assert [notice.text for notice in desk.events.of(Notice)] == [
        "--keep: the first 2 rows have no field 'txt'; did you mean 'text'?"
    ]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"task": "embed"}, "-p '{body}'"),
        ({"task": "embed", "prompt": "{text}"}, "known: body, id"),
        ({"system": "{text}"}, "known: body, id"),
    ],
)
def test_rows_without_a_text_are_told_how_to_be_embedded(desk: Desk, options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        desk.run([Item({"id": 1, "body": "It rains."}, "in.jsonl:1")], FakeChain(frozenset({"text"})), **options)
    assert hint in caught.value.hint


def test_an_empty_input_is_said(desk: Desk) -> None:
    assert desk.run([]) == []
    assert len(desk.events.of(Notice)) == 1


# --- the chain changed


def test_a_changed_chain_is_refused_and_shown(desk: Desk) -> None:
    desk.run(items_of("abc"))
    error = desk.refuses(RefusedError, items_of("abc"), FakeChain(identity={"prompt": "second"}))
    assert "3 rows" in error.message
    assert 'prompt: "first" -> "second"' in error.message


def test_of_a_changed_schema_the_difference_is_shown(desk: Desk) -> None:
    long = {f"field{number}": {"type": "string"} for number in range(20)}
    before, after = ({"type": "object", "properties": {**long, "z": {"enum": [word]}}} for word in ("old", "new"))
    desk.run(items_of("abc"), FakeChain(identity={"schema": before}))
    error = desk.refuses(RefusedError, items_of("abc"), FakeChain(identity={"schema": after}))
    assert '{"properties":{"z":{"enum":["old"]}}} -> {"properties":{"z":{"enum":["new"]}}}' in error.message


def test_a_changed_chain_is_asked_anew_where_that_is_wanted_and_going_back_is_free(desk: Desk) -> None:
    second = FakeChain(identity={"prompt": "second"})
    desk.run(items_of("abc"))
    assert desk.run(items_of("abc"), second, on_change="redo") == ["a", "b", "c"]
    assert desk.run(items_of("abcd"), on_change="redo") == ["d"]
    assert desk.run(items_of("abcd")) == []


def test_old_answers_are_kept_where_that_is_wanted(desk: Desk) -> None:
    second = FakeChain(identity={"prompt": "second"})
    desk.run(items_of("abc"))
    assert desk.run(items_of("abcd"), second, on_change="keep") == ["d"]
    assert desk.run(items_of("abcd"), second) == []
    assert desk.standing() == list("abcd")


def test_answers_cannot_be_kept_when_other_fields_make_the_rows(desk: Desk) -> None:
    desk.run([item_of("a", note=1)])
    other = FakeChain(uses=frozenset({"text", "note"}), identity={"prompt": "second"})
    desk.refuses(RefusedError, [item_of("a", note=1)], other, on_change="keep")


def test_a_chain_that_never_answered_is_changed_freely(desk: Desk) -> None:
    desk.run(items_of("abc"), unanswered=True)
    assert desk.run(items_of("abc"), FakeChain(identity={"prompt": "second"})) == ["a", "b", "c"]


# --- rows are gone


@pytest.mark.parametrize("piped", [False, True])
def test_few_rows_that_are_gone_leave_the_output(desk: Desk, *, piped: bool) -> None:
    desk.run(items_of("abcdefghij"), piped=piped)
    assert desk.run(items_of("abcdefghi"), piped=piped) == []
    assert desk.standing() == list("abcdefghi")


@pytest.mark.parametrize(("left", "read"), [("abcdefgh", "8 rows were read"), ("", "nothing was read")])
def test_many_rows_that_are_gone_are_refused(desk: Desk, left: str, read: str) -> None:
    desk.run(items_of("abcdefghij"))
    error = desk.refuses(RefusedError, items_of(left))
    assert f"{10 - len(left)} of the 10 rows" in error.message
    assert read in error.message
    assert error.exit_code == 65


@pytest.mark.parametrize(
    "chars", ["abcdefghijklmnopqrst", "abcdefghijABCDEFGHIJKLMNOP"], ids=["known", "new and known"]
)
def test_the_share_of_rows_gone_is_one_of_what_stood_and_not_of_what_comes_back(desk: Desk, chars: str) -> None:
    desk.run(items_of("abcdefghijklmnopqrst"))
    assert desk.run(items_of("abcdefghij"), on_removed="drop") == []
    error = desk.refuses(RefusedError, items_of(chars.replace("ab", "")))
    assert "2 of the 10 rows" in error.message


def test_a_pipe_that_brings_much_takes_no_more_away_than_one_that_brings_little(desk: Desk) -> None:
    desk.run(items_of("ab"), piped=True)
    assert len(desk.run(items_of("cdefghijklmnopqrstuvwxyzABCDEFGH"), piped=True)) == 32
    assert {"a", "b"} <= set(desk.standing())


def test_an_input_cut_to_nothing_is_refused_even_where_little_stands(desk: Desk) -> None:
    desk.run(items_of("a"))
    desk.refuses(RefusedError, [])


@pytest.mark.parametrize(("mode", "standing"), [("drop", "cX"), ("keep", "abcX")])
def test_what_becomes_of_rows_that_are_gone_can_be_said(desk: Desk, mode: str, standing: str) -> None:
    desk.run(items_of("abc"))
    assert desk.run(items_of("cX"), on_removed=mode) == ["X"]
    assert desk.standing() == sorted(standing)


def test_edited_rows_are_not_gone(desk: Desk) -> None:
    desk.run([item_of(text, id=str(number)) for number, text in enumerate("abcdef")])
    edited = [item_of(text.upper(), id=str(number)) for number, text in enumerate("abcdef")]
    assert desk.run(edited) == list("ABCDEF")
    assert desk.standing() == list("ABCDEF")
    assert sum(event.gone for event in desk.events.of(RowsPlanned)) == 0


def test_a_pipe_forgets_what_is_no_longer_in_it(desk: Desk) -> None:
    desk.run(items_of("abc"), piped=True, lenient=True, on_change="refuse")
    second = FakeChain(identity={"prompt": "second"})
    assert desk.run(items_of("cX"), second, piped=True, lenient=True) == ["c", "X"]
    assert desk.standing() == ["X", "c"]


def test_rows_of_an_unfinished_run_are_called_in_input_order(desk: Desk) -> None:
    desk.run(items_of("abcdef"), limit=2)
    assert desk.run([replace(item, place="moved") for item in items_of("faecbd")]) == ["f", "e", "c", "d"]


def test_an_input_that_is_damaged_before_its_first_row_is_not_called_empty(desk: Desk) -> None:
    desk.run(items_of("ab"))
    assert desk.run([], damaged=InputDamaged("in.jsonl.gz cannot be unpacked")) == []
    assert desk.events.of(Notice) == []
    assert desk.standing() == ["a", "b"]
    desk.run([], on_removed="keep")
    assert [notice.text for notice in desk.events.of(Notice)] == ["there are no rows in the input"]


# --- what is asked anew


def labelled(texts: str) -> list[Item]:
    """Rows with ids; small and capital letters are the same row, edited."""
    return [item_of(text, id=text.lower()) for text in texts]


def test_edited_rows_under_a_limit_leave_once_their_successors_stand(desk: Desk) -> None:
    desk.run(labelled("abcdef"))
    assert desk.run(labelled("ABCdef"), limit=2) == ["A", "B"]
    assert desk.standing() == sorted("ABcdef")
    assert desk.run(labelled("ABCdef")) == ["C"], "none of them is gone"
    assert desk.standing() == sorted("ABCdef")
    assert desk.run(labelled("ABCdef")) == []


def test_a_limit_refuses_nothing_since_it_takes_nothing_away(desk: Desk) -> None:
    desk.run(items_of("abcdef"))
    assert desk.run(items_of("aX"), limit=1) == ["X"]
    assert desk.standing() == sorted("abcdefX")
    desk.refuses(RefusedError, items_of("aX"))


def test_a_limited_redo_leaves_old_answers_until_new_ones_come(desk: Desk) -> None:
    second = FakeChain(identity={"prompt": "second"})
    desk.run(items_of("abcd"))
    assert desk.run(items_of("abcd"), second, on_change="redo", limit=2) == ["a", "b"]
    assert desk.standing() == list("abcd")
    assert desk.run(items_of("abcd"), second) == ["c", "d"]


def test_a_redo_by_other_fields_leaves_nothing_behind(desk: Desk) -> None:
    """Old rows cannot be matched to new ones, so they are neither gone nor kept."""
    other = FakeChain(uses=frozenset({"text", "note"}), identity={"prompt": "second"})
    rows = [item_of(text, note=1) for text in "abcd"]
    desk.run(rows)
    assert desk.run(rows, other, on_change="redo", limit=1) == ["a"]
    assert desk.standing() == sorted("aabcd")
    assert desk.run(rows, other) == ["b", "c", "d"]
    assert desk.standing() == list("abcd")


@pytest.mark.parametrize("limit", [None, 1])
def test_rows_gone_from_a_redone_output_leave_it(desk: Desk, limit: int | None) -> None:
    second = FakeChain(identity={"prompt": "second"})
    desk.run(items_of("abcd"))
    desk.run(items_of("ab"), second, on_change="redo", limit=limit)
    assert desk.standing() == list("abcd" if limit else "ab")


# --- pipes


def test_a_pipe_is_not_refused_when_it_has_been_paid_for(desk: Desk) -> None:
    desk.run(items_of("abcde"), piped=True)
    desk.events.clear()
    assert desk.run(items_of("vwxyz"), piped=True) == list("vwxyz")
    assert desk.standing() == list("abcdevwxyz")
    (said,) = desk.events.of(Notice)
    assert "5" in said.text
    assert "--on-removed drop" in said.text
    assert sum(one.gone for one in desk.events.of(RowsPlanned)) == 0
    assert desk.run(items_of("vwxyz"), piped=True, on_removed="drop") == []
    assert desk.standing() == list("vwxyz")


def test_an_empty_pipe_takes_nothing_away(desk: Desk) -> None:
    desk.run(items_of("a"), piped=True)
    assert desk.run([], piped=True) == []
    assert desk.standing() == ["a"]


def test_a_pipe_without_an_output_of_its_own_has_no_old_answers(desk: Desk) -> None:
    desk.run(labelled("abc"), piped=True, lenient=True)
    second = FakeChain(identity={"prompt": "second"})
    assert desk.run(labelled("Ab"), second, piped=True, lenient=True, limit=1) == ["A"]
    assert desk.standing() == ["A"]


def test_a_pipe_without_an_output_of_its_own_leaves_edited_rows_out_at_once(desk: Desk) -> None:
    desk.run(labelled("abc"), piped=True, lenient=True)
    assert desk.run(labelled("Abc"), piped=True, lenient=True, unanswered=True) == ["A"]
    assert desk.standing() == ["b", "c"]
