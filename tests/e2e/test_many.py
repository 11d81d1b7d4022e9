"""Several answers a row, and equal rows called once, as a user has them. The provider's ledger is the judge."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lcbatch.app import Report, run_job
from lcbatch.cli.retry import retry_of
from lcbatch.errors import UsageError
from lcbatch.job import Job
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, cli, command, environment, look_again

_ROWS, _WORDS, _SAMPLES = 600, 150, 3
_IN_FLIGHT = 16
_KILLS = 3


def run(shop: Shop, **options: Any) -> Report:
    return asyncio.run(shop.run("in.jsonl", **options))


def numbered(*words: str) -> list[dict[str, Any]]:
    return [{"n": number, "text": word} for number, word in enumerate(words)]


def billed(shop: Shop, since: int = 0) -> list[str]:
    return [entry["prompt"].removeprefix("Say ") for entry in shop.billed()[since:]]


def shown(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(row["n"], row["sample"]) for row in rows]


# --- through the whole program


def test_kills_repeat_only_what_was_in_flight(tmp_path: Path) -> None:
    rows = numbered(*(f"word {number % _WORDS}" for number in range(_ROWS)))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with SimulatorProcess(latency_s=0.02) as provider:
        _until_it_ends(tmp_path, provider)
        calls = Counter(entry["prompt"] for entry in provider.ledger())
    output = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert Counter(shown(output)) == Counter((row, sample) for row in range(_ROWS) for sample in range(_SAMPLES))
    assert len(calls) == _WORDS
    # In flight, and answers on their way to the store, of which the executor lets two to a call wait.
    assert _WORDS * _SAMPLES <= calls.total() <= _WORDS * _SAMPLES + _KILLS * 3 * _IN_FLIGHT


def _until_it_ends(folder: Path, provider: SimulatorProcess) -> None:
    """Run and kill, then let it end."""
    dice = random.Random(3)  # noqa: S311 - moments, no secrets
    words = ["run", "in.jsonl", "-m", MODEL, "--base-url", provider.base_url, "-p", "Say {text}", "-o", "out.jsonl"]
    words += ["-j", str(_IN_FLIGHT), "--samples", str(_SAMPLES), "--dedupe", "--progress", "none"]
    for kills in range(_KILLS + 1):
        before = provider.stats()["requests"]
        process = subprocess.Popen(
            command(*words), cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if kills == _KILLS:
            _, complaint = process.communicate(timeout=120)
            assert process.returncode == 0, complaint
            return
        target = before + dice.randrange(1, _WORDS * _SAMPLES // (2 * _KILLS))
        while process.poll() is None and provider.stats()["requests"] < target:
            look_again()
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.communicate()


def test_the_number_of_samples_goes_up_and_down(shop: Shop) -> None:
    shop.write("in.jsonl", numbered("a", "b"))
    start = len(shop.billed())
    assert run(shop, ordered=True).exit_code == 0
    assert [sorted(row) for row in shop.output()] == [["n", "output", "text"]] * 2
    report = run(shop, ordered=True, samples=3)
    assert (report.snapshot.rows.done, report.snapshot.rows.reused, report.snapshot.rows.total) == (4, 2, 6)
    assert shown(shop.output()) == [(row, sample) for row in range(2) for sample in range(3)]
    assert run(shop, ordered=True, samples=2).exit_code == 0
    assert shown(shop.output()) == [(row, sample) for row in range(2) for sample in range(2)]
    assert run(shop, ordered=True, samples=3).exit_code == 0
    assert shown(shop.output()) == [(row, sample) for row in range(2) for sample in range(3)]
    assert sorted(billed(shop, start)) == ["a"] * 3 + ["b"] * 3


def test_a_failure_of_equal_rows_is_listed_for_each_and_retried_once(shop: Shop, tmp_path: Path) -> None:
    bad = f"bad in {tmp_path.name} [[fault:context:1]]"
    shop.write("in.jsonl", numbered("good", bad, bad, "good", bad))
    report = run(shop, dedupe=True)
    assert (report.exit_code, report.snapshot.rows.failed, report.snapshot.rows.left) == (3, 3, 0)
    assert [(row["n"], row["_lcbatch_error"]["kind"]) for row in shop.output("out.jsonl.errors.jsonl")] == [
        (number, "context_length") for number in (1, 2, 4)
    ]
    assert sorted(row["n"] for row in shop.output()) == [0, 3]
    start = len(shop.billed())
    job, again = retry_of(str(shop.folder / "out.jsonl"), None, None, {"progress": "none"})
    report = asyncio.run(run_job(job, shop.world(), again))
    assert (report.exit_code, report.snapshot.rows.done, report.snapshot.rows.reused) == (0, 1, 2)
    assert billed(shop, start) == [bad]
    assert sorted(row["n"] for row in shop.output()) == [0, 1, 2, 3, 4]
    assert not (shop.folder / "out.jsonl.errors.jsonl").exists()


def test_a_failed_sample_is_named_and_its_line_is_valid_input(shop: Shop, tmp_path: Path) -> None:
    bad = f"bad in {tmp_path.name} [[fault:context:1]]"
    shop.write("in.jsonl", numbered(bad, "good"))
    assert run(shop, samples=2, concurrency="1").exit_code == 3
    errors = shop.output("out.jsonl.errors.jsonl")
    assert [row["_lcbatch_error"].get("sample", 0) for row in errors] == [0]
    assert "sample" not in errors[0]
    assert shown(sorted(shop.output(), key=lambda row: str(shown([row])))) == [(0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_tables_have_a_column_for_the_sample(shop: Shop, output: str) -> None:
    shop.write("in.jsonl", numbered("a", "b", "a"))
    assert run(shop, output=output, samples=2, dedupe=True).exit_code == 0
    exported = "again.csv"
    found = cli("export", output, "-o", exported, "--failed-rows", "omit", cwd=shop.folder)
    assert found.returncode == 0, found.stderr
    with (shop.folder / exported).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["n", "text", "sample", "output"]
    assert [(row["n"], row["sample"]) for row in rows] == [(str(n), str(s)) for n in range(3) for s in range(2)]
    assert rows[0]["output"] == rows[4]["output"]


def test_copies_of_a_document_are_summarized_once_and_each_sample_has_a_file(shop: Shop) -> None:
    folder = shop.folder / "docs"
    folder.mkdir()
    for name, text in (("a.md", "First."), ("b.md", "Second."), ("copy.md", "First.")):
        (folder / name).write_text(text)
    start = len(shop.billed())
    options = {"model": MODEL, "base_url": shop.provider.base_url, "progress": "none", "dedupe": True, "samples": 2}
    job = Job.of(str(folder), task="summarize", output=f"{shop.folder}/out/", **options)
    report = asyncio.run(run_job(job, shop.world()))
    assert (report.exit_code, len(billed(shop, start))) == (0, 4)
    names = sorted(path.name for path in (shop.folder / "out").iterdir())
    assert names == sorted(f"{name}{end}.md" for name in ("a.md", "b.md", "copy.md") for end in ("", ".sample-1"))
    assert (shop.folder / "out/a.md.md").read_text() == (shop.folder / "out/copy.md.md").read_text()


def test_a_dry_run_counts_answers_and_equal_rows(shop: Shop) -> None:
    shop.write("in.jsonl", numbered("a", "b", "a", "a"))
    words = shop.words("in.jsonl")
    words += ["--samples", "2", "--dedupe"]
    told = cli(*words, "--dry-run", cwd=shop.folder).stdout
    assert "8 in the input, 4 equal to others and answered with them, 4 to call" in told
    assert cli(*words, "--limit", "1", cwd=shop.folder).returncode == 0
    told = cli(*words, "--dry-run", cwd=shop.folder).stdout
    assert "8 in the input, 3 reused, 2 equal to others and answered with them, 3 to call" in told


def test_status_counts_what_was_paid_once(shop: Shop) -> None:
    shop.write("in.jsonl", numbered("a", "a", "a"))
    run(shop, dedupe=True, price="in=1,out=1")
    told = json.loads(cli("status", "out.jsonl", "--json", cwd=shop.folder).stdout)
    assert (told["done"], told["left"]) == (3, 0)
    assert told["cost_usd"] == pytest.approx(told["spent_usd"])


def test_a_pipe_may_be_sampled_and_deduped(shop: Shop) -> None:
    start = len(shop.billed())
    text = "".join(json.dumps(row) + "\n" for row in numbered("x", "y", "x"))
    words = ["run", "-", "-m", MODEL, "--base-url", shop.provider.base_url, "-p", "Say {text}"]
    done = cli(*words, "--samples", "2", "--dedupe", "--ordered", cwd=shop.folder, stdin=text)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert shown(rows) == [(n, s) for n in range(3) for s in range(2)]
    assert sorted(billed(shop, start)) == ["x", "x", "y", "y"]


@pytest.mark.parametrize("number", ["0", "-1", "some"])
def test_a_number_of_samples_that_cannot_be_is_refused(shop: Shop, number: str) -> None:
    shop.write("in.jsonl", numbered("a"))
    refused = cli("run", "in.jsonl", "-m", MODEL, "-p", "{text}", f"--samples={number}", cwd=shop.folder)
    assert refused.returncode == 2
    assert "--samples" in refused.stderr


def test_none_is_refused_from_python_too() -> None:
    with pytest.raises(UsageError, match="--samples"):
        Job.of("in.jsonl", samples=0)


def test_shared_answers_are_parsed_again_without_a_call(shop: Shop) -> None:
    shop.write("in.jsonl", numbered("a", "b", "a"))
    assert run(shop, schema="word, more", samples=2, dedupe=True, ordered=True).exit_code == 0
    before, paid = shop.output(), len(shop.billed())
    found = cli("reparse", "out.jsonl", "--schema", "word", "-q", cwd=shop.folder)
    assert found.returncode == 0, found.stderr
    assert [(*key, row["output"]["word"]) for key, row in zip(shown(shop.output()), shop.output(), strict=True)] == [
        (*key, row["output"]["word"]) for key, row in zip(shown(before), before, strict=True)
    ]
    assert cli("reparse", "out.jsonl", "--schema", "other int", "-q", cwd=shop.folder).returncode == 3
    errors = shop.output("out.jsonl.errors.jsonl")
    assert len(errors) == 6
    assert all(row["_lcbatch_error"]["answer"] for row in errors), "each has the answer that it shares"
    assert len(shop.billed()) == paid
    assert cli("retry", "out.jsonl", "-q", cwd=shop.folder).returncode == 0
    assert len(shop.billed()) == paid + 4
    assert shown(shop.output()) == shown(before)
