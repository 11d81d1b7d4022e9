"""The same command again: what is called, what the output holds, what is refused. The provider's ledger is the judge."""

from __future__ import annotations

import asyncio
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lcbatch import ending
from lcbatch.app import Report
from lcbatch.errors import RefusedError
from lcbatch.outputs import Place, remove_store
from lcbatch.store.lock import holder_of
from tests.e2e.support import MODEL, Shop, cli, rows_of, texts


class Ledger:
    """How many calls each step billed."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._seen = len(shop.billed())

    def called(self) -> list[str]:
        """The prompts billed since the last look, sorted."""
        entries = self._shop.billed()
        fresh, self._seen = entries[self._seen :], len(entries)
        return sorted(entry["prompt"] for entry in fresh)


def run(shop: Shop, **options: Any) -> Report:
    return asyncio.run(shop.run("in.jsonl", **options))


def test_what_a_run_writes_among_its_input_is_not_read_by_the_next_one(shop: Shop) -> None:
    (shop.folder / "in").mkdir()
    shop.write("in/a.jsonl", rows_of("good", "bad [[fault:filter]]"))
    words = [word for word in shop.words("in/*.jsonl") if word not in {"-o", "out.jsonl"}]
    words += ["-o", "in/out.jsonl", "--errors", "in/e.jsonl", "--summary-json", "in/figures.jsonl"]
    ledger = Ledger(shop)

    for _ in range(2):
        ended = cli(*words, cwd=shop.folder)
        assert ended.returncode == 3, ended.stderr
        (figures,) = shop.output("in/figures.jsonl")
        assert figures["rows"]["total"] == 2
        assert [len(shop.output(f"in/{name}.jsonl")) for name in ("out", "e")] == [1, 1]

    assert len(ledger.called()) == 2
    assert sorted(path.name for path in (shop.folder / "in").glob("*.jsonl")) == [
        "a.jsonl",
        "e.jsonl",
        "figures.jsonl",
        "out.jsonl",
    ]


def test_figures_in_an_inputs_place_are_refused_before_anything_is_touched(shop: Shop) -> None:
    (shop.folder / "in").mkdir()
    text = shop.write("in/b.jsonl", rows_of("good")).read_text()

    ended = cli(*shop.words("in/*.jsonl"), "--summary-json", "in/b.jsonl", cwd=shop.folder)

    assert (ended.returncode, ended.stderr.splitlines()[0]) == (
        2,
        "error: in/b.jsonl would be both --summary-json and the input",
    )
    assert (shop.folder / "in/b.jsonl").read_text() == text
    assert not list(shop.folder.glob("out.jsonl*"))


def test_a_file_of_the_users_in_an_answers_place_is_kept_and_told(shop: Shop) -> None:
    shop.write("in.jsonl", [{"id": "r0", "text": "a"}])
    (shop.folder / "out").mkdir()
    (shop.folder / "out" / "r0.md").write_text("mine")
    ran = cli(
        "run",
        "in.jsonl",
        "-p",
        "Say {text}",
        "-o",
        "out/",
        "-m",
        MODEL,
        "--base-url",
        shop.provider.base_url,
        cwd=shop.folder,
    )
    assert ran.returncode == 0, ran.stderr
    (kept,) = (shop.folder / "out").glob("r0.md.orig-*")
    assert kept.read_text() == "mine"
    assert kept.name in ran.stderr


def test_an_unchanged_input_is_not_called_again(shop: Shop) -> None:
    ledger = Ledger(shop)
    shop.write("in.jsonl", rows_of("a", "b", "c"))
    assert run(shop).exit_code == 0
    assert ledger.called() == ["Say a", "Say b", "Say c"]
    before = (shop.folder / "out.jsonl").read_bytes()
    report = run(shop)
    assert (report.exit_code, report.snapshot.rows.reused, report.snapshot.rows.done) == (0, 3, 0)
    assert ledger.called() == []
    assert (shop.folder / "out.jsonl").read_bytes() == before


def test_rows_added_removed_reordered_and_edited(shop: Shop) -> None:
    ledger = Ledger(shop)
    words = [f"w{number:02}" for number in range(20)]
    shop.write("in.jsonl", rows_of(*words))
    run(shop)
    ledger.called()
    changed = ["new", *reversed(words[2:]), "w00 edited"]
    shop.write("in.jsonl", rows_of(*changed))
    assert run(shop).exit_code == 0
    assert ledger.called() == ["Say new", "Say w00 edited"]
    assert texts(shop.output()) == sorted(changed)
    shop.write("in.jsonl", rows_of(*words))
    assert run(shop).exit_code == 0
    assert ledger.called() == [], "rows that come back are answered from the store"
    assert texts(shop.output()) == words


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_ordered_output_follows_the_input(shop: Shop, output: str) -> None:
    words = [f"w{number:02}" for number in range(30)]
    shop.write("in.jsonl", rows_of(*words))
    asyncio.run(shop.run("in.jsonl", output=output, ordered=True))
    shop.write("in.jsonl", rows_of("first", *reversed(words), "last"))
    asyncio.run(shop.run("in.jsonl", output=output, ordered=True))
    lines = (shop.folder / output).read_text().splitlines()
    found = (
        [json.loads(line)["text"] for line in lines] if output == "out.jsonl" else [x.split(",")[0] for x in lines[1:]]
    )
    assert found == ["first", *reversed(words), "last"]


def test_a_pass_through_column_is_rewritten_without_a_call(shop: Shop) -> None:
    ledger = Ledger(shop)
    shop.write("in.jsonl", [{"text": word, "note": "old"} for word in "abc"])
    run(shop)
    ledger.called()
    shop.write("in.jsonl", [{"text": word, "note": "new"} for word in "abc"])
    assert run(shop).exit_code == 0
    assert ledger.called() == []
    assert {row["note"] for row in shop.output()} == {"new"}
    assert texts(shop.output()) == ["a", "b", "c"]


def test_equal_rows_are_separate_answers(shop: Shop) -> None:
    ledger = Ledger(shop)
    shop.write("in.jsonl", rows_of("x", "x", "x", "y"))
    run(shop)
    assert ledger.called() == ["Say x"] * 3 + ["Say y"]
    shop.write("in.jsonl", rows_of("x", "y", "x", "x", "x"))
    run(shop)
    assert ledger.called() == ["Say x"]
    assert texts(shop.output()) == ["x"] * 4 + ["y"]


@pytest.mark.parametrize("left", [0, 5])
def test_an_input_that_lost_much_is_refused_untouched(shop: Shop, left: int) -> None:
    ledger = Ledger(shop)
    words = [f"w{number}" for number in range(10)]
    shop.write("in.jsonl", rows_of(*words))
    run(shop)
    ledger.called()
    before = (shop.folder / "out.jsonl").read_bytes()
    shop.write("in.jsonl", rows_of(*words[:left]))
    report = run(shop)
    assert report.exit_code == 65
    assert report.error is not None
    assert "--on-removed" in report.error.hint
    assert (shop.folder / "out.jsonl").read_bytes() == before
    shop.write("in.jsonl", rows_of(*words))
    assert run(shop).exit_code == 0
    assert ledger.called() == []
    shop.write("in.jsonl", rows_of(*words[:left]))
    assert run(shop, on_removed="keep").exit_code == 0
    assert texts(shop.output()) == words
    assert run(shop, on_removed="drop").exit_code == 0
    assert texts(shop.output()) == words[:left]
    assert ledger.called() == []


def test_a_changed_prompt_is_refused_then_redone_then_free_to_go_back(shop: Shop) -> None:
    ledger = Ledger(shop)
    shop.write("in.jsonl", rows_of("a", "b"))
    run(shop)
    first = (shop.folder / "out.jsonl").read_bytes()
    ledger.called()
    report = run(shop, prompt="Shout {text}")
    assert isinstance(report.error, RefusedError)
    assert "Shout {text}" in report.error.message
    assert "2 rows" in report.error.message
    assert (shop.folder / "out.jsonl").read_bytes() == first
    assert ledger.called() == []
    assert run(shop, prompt="Shout {text}", on_change="redo").exit_code == 0
    assert ledger.called() == ["Shout a", "Shout b"]
    assert run(shop, on_change="redo").exit_code == 0
    assert ledger.called() == [], "going back to an earlier prompt is free"
    assert sorted((shop.folder / "out.jsonl").read_bytes().splitlines()) == sorted(first.splitlines())


def test_a_changed_prompt_kept_asks_only_what_is_new(shop: Shop) -> None:
    ledger = Ledger(shop)
    shop.write("in.jsonl", rows_of("a", "b"))
    run(shop)
    ledger.called()
    shop.write("in.jsonl", rows_of("a", "b", "c"))
    assert run(shop, prompt="Shout {text}", on_change="keep").exit_code == 0
    assert ledger.called() == ["Shout c"]
    assert texts(shop.output()) == ["a", "b", "c"]


def test_limit_counts_calls_and_never_shortens_the_output(shop: Shop) -> None:
    ledger = Ledger(shop)
    shop.write("in.jsonl", rows_of(*"abcdef"))
    run(shop, limit=2)
    assert len(ledger.called()) == 2
    run(shop, limit=3)
    assert len(ledger.called()) == 3
    assert len(shop.output()) == 5
    run(shop)
    assert len(ledger.called()) == 1
    assert texts(shop.output()) == list("abcdef")


def test_fresh_sets_the_old_output_aside(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    run(shop)
    before = (shop.folder / "out.jsonl").read_bytes()
    ledger = Ledger(shop)
    run(shop, fresh=True)
    assert ledger.called() == ["Say a"]
    aside = [path for path in shop.folder.iterdir() if ".old-" in path.name]
    assert {path.name.split(".old-")[0] for path in aside} >= {"out.jsonl", "out.jsonl.lcbatch"}
    assert next(path for path in aside if path.name.startswith("out.jsonl.old-")).read_bytes() == before


def test_a_fresh_start_that_comes_to_nothing_puts_everything_back(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b [[fault:filter]]"))
    assert run(shop).exit_code == 3
    names, before = sorted(shop.folder.iterdir()), (shop.folder / "out.jsonl").read_bytes()
    ledger = Ledger(shop)

    assert run(shop, fresh=True, prompt="Say {no_such_field}").exit_code == 78

    assert sorted(shop.folder.iterdir()) == names
    assert (shop.folder / "out.jsonl").read_bytes() == before
    assert run(shop).exit_code == 3
    assert ledger.called() == [], "the old store answers"
    assert run(shop, fresh=True, prompt="Shout {text}").exit_code == 3
    assert ledger.called() == ["Shout a", "Shout b [[fault:filter]]"]
    assert len(list(shop.folder.glob("out.jsonl.old-*"))) == 1


def test_a_deleted_or_edited_output_is_rebuilt_without_a_call(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    run(shop)
    before = (shop.folder / "out.jsonl").read_bytes()
    ledger = Ledger(shop)
    (shop.folder / "out.jsonl").unlink()
    run(shop)
    assert (shop.folder / "out.jsonl").read_bytes() == before
    (shop.folder / "out.jsonl").write_text("my own words\n")
    run(shop)
    assert (shop.folder / "out.jsonl").read_bytes() == before
    assert any(path.read_text() == "my own words\n" for path in shop.folder.glob("out.jsonl.edited-*"))
    assert ledger.called() == []


_MEDDLING = """
import os

def answer(fields):
    out = fields["out"]
    if fields["text"] in {"take", "replace"}:
        os.rename(out, out + ".taken")
    if fields["text"] == "replace":
        with open(out, "w") as file:
            file.write("my own words\\n")
    return fields["text"].upper()
"""


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize("word", ["take", "replace"])
def test_an_output_that_is_taken_away_during_the_run_is_written_again(shop: Shop, word: str, output: str) -> None:
    (shop.folder / "meddling.py").write_text(_MEDDLING)
    rows = [{"text": text, "out": str(shop.folder / output)} for text in ("a", "b", word, "c")]
    shop.write("in.jsonl", rows)

    report = run(shop, output=output, chain=f"{shop.folder}/meddling.py:answer", prompt=None, model=None, base_url=None)

    assert report.exit_code == 0
    lines = (shop.folder / output).read_text().splitlines()
    answers = [json.loads(line)["output"] if output == "out.jsonl" else line.split(",")[-2] for line in lines[-4:]]
    assert (sorted(answers), len(lines)) == (sorted(["A", "B", "C", word.upper()]), 4 if output == "out.jsonl" else 5)
    kept = [path.read_text() for path in shop.folder.glob(f"{output}.edited-*")]
    assert kept == (["my own words\n"] if word == "replace" else [])
    assert run(shop, output=output, chain=f"{shop.folder}/meddling.py:answer", prompt=None, model=None, base_url=None)
    assert (shop.folder / output).read_text().splitlines() == lines, "the next run finds what this one left"


def test_a_store_is_removed_only_while_the_output_is_held(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def removing(place: Place) -> None:
        held.append(holder_of(place.lock) is not None)
        remove_store(place)

    monkeypatch.setattr(ending, "remove_store", removing)
    shop.write("in.jsonl", rows_of("a", "b"))

    assert run(shop, prompt="Say {no_such_field}").exit_code == 78

    assert held == [True], "else it would be that of the run that waited"
    assert sorted(path.name for path in shop.folder.iterdir()) == ["in.jsonl", "out.jsonl.lcbatch.lock"]


def test_documents_of_a_folder_are_called_again_only_when_changed(shop: Shop) -> None:
    ledger = Ledger(shop)
    reports = shop.folder / "reports"
    (reports / "deep").mkdir(parents=True)
    for name in ("a.md", "b.txt", "deep/c.md"):
        (reports / name).write_text(f"This is the text of {name}. It has two sentences.")

    def summarize(**options: Any) -> Report:
        given = {"prompt": "Sum up: {text}", "task": "summarize", "output": "sums/", **options}
        return asyncio.run(shop.run("reports", **given))

    assert summarize().exit_code == 0
    assert len(ledger.called()) == 3
    sums = shop.folder / "sums"
    names = sorted(str(path.relative_to(sums)) for path in sums.rglob("*.md"))
    assert names == ["a.md.md", "b.txt.md", "deep/c.md.md"]
    (reports / "a.md").write_text("Quite another text.")
    (reports / "b.txt").rename(reports / "z.txt")
    assert summarize(on_removed="drop").exit_code == 0
    assert ledger.called() == ["Sum up: Quite another text."], "a document that moved is the same document"
    names = sorted(str(path.relative_to(sums)) for path in sums.rglob("*.md"))
    assert names == ["a.md.md", "deep/c.md.md", "z.txt.md"]


def test_the_store_is_private_and_no_other_file_is_left(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    run(shop)
    made = {path.name: path.stat().st_mode & 0o777 for path in shop.folder.iterdir()}
    assert set(made) == {"in.jsonl", "out.jsonl", "out.jsonl.lcbatch", "out.jsonl.lcbatch.lock"}
    assert made["out.jsonl.lcbatch"] == 0o600


def test_pass_through_values_arrive_as_they_are(shop: Shop) -> None:
    row = {
        "text": "{x} {{y}} %s",
        "big": 12345678901234567890123,
        "f": 1.5,
        "n": None,
        "u": "\ud800 \u2028 é",
        "l": [1, {"a": 2}],
    }
    (shop.folder / "in.jsonl").write_text(json.dumps(row) + "\n")
    run(shop)
    found = shop.output()[0]
    output = found.pop("output")
    assert found == row
    assert shop.billed()[-1]["prompt"] == "Say {x} {{y}} %s"
    assert output == shop.billed()[-1]["answer"]


def _shown(path: Path) -> list[str]:
    """What an output of any form holds, by the rows' ids."""
    if path.is_dir():
        return sorted(each.stem for each in path.iterdir())
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return sorted(row["id"] for row in csv.DictReader(file))
    return sorted(json.loads(line)["id"] for line in path.read_text().splitlines())


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("outputs", [("out.jsonl", "out.csv"), ("out/", "out.jsonl"), ("out.csv", "out/")])
def test_one_store_may_write_one_output_and_then_another_and_go_back(
    shop: Shop, outputs: tuple[str, str], *, ordered: bool
) -> None:
    first, second = outputs
    words = [f"w{number:02}" for number in range(12)]
    store = {"store": str(shop.folder / "kept.lcbatch"), "prompt": "{id}", "ordered": ordered}
    (shop.folder / "out").mkdir()
    shop.write("in.jsonl", [{"id": word} for word in words])
    assert run(shop, output=first, **store).exit_code == 0
    ledger = Ledger(shop)
    assert run(shop, output=second, **store).exit_code == 0
    shop.write("in.jsonl", [{"id": word} for word in ("new", *words[1:])])
    assert run(shop, output=second, **store).exit_code == 0
    assert _shown(shop.folder / second) == sorted(["new", *words[1:]])
    assert ledger.called() == ["new"]
    report = run(shop, output=first, **store)
    assert (report.exit_code, report.snapshot.rows.reused) == (0, 12)
    assert _shown(shop.folder / first) == _shown(shop.folder / second)
    assert ledger.called() == []
    assert not list(shop.folder.glob("*.edited-*")), "each was known again"


def test_an_output_that_was_edited_while_its_store_wrote_another_is_set_aside(shop: Shop) -> None:
    store = {"store": str(shop.folder / "kept.lcbatch")}
    shop.write("in.jsonl", rows_of("a", "b"))
    run(shop, **store)
    run(shop, output="out.csv", **store)
    (shop.folder / "out.jsonl").write_text("mine\n")
    assert run(shop, **store).exit_code == 0
    assert texts(shop.output()) == ["a", "b"]
    assert [path.read_text() for path in shop.folder.glob("out.jsonl.edited-*")] == ["mine\n"]


def test_a_file_comes_after_a_folder_of_its_name_with_the_same_store(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    store = {"store": str(shop.folder / "kept.lcbatch")}
    (shop.folder / "out.jsonl").mkdir()
    assert run(shop, output="out.jsonl/", **store).exit_code == 0
    shutil.rmtree(shop.folder / "out.jsonl")
    ledger = Ledger(shop)
    assert run(shop, **store).exit_code == 0
    assert texts(shop.output()) == ["a", "b"]
    assert ledger.called() == []


def test_an_output_comes_after_stdout_with_the_same_store(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    words = shop.words("in.jsonl")
    for output in ("-", "out.jsonl", "-"):
        ran = cli(*words, "-o", output, "--store", "kept.lcbatch", cwd=shop.folder)
        assert ran.returncode == 0, ran.stderr
        assert texts(shop.output() if output == "out.jsonl" else [json.loads(x) for x in ran.stdout.splitlines()]) == [
            "a",
            "b",
        ]
