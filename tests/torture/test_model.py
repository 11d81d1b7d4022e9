"""Runs, deaths, full disks and edits in any order, against what must be so: who is called, what stands, what was paid."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from typer.testing import CliRunner

from lcbatch.app import Retry
from lcbatch.cli.commands import app
from lcbatch.errors import Kind
from lcbatch.job import Job
from lcbatch.store.opened import open_store
from tests.store.support import fast_folder
from tests.torture.expected import KINDS, Key, Model, Row, keys_of
from tests.torture.forked import CAN_FORK, KILLED, Came, Fate, Provider, forked, rows_in
from tests.torture.scale import cases, note

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="needs fork, as Linux has it")

_FILTERED, _SHAKY = "f", "s"
"""A text that ends so is refused for good until the provider thinks better of it; or fails when the provider is unwell."""

_ANSWERS = """
SELECT json_extract(r.fields, '$.text'), r.equal_before, r.sample, c.identity, a.done, a.kind, coalesce(a.output, q.text)
FROM answers a JOIN rows r USING (row_id) JOIN chains c USING (chain_id)
LEFT JOIN replies q ON q.row_id = coalesce(a.shared_from, a.row_id) AND q.request_key = a.reply_key
"""
_REPLIES = """
SELECT json_extract(r.fields, '$.text'), r.equal_before, r.sample, q.text FROM replies q JOIN rows r USING (row_id)
WHERE NOT q.superseded
"""
_ACCEPTED = """
SELECT a.identity, b.identity FROM accepts JOIN chains a USING (chain_id) JOIN chains b ON b.chain_id = accepts.other_id
"""
_CHAIN = "SELECT identity FROM chains WHERE chain_id = (SELECT value FROM meta WHERE name = 'chain')"
_STANDING = """
SELECT json_extract(r.fields, '$.text'), r.equal_before, r.sample, c.identity FROM standing s
JOIN rows r USING (row_id) JOIN chains c USING (chain_id)
"""


@dataclass(frozen=True)
class Options:
    """How a run is started."""

    prompt: str
    samples: int
    dedupe: bool
    ordered: bool
    form: str
    at_once: int
    on_change: str
    on_removed: str
    fresh: bool
    unwell: bool


def prompt_of(identity: str) -> str:
    return str(json.loads(identity)["prompt"])


Edit: TypeAlias = Callable[[list[Row]], None]


def _appending(rows: list[Row]) -> Edit:
    return lambda there: there.extend(rows)


def _changing(at: int, row: Row) -> Edit:
    return lambda there: there.__setitem__(slice(at, at + 1), [row] if there[at:] else [])


def _deleting(at: int, count: int) -> Edit:
    return lambda there: there.__delitem__(slice(at, at + count))


def _duplicating(at: int, count: int) -> Edit:
    return lambda there: there.extend(there[at : at + count])


_MOST_ROWS = 14
_TEXTS = st.sampled_from(["a", "b", "c", _FILTERED, _SHAKY])
_ROWS = st.builds(Row, _TEXTS, st.integers(0, 3))
_AT = st.integers(0, 12)
_EDITS = st.lists(
    st.one_of(
        st.builds(_appending, st.lists(_ROWS, min_size=1, max_size=4)),
        st.builds(_appending, st.lists(_ROWS, min_size=1, max_size=4)),
        st.builds(_changing, _AT, _ROWS),
        st.builds(_deleting, _AT, st.integers(1, 3)),
        st.builds(_duplicating, _AT, st.integers(1, 3)),
        st.just(list.reverse),
    ),
    max_size=2,
)
_OPTIONS = st.builds(
    Options,
    prompt=st.sampled_from(["Say {text}"] * 5 + ["Tell {text}"]),
    samples=st.sampled_from([1, 1, 1, 2, 3]),
    dedupe=st.sampled_from([False, False, True]),
    ordered=st.booleans(),
    form=st.sampled_from(["out.jsonl", "out.jsonl", "out.csv"]),
    at_once=st.integers(1, 4),
    on_change=st.sampled_from(["refuse", "redo", "keep"]),
    on_removed=st.sampled_from(["refuse", "drop", "drop", "keep"]),
    fresh=st.sampled_from([False] * 15 + [True]),
    unwell=st.booleans(),
)
_KILLS = st.one_of(
    st.builds(Fate, st.just("kill"), st.sampled_from(["asked", "billed"]), st.integers(1, 6)),
    st.builds(Fate, st.just("kill"), st.sampled_from(["commit", "committed"]), st.integers(1, 40)),
    st.builds(Fate, st.just("kill"), st.just("write"), st.integers(1, 6)),
)
_FULL = st.builds(Fate, st.just("full"), st.sampled_from(["asked", "billed", "committed"]), st.integers(1, 12))


class Torture(RuleBasedStateMachine):
    """Every rule does one thing to an output, and looks."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self._folder = fast_folder()
        self.folder = Path(self._folder.name)
        self.store = self.folder / "store"
        self.model = Model()
        self.rows: list[Row] = [Row("a", 0), Row("b", 1), Row("a", 2)]
        self.last: Options | None = None
        self.story: list[str] = []

    def teardown(self) -> None:
        self._folder.cleanup()

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

    # --- runs

    @rule(edits=_EDITS, options=_OPTIONS)
    def run(self, *, edits: list[Edit], options: Options) -> None:
        self._edit(edits)
        self._run(options, None)

    @rule(edits=_EDITS, options=_OPTIONS, fate=_KILLS)
    def killed(self, *, edits: list[Edit], options: Options, fate: Fate) -> None:
        self._edit(edits)
        self._run(options, fate)

    @rule(edits=_EDITS, options=_OPTIONS, fate=_FULL)
    def disk_full(self, *, edits: list[Edit], options: Options, fate: Fate) -> None:
        self._edit(edits)
        self._run(options, fate)

    def _edit(self, edits: list[Edit]) -> None:
        """Change the input."""
        for edit in edits:
            edit(self.rows)
        del self.rows[_MOST_ROWS:]

    @rule()
    def same_again(self) -> None:
        """What is done is not called again."""
        if self.last is not None:
            self._run(self.last, None)

    @rule(unwell=st.booleans(), merciful=st.booleans(), fate=st.none() | _KILLS)
    def retry(self, *, unwell: bool, merciful: bool, fate: Fate | None) -> None:
        """Failed rows again, from the store alone."""
        if self.last is None or self.model.prompt != self.last.prompt or not self.model.standing:
            return
        self.story.append(f"retry, unwell {unwell}, merciful {merciful}, {fate}")
        failing = self._failing(unwell=unwell, filtered=not merciful)
        job = self._job(self.last, inputs=False)
        expected = self.model.to_retry(dedupe=self.last.dedupe)
        came = forked(job, Provider(self.model.billed_runs, failing), self.folder, fate=fate, again=Retry())
        with self._told():
            self._check_calls(came, expected, self.last, fate)
            self._look(came, self.last, fate)
            if came.code in {0, 3}:
                self._check_failed()

    def _run(self, options: Options, fate: Fate | None) -> None:
        self.story.append(f"{[row.text for row in self.rows]}, {options}, {fate}")
        with self._told():
            self._run_and_look(options, fate)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A failure says what came before it: deaths fall a little otherwise each time, and may not show it again."""
        try:
            yield
        except AssertionError as error:
            error.add_note("\n".join(self.story))
            raise

    def _run_and_look(self, options: Options, fate: Fate | None) -> None:
        wanted = keys_of(self.rows, options.samples)
        if options.fresh:
            self.model = Model(billed=self.model.billed, billed_runs=self.model.billed_runs)
            self._fresh_start(options)
        changed = self.model.prompt not in {None, options.prompt}
        if changed and self.model.standing and options.on_change == "refuse":
            self._refused(options)
            return
        if not changed and self._too_many_gone(options, wanted):
            self._refused(options)
            return
        if changed and options.on_removed != "drop":
            options = replace(options, on_removed="drop")  # what is stale counts for nothing: another test's
        self._write()
        self.model.adopt(options.prompt, keep=options.on_change == "keep")
        expected = self.model.to_call(wanted, dedupe=options.dedupe)
        failing = self._failing(unwell=options.unwell, filtered=True)
        came = forked(self._job(options), Provider(self.model.billed_runs, failing), self.folder, fate=fate)
        self.last = options
        self._check_calls(came, expected, options, fate)
        self._look(came, options, fate)
        if came.code in {0, 3}:
            self._check_output(options, wanted)

    # --- their parts

    def _fresh_start(self, options: Options) -> None:
        """What is there is set aside by a run of its own, so that what it does then is a first run's."""
        self._write()
        none = Job.of(str(self.folder / "none.jsonl"), **{**self._given(options), "fresh": True})
        (self.folder / "none.jsonl").write_text("")
        came = forked(none, Provider(0, {}), self.folder)
        assert (came.code, came.asked) == (0, []), came.said
        self.model.adopt(options.prompt, keep=False)
        for form in {"out.jsonl", "out.csv"} - {options.form}:
            (self.folder / form).unlink(missing_ok=True)  # an output of the old store, which the new one would refuse

    def _refused(self, options: Options) -> None:
        """Nothing is asked and nothing is touched."""
        self._write()
        before = self._stored(), self._outputs()
        came = forked(self._job(options), Provider(self.model.billed_runs, {}), self.folder)
        assert (came.code, came.asked) == (65, []), came.said
        assert (self._stored(), self._outputs()) == before

    def _too_many_gone(self, options: Options, wanted: Sequence[Key]) -> bool:
        """Whether a run refuses: more than a tenth of what stood is gone from the input, or all of it."""
        if options.on_removed != "refuse" or not self.model.standing:
            return False
        accepted = self.model.accepts.get(options.prompt, set())
        standing = [key for key in self.model.standing if key[2] < options.samples]
        gone = [key for key in standing if key not in wanted and self.model.standing[key] in accepted]
        return bool(gone) and (not self.rows or len(gone) > 0.1 * len(standing))

    def _check_calls(self, came: Came, expected: Counter[str], options: Options, fate: Fate | None) -> None:
        """Who was called, and how it ended. A death before the last call may leave some uncalled."""
        prompts = Counter({options.prompt.replace("{text}", text): times for text, times in expected.items()})
        asked = Counter(came.asked)
        assert came.code in {0, 3, *({KILLED} if fate and fate.what == "kill" else {74} if fate else ())}, came.said
        if came.code in {0, 3}:
            assert asked == prompts, f"called {asked}, to be called were {prompts}"
        else:
            assert asked <= prompts, f"called {asked}, to be called were at most {prompts}"

    def _look(self, came: Came, options: Options, fate: Fate | None) -> None:
        """Read the store as it is after a run: nothing that was paid is missing, but for what a death cut off in flight."""
        before = {answer for outcomes in self.model.known.values() for answer in outcomes.values()}
        self.model.billed_runs += len(came.asked)
        self.model.billed |= came.billed
        asyncio.run(self._opened())  # takes in what stands in the reserve
        known, self.model.standing = self._stored()
        self._look_at_chain(came)
        answers = {answer for outcomes in known.values() for answer in outcomes.values()} - KINDS
        assert answers <= set(self.model.billed), "an answer that nobody gave"
        lost = set(came.billed) - answers
        assert len(lost) <= (options.at_once if came.code == KILLED else 0), f"{sorted(lost)} lost; {fate}"
        # Under --dedupe a row whose own reply was kept just before a death takes what an equal row has come to.
        replies = {_plain(said) for *_, said in rows_in(self.store, _REPLIES)}
        assert (before - KINDS) <= answers | replies, "an old answer is gone"
        self.model.known = known

    def _look_at_chain(self, came: Came) -> None:
        """By whose prompt the output is made: as the model says, but where a death or a full disk came before that was kept."""
        chain = [prompt_of(identity) for (identity,) in rows_in(self.store, _CHAIN)]
        accepts: dict[str, set[str]] = {}
        for identity, other in rows_in(self.store, _ACCEPTED):
            accepts.setdefault(prompt_of(identity), set()).add(prompt_of(other))
        if came.code not in {KILLED, 74}:
            assert (chain, accepts) == ([self.model.prompt], self.model.accepts)
        self.model.prompt, self.model.accepts = next(iter(chain), None), accepts

    async def _opened(self) -> None:
        if self.store.exists():
            async with open_store(self.store):
                pass

    def _stored(self) -> tuple[dict[Key, dict[str, str]], dict[Key, str]]:
        """All outcomes by row and prompt, and the prompts of what stands."""
        known: dict[Key, dict[str, str]] = {}
        for text, equal_before, sample, identity, done, kind, said in rows_in(self.store, _ANSWERS):
            answer = _plain(said) if done else kind
            known.setdefault((text, equal_before, sample), {})[prompt_of(identity)] = answer
        for text, equal_before, sample, said in rows_in(self.store, _REPLIES):
            answer = _plain(said)
            asked = self.model.billed[answer].rpartition(" ")[0] + " {text}"
            known.setdefault((text, equal_before, sample), {}).setdefault(asked, answer)
        standing = {
            (text, before, sample): prompt_of(identity)
            for text, before, sample, identity in rows_in(self.store, _STANDING)
        }
        return known, standing

    def _check_output(self, options: Options, wanted: Sequence[Key]) -> None:
        """After a run that came to its end: each row once, with an answer that is its own, or among those that failed."""
        lines = self._lines(options)
        done = [key for key in wanted if self.model.answered(key)]
        kept = [key for key in self.model.standing if key not in wanted]
        assert not kept or options.on_removed == "keep" or not self.rows, f"{kept} are gone from the input"
        notes = {key: row.note for key, row in zip(wanted[:: options.samples], self.rows, strict=True)}
        expected = [(text, notes[text, before, 0], sample) for text, before, sample in done]
        shown = [(line["text"], int(line["note"]), int(line["sample"])) for line in lines]
        kept_shown = Counter(key[0] for key in kept if self.model.answered(key))
        assert sum((Counter(shown) - Counter(expected)).values()) == kept_shown.total(), (shown, expected)
        assert not Counter(expected) - Counter(shown), (shown, expected)
        if (options.ordered or options.form == "out.csv") and not kept:
            assert shown == expected
        for line in lines:
            said = self.model.billed[line["output"]]
            assert said in {prompt.replace("{text}", line["text"]) for prompt in self.model.accepts[options.prompt]}
        if not options.dedupe and not any(self._shared()):
            assert len({line["output"] for line in lines}) == len(lines), "two rows share an answer"
        self._check_failed()

    def _check_failed(self) -> None:
        failed = Counter(key[0] for key in self.model.standing if self.model.failed(key))
        path = self.folder / "errors.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        assert Counter(line["text"] for line in lines) == failed

    def _shared(self) -> list[int]:
        return [row for (row,) in rows_in(self.store, "SELECT shared_from FROM answers WHERE shared_from IS NOT NULL")]

    def _lines(self, options: Options, name: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / (name or options.form)
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["output"]]
        else:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{"sample": 0, **row} for row in rows]

    # --- what looks on

    @rule(form=st.sampled_from(["export.jsonl", "export.csv"]))
    def export(self, *, form: str) -> None:
        """It shows what stands, each row once, whatever happened before."""
        if self.last is None or not self.model.standing:
            return
        arguments = [str(self.folder / self.last.form), "--store", str(self.store), "-o", str(self.folder / form)]
        result = CliRunner().invoke(app, ["export", *arguments], standalone_mode=False)
        assert result.exit_code == 0, result.output
        lines = self._lines(self.last, form)
        assert all(line["output"] in self.model.billed for line in lines)
        assert len(lines) <= len(self.model.standing)

    @rule()
    def status(self) -> None:
        if self.last is None or not self.model.standing:
            return
        arguments = [str(self.folder / self.last.form), "--store", str(self.store), "--json"]
        result = CliRunner().invoke(app, ["status", *arguments], standalone_mode=False)
        assert result.exit_code == 0, result.output

    def _write(self) -> None:
        lines = [json.dumps({"text": row.text, "note": row.note}) + "\n" for row in self.rows]
        (self.folder / "in.jsonl").write_text("".join(lines))

    def _outputs(self) -> dict[str, bytes]:
        paths = [self.folder / name for name in ("out.jsonl", "out.csv", "errors.jsonl")]
        return {path.name: path.read_bytes() for path in paths if path.exists()}

    def _failing(self, *, unwell: bool, filtered: bool) -> dict[str, Kind]:
        return {
            **({_FILTERED: Kind.CONTENT_FILTER} if filtered else {}),
            **({_SHAKY: Kind.TRUNCATED} if unwell else {}),
        }

    def _given(self, options: Options) -> dict[str, Any]:
        return {
            "model": "openai:sim",
            "prompt": options.prompt,
            "output": str(self.folder / options.form),
            "store": str(self.store),
            "errors": str(self.folder / "errors.jsonl"),
            "progress": "none",
            "quiet": True,
            "samples": options.samples if options.samples > 1 or options.unwell else None,
            "dedupe": options.dedupe,
            "ordered": options.ordered or None,
            "concurrency": str(options.at_once),
            "on_change": options.on_change,
            "on_removed": options.on_removed,
            "failed_rows": "omit",
        }

    def _job(self, options: Options, *, inputs: bool = True) -> Job:
        given = self._given(options)
        if not inputs:
            return Job.of(**{**given, "on_change": "refuse"})
        return Job.of(str(self.folder / "in.jsonl"), **given)


def _plain(said: str) -> str:
    """An answer's text; an output stands as JSON, a reply as it came."""
    return str(json.loads(said)) if said.startswith('"') else said


def test_any_sequence_of_runs_deaths_and_edits_is_as_the_model_says() -> None:
    Torture.steps = 0
    run_state_machine_as_test(
        Torture,
        settings=settings(
            max_examples=cases(5, 270),
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=[Phase.generate],  # a death never falls quite the same: what fails is told, and not made smaller
        ),
    )
    note("a model over runs, kills, full disks, edits, retries, exports", "5,000 steps", f"{Torture.steps} steps")
