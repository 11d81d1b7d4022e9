"""`lcbatch retry`: which rows it asks again, by which chain, and what it takes over from the run that made the output."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lcbatch.app import Report, run_job
from lcbatch.cli.retry import retry_of
from lcbatch.errors import InputMissing, Kind, OutputFailed, RefusedError
from lcbatch.opening import Run
from lcbatch.outputs import place_of
from lcbatch.records import Row
from lcbatch.retrying import _limited
from lcbatch.testing import make_row
from tests.e2e.support import MODEL, Shop, cli, rows_of, texts

BAD = "[[fault:filter]]"
"""A row that the provider's content filter withholds, for good."""


@pytest.fixture
def once(tmp_path: Path) -> str:
    """A row that is too long the first time it is asked, and then is not; of this test alone, since the provider remembers."""
    return f"bad in {tmp_path.name} [[fault:context:1]]"


def run(shop: Shop, **options: Any) -> Report:
    return asyncio.run(shop.run("in.jsonl", **options))


def retry(
    shop: Shop,
    out: str = "out.jsonl",
    *,
    store: str | None = None,
    kinds: frozenset[Kind] | None = None,
    **given: Any,
) -> Report:
    """Retry an output of the shop, inside this process."""
    job, again = retry_of(str(shop.folder / out), store, kinds, {"progress": "none", **given})
    return asyncio.run(run_job(job, shop.world(), again))


def prompts(shop: Shop, since: int) -> list[str]:
    """What was asked and billed after so many calls, sorted."""
    return sorted(entry["prompt"] for entry in shop.billed()[since:])


def test_what_was_said_of_one_run_is_not_said_of_its_retry(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("good", f"bad {BAD}"))
    of_that_run = {
        "fresh": True,
        "limit": 7,
        "on_change": "keep",
        "on_removed": "keep",
        "max_time": 500.0,
        "max_wait": 50.0,
        "max_failures": "9",
        "if_locked": "wait",
        "fail_on": "new",
        "drain_timeout": 3.0,
        "row_timeout": 30.0,
        "outage_timeout": 40.0,
        "summary_json": str(shop.folder / "sum.json"),
        "quiet": True,
    }
    of_the_output = {
        "system": "Be brief",
        "temperature": 0.5,
        "timeout": 77.0,
        "meta": True,
        "output_field": "said",
        "concurrency": "3",
        "rpm": 60000.0,
        "max_total_tokens": 100_000,
        "max_output_tokens": 99,
    }
    assert run(shop, **of_that_run, **of_the_output).exit_code == 3

    job, _ = retry_of(str(shop.folder / "out.jsonl"), None, None, {})

    expected = shop.job(**of_the_output, store=str(shop.folder / "out.jsonl.lcbatch")).options()
    del expected["progress"]
    assert job.options() == expected


def test_a_retry_in_another_folder_means_the_inputs_of_the_run(
    shop: Shop, once: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write("data.jsonl", rows_of("good", once))
    monkeypatch.chdir(shop.folder)
    asyncio.run(run_job(replace(shop.job(output="out/data.jsonl"), inputs=("data.jsonl",)), shop.world()))
    monkeypatch.chdir("out")

    reparsed = cli("reparse", "data.jsonl", "--schema", "said", cwd=shop.folder / "out")
    assert reparsed.returncode in {0, 3}, reparsed.stderr
    job, _ = retry_of("data.jsonl", None, None, {})

    assert job.inputs == (str(shop.folder / "data.jsonl"),)
    assert place_of(job, shop.world()).paths.output == shop.folder / "out" / "data.jsonl"


def test_a_retry_after_a_fresh_start_sets_nothing_aside(shop: Shop, once: str) -> None:
    shop.write("in.jsonl", rows_of("good", once))
    assert run(shop, fresh=True).exit_code == 3
    before = len(shop.billed())

    assert retry(shop).exit_code == 0

    assert prompts(shop, before) == [f"Say {once}"]
    assert texts(shop.output()) == [once, "good"]
    assert not [path for path in shop.folder.iterdir() if ".old-" in path.name]


def test_limit_counts_the_rows_of_a_retry_too(shop: Shop, once: str) -> None:
    shop.write("in.jsonl", rows_of("good", *(f"{name} {once}" for name in "abcd")))
    assert run(shop).exit_code == 3
    before = len(shop.billed())

    assert retry(shop, limit=1).exit_code == 3

    assert prompts(shop, before) == [f"Say a {once}"]
    assert len(shop.output()) == 2
    assert len(shop.output("out.jsonl.errors.jsonl")) == 3, "those that were not asked stand as they did"
    assert retry(shop).exit_code == 0
    assert len(shop.output()) == 5


def test_a_store_that_fails_while_rows_are_read_stops_a_retry_in_order() -> None:
    error = OutputFailed("the disk is full")
    asked: list[Exception] = []

    async def pages() -> AsyncGenerator[list[Row]]:
        yield [make_row(0)]
        raise error

    async def main() -> tuple[list[int], bool]:
        job = SimpleNamespace(run=SimpleNamespace(limit=None))
        run = SimpleNamespace(job=job, shutdown=SimpleNamespace(request=asked.append), complete=False)
        rows = [row.ordinal async for row in _limited(cast("Run", run), pages())]
        return rows, run.complete

    assert asyncio.run(main()) == ([0], False)
    assert asked == [error]


def test_an_edited_template_is_refused_unless_it_is_meant(shop: Shop, once: str) -> None:
    template = shop.folder / "prompt.txt"
    template.write_text("Say {text}")
    shop.write("in.jsonl", rows_of("good", once))
    assert run(shop, prompt=f"@{template}").exit_code == 3
    before, lines = len(shop.billed()), (shop.folder / "out.jsonl").read_bytes()
    template.write_text("Shout {text}")

    report = retry(shop)

    assert isinstance(report.error, RefusedError)
    assert 'prompt: "Say {text}" -> "Shout {text}"' in report.error.message
    assert "--on-change keep" in report.error.hint
    assert retry(shop, on_change="redo").exit_code == 2
    assert (shop.folder / "out.jsonl").read_bytes() == lines
    assert prompts(shop, before) == []
    assert retry(shop, on_change="keep").exit_code == 3, "the new prompt is too long the first time, too"
    assert retry(shop, on_change="keep").exit_code == 0
    assert prompts(shop, before) == [f"Shout {once}"]
    assert texts(shop.output()) == [once, "good"]
    template.write_text("Say {text}")
    assert run(shop, prompt=f"@{template}").exit_code == 0
    assert len(shop.billed()) == before + 1, "the answers of both count for the output"


def test_a_template_that_names_other_fields_is_refused_all_the_same(shop: Shop) -> None:
    template = shop.folder / "prompt.txt"
    template.write_text("Say {text}")
    shop.write("in.jsonl", [{"text": f"bad {BAD}", "note": "n"}])
    run(shop, prompt=f"@{template}")
    template.write_text("Say {note}")

    report = retry(shop, on_change="keep")

    assert report.exit_code == 65
    assert report.error is not None
    assert "names other fields" in report.error.message


def test_another_model_is_no_edit_and_is_not_taken_over_by_the_next_retry(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("good", f"bad {BAD}"))
    assert run(shop, price="in=1,out=2", system="Be brief").exit_code == 3

    assert retry(shop, model="openai:other", temperature=0.3).exit_code == 3

    out = str(shop.folder / "out.jsonl")
    again, _ = retry_of(out, None, None, {})
    assert (again.model.model, again.model.temperature, again.model.price) == (MODEL, None, "in=1,out=2")
    other, _ = retry_of(out, None, None, {"model": "openai:other"})
    assert (other.model.price, other.model.base_url) == (None, shop.provider.base_url), "a price is of one model"
    elsewhere, _ = retry_of(out, None, None, {"model": "anthropic:other"})
    assert elsewhere.model.base_url is None, "an address is of one provider"
    assert retry(shop).exit_code == 3
    assert run(shop, price="in=1,out=2", system="Be brief").exit_code == 3, "the output's chain is what it was"


def test_a_model_that_reads_prompts_may_follow_one_that_reads_none(shop: Shop) -> None:
    documents = shop.folder / "docs"
    documents.mkdir()
    (documents / "a.md").write_text("This document has a sentence. It has another one.")
    (documents / "b.md").write_text("")

    async def summarize() -> Report:
        return await shop.run("docs", task="summarize", output="sums/", model=None, base_url=None, prompt=None)

    assert asyncio.run(summarize()).exit_code == 3
    report = retry(shop, "sums/", model=MODEL, base_url=shop.provider.base_url)
    assert report.exit_code == 3, "it is asked, and has no text still"


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "folder/"])
def test_an_output_may_be_named_by_its_store(shop: Shop, once: str, output: str) -> None:
    shop.write("in.jsonl", [{"id": "1", "text": "good"}, {"id": "2", "text": once}])
    if output == "folder/":
        (shop.folder / output).mkdir()
    assert run(shop, output=output).exit_code == 3

    assert retry(shop, output.rstrip("/") + ".lcbatch").exit_code == 0

    if output == "folder/":
        assert sorted(path.name for path in (shop.folder / "folder").iterdir()) == ["1.md", "2.md"]
    else:
        assert len((shop.folder / output).read_text().splitlines()) == (3 if output == "out.csv" else 2)
    names = {path.name for path in shop.folder.iterdir()}
    assert names == {"in.jsonl", *(output.rstrip("/") + end for end in ("", ".lcbatch", ".lcbatch.lock"))}


def test_a_store_of_another_name_is_retried_by_it(shop: Shop, once: str) -> None:
    shop.write("in.jsonl", rows_of("good", once))
    assert run(shop, store=str(shop.folder / "s.db")).exit_code == 3

    assert retry(shop, "s.db").exit_code == 0

    assert texts(shop.output()) == [once, "good"]


def test_an_output_that_moved_with_its_store_is_retried_where_it_is(shop: Shop, once: str) -> None:
    shop.write("in.jsonl", rows_of("good", once))
    run(shop)
    there = shop.folder / "there"
    there.mkdir()
    for path in shop.folder.glob("out.jsonl*"):
        path.rename(there / path.name)

    assert retry(shop, "there/out.jsonl.lcbatch").exit_code == 0

    assert texts(shop.output("there/out.jsonl")) == [once, "good"]
    assert not (shop.folder / "out.jsonl").exists()


def test_a_pipes_store_can_be_retried(shop: Shop, once: str) -> None:
    with (shop.folder / "stdout").open("w") as stdout:
        report = asyncio.run(_piped(shop, "good", once, stdout=stdout.fileno()))
        assert report.error is not None
        assert f"lcbatch retry {report.store_path}" in report.error.hint
    before = len(shop.billed())

    with (shop.folder / "stdout").open("w") as stdout:
        job, again = retry_of(str(report.store_path), None, None, {"progress": "none"})
        report = asyncio.run(run_job(job, replace(shop.world(), stdout_fd=stdout.fileno()), again))

    assert report.exit_code == 0
    assert prompts(shop, before) == [f"Say {once}"]
    assert texts(shop.output("stdout")) == [once, "good"]


def test_the_hint_is_the_command_that_works(shop: Shop, once: str) -> None:
    shop.write("in.jsonl", rows_of("good", once))
    report = run(shop, output="my out.jsonl", store=str(shop.folder / "st.lcbatch"))
    assert report.error is not None
    folder = shop.folder
    command = f"lcbatch retry '{folder}/my out.jsonl' --store {folder}/st.lcbatch"
    assert command in report.error.hint
    assert report.snapshot.continue_with == command

    assert retry(shop, "my out.jsonl", store=str(folder / "st.lcbatch")).exit_code == 0


def test_the_hint_after_a_retry_is_the_command_that_works(shop: Shop) -> None:
    """A store that lies where it always does is not named; what would be refused without --on-change has it."""
    own = shop.folder / "own.py"
    own.write_text("def answer(fields):\n    return {'good': 1}[fields['text']]\n")
    shop.write("in.jsonl", rows_of("good", "bad"))
    assert run(shop, chain=f"{own}:answer", model=None, base_url=None, prompt=None).exit_code == 3
    own.write_text(own.read_text() + "# edited\n")

    report = retry(shop, on_change="keep")

    assert report.snapshot.continue_with == f"lcbatch retry {shop.folder / 'out.jsonl'} --on-change keep"


def test_failed_rows_are_found_after_a_pipe_with_other_rows_was_cut_short(shop: Shop, once: str) -> None:
    asyncio.run(_piped(shop, "one", "two"))
    asyncio.run(_piped(shop, "other", once, "late", limit=2))
    before = len(shop.billed())

    report = retry(shop)

    assert prompts(shop, before) == [f"Say {once}"]
    assert report.exit_code == 0
    assert texts(shop.output()) == [once, "one", "other", "two"]


async def _piped(shop: Shop, *words: str, stdout: int | None = None, **options: Any) -> Report:
    """Run with rows from a pipe, and into one; what --limit cuts short is an input that was not read to its end."""
    reader, writer = os.pipe()
    os.write(writer, "".join(json.dumps({"text": word}) + "\n" for word in words).encode())
    os.close(writer)
    with os.fdopen(reader, "rb") as stdin:
        job = replace(shop.job(**options), inputs=("-",))
        if stdout is not None:
            job = replace(job, output=replace(job.output, output=None))
        return await run_job(job, replace(shop.world(), stdin=stdin, stdout_fd=stdout))


def test_rows_that_were_kept_although_gone_from_the_input_are_retried(shop: Shop, once: str) -> None:
    shop.write("in.jsonl", rows_of("a", "b", once))
    run(shop)
    shop.write("in.jsonl", rows_of("a", "b"))
    assert run(shop, on_removed="keep").exit_code == 3

    assert retry(shop).exit_code == 0

    assert texts(shop.output()) == ["a", "b", once]


def test_only_rows_of_the_kinds_named(shop: Shop, once: str) -> None:
    shop.write("in.jsonl", rows_of(once, f"bad {BAD}", "good"))
    run(shop)
    before = len(shop.billed())

    assert retry(shop, kinds=frozenset({Kind.CONTEXT_LENGTH})).exit_code == 3

    assert prompts(shop, before) == [f"Say {once}"]
    assert len(shop.output()) == 2


def test_paths_of_the_run_mean_what_they_meant_there(shop: Shop, once: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("in.jsonl", rows_of("good", once))
    monkeypatch.chdir(shop.folder)
    assert run(shop, errors="failed.jsonl").exit_code == 3
    elsewhere = shop.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert retry(shop).exit_code == 0

    assert not (shop.folder / "failed.jsonl").exists(), "no row stands failed any more"
    assert list(elsewhere.iterdir()) == []


def test_what_was_never_run_has_nothing_to_retry(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="there is no run store"):
        retry_of(str(tmp_path / "out.jsonl"), None, None, {})
    with pytest.raises(InputMissing, match="there is no run store"):
        retry_of("/", None, None, {})


def test_rows_that_name_their_own_model_can_be_retried(shop: Shop) -> None:
    requests = [
        {"custom_id": str(number), "body": {"model": "sim", "messages": [{"role": "user", "content": text}]}}
        for number, text in enumerate(["fine", "[[fault:filter:1]] first"])
    ]
    shop.write("batch.jsonl", requests)
    own = ("--base-url", shop.provider.base_url, "-o", "out.jsonl")
    first = cli("run", "batch.jsonl", *own, cwd=shop.folder, env={"OPENAI_API_KEY": "x"})
    assert first.returncode == 3, first.stderr
    again = cli("retry", "out.jsonl", cwd=shop.folder, env={"OPENAI_API_KEY": "x"})
    assert again.returncode == 0, again.stderr
    assert len(shop.output()) == 2
