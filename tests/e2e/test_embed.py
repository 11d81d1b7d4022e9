"""`lcbatch embed` over real sockets: how many requests, what a bad row costs, and what is paid after a kill."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from lcbatch import Job
from lcbatch.choosing import wire_models
from lcbatch.errors import UsageError
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop, cli, command, environment, look_again

parquet = importlib.import_module("pyarrow.parquet")

_MODEL = "openai:sim-embedding"
_KEY = {"OPENAI_API_KEY": "x"}


def _embed(shop: Shop, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    given = ["embed", *arguments, "-m", _MODEL, "--base-url", shop.provider.base_url]
    return cli(*given, cwd=shop.folder, env=_KEY, stdin=stdin)


def _rows(count: int) -> list[dict[str, Any]]:
    return [{"id": str(number), "text": f"row number {number}"} for number in range(count)]


def _texts_billed(provider: SimulatorProcess) -> Counter[str]:
    return Counter(text for call in provider.ledger() for text in call["prompt"])


async def _of_langchain(base_url: str, texts: list[str]) -> list[list[float]]:
    embeddings = OpenAIEmbeddings(
        model="sim-embedding", base_url=base_url, api_key=SecretStr("x"), check_embedding_ctx_length=False
    )
    try:
        return await embeddings.aembed_documents(texts)
    finally:
        await embeddings.async_client._client.close()


def test_rows_go_out_by_the_batch_and_give_langchains_vectors(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=0.05, embedding_dimensions=64) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", _rows(2_560))
        done = _embed(shop, "in.jsonl", "-o", "out.parquet")
        assert done.returncode == 0, done.stderr
        assert provider.stats()["requests"] <= 10
        table = parquet.read_table(tmp_path / "out.parquet")
        sample = table.slice(1_000, 300)
        theirs = asyncio.run(_of_langchain(provider.base_url, sample["text"].to_pylist()))
        assert table["id"].to_pylist() == [str(number) for number in range(2_560)]
        assert np.array_equal(np.array(sample["embedding"].to_pylist(), np.float32), np.array(theirs, np.float32))

        again = _embed(shop, "in.jsonl", "-o", "out.parquet", "--normalize")
        assert again.returncode == 0, again.stderr
        assert len(_texts_billed(provider)) == 2_560
        assert provider.stats()["requests"] <= 11, "normalizing asks for nothing"


def test_a_poisoned_row_fails_alone(tmp_path: Path) -> None:
    with SimulatorProcess(context_tokens=100, embedding_dimensions=64) as provider:
        shop = Shop(provider, tmp_path)
        rows = _rows(600)
        rows[300]["text"] = "far too long " * 100
        rows[301]["text"] = "[[fault:context]]"
        rows[302]["text"] = "  "
        shop.write("in.jsonl", rows)
        done = _embed(shop, "in.jsonl", "-o", "out.jsonl")
        assert done.returncode == 3
        assert len(shop.output()) == 597
        failed = [json.loads(line) for line in (tmp_path / "out.jsonl.errors.jsonl").read_text().splitlines()]
        kinds = {row["id"]: row["_lcbatch_error"]["kind"] for row in failed}
        assert kinds == {"300": "context_length", "301": "context_length", "302": "no_text"}
        assert set(_texts_billed(provider).values()) == {1}
        assert provider.stats()["requests"] <= 3 + 2 + 18

        provider.control(context_tokens=0)
        rows[302]["text"] = "mended"
        other = cli("retry", "out.jsonl", "-m", "openai:other", cwd=tmp_path, env=_KEY)
        assert other.returncode == 2
        assert "different spaces" in other.stderr
        retried = cli("retry", "out.jsonl", "--kind", "context_length", cwd=tmp_path, env=_KEY)
        assert retried.returncode == 3, retried.stderr
        assert {row["id"] for row in shop.output()} >= {"300"}


def test_killed_in_the_middle_it_repays_only_what_was_on_the_wire(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=0.2, embedding_dimensions=64) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", _rows(4_000))
        given = ["embed", "in.jsonl", "-m", _MODEL, "--base-url", provider.base_url, "-o", "out.jsonl", "-j", "2"]
        run = subprocess.Popen(
            command(*given, "--progress", "none"),
            cwd=tmp_path, env=environment(tmp_path, **_KEY), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while provider.stats()["requests"] < 7:
            assert run.poll() is None
            look_again()
        run.kill()
        run.communicate()
        done = cli(*given, cwd=tmp_path, env=_KEY)
        assert done.returncode == 0, done.stderr
        billed = _texts_billed(provider)
        assert len(billed) == 4_000
        # Two were on the wire; a third may have been on its way to disk at that moment.
        assert sum(count - 1 for count in billed.values()) <= 3 * 256
        assert sorted(row["id"] for row in shop.output()) == sorted(str(number) for number in range(4_000))


def test_interrupted_it_pays_nothing_twice(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=0.3, embedding_dimensions=64) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", _rows(3_000))
        given = ["embed", "in.jsonl", "-m", _MODEL, "--base-url", provider.base_url, "-o", "out.jsonl", "-j", "2"]
        run = subprocess.Popen(
            command(*given), cwd=tmp_path, env=environment(tmp_path, **_KEY), stderr=subprocess.PIPE, text=True
        )
        while provider.stats()["requests"] < 3:
            assert run.poll() is None
            look_again()
        os.kill(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 130, said
        assert provider.stats()["requests"] < 12, "what only waited did not go out"
        done = cli(*given, cwd=tmp_path, env=_KEY)
        assert done.returncode == 0, done.stderr
        billed = _texts_billed(provider)
        assert (len(billed), set(billed.values())) == (3_000, {1})


def test_documents_give_a_vector_for_each_piece_and_only_what_changed_is_asked_again(tmp_path: Path) -> None:
    with SimulatorProcess(context_tokens=64) as provider:
        shop = Shop(provider, tmp_path)
        (tmp_path / "docs").mkdir()
        for name in "abc":
            text = "".join(f"Paragraph {number} of {name}, which says little.\n\n" for number in range(40))
            (tmp_path / "docs" / f"{name}.md").write_text(text)
        chunked = ("docs", "-o", "out.jsonl", "--chunk-tokens", "50", "--chunk-overlap", "0")
        done = _embed(shop, *chunked)
        assert done.returncode == 0, done.stderr
        first = shop.output()
        asked = sum(_texts_billed(provider).values())
        assert asked == len(first) > 20
        for row in first:
            whole = (tmp_path / row["path"]).read_text()
            assert whole[row["start"] : row["end"]] == row["text"]

        with (tmp_path / "docs" / "b.md").open("a") as file:
            file.write("One more paragraph.\n")
        again = _embed(shop, *chunked)
        assert again.returncode == 0, again.stderr
        assert sum(_texts_billed(provider).values()) - asked <= 2
        assert any("One more paragraph." in row["text"] for row in shop.output())


def test_a_document_that_could_not_be_read_gives_its_pieces_once_it_can(shop: Shop) -> None:
    (shop.folder / "docs").mkdir()
    (shop.folder / "docs" / "a.md").write_bytes(b"")
    assert _embed(shop, "docs", "-o", "out.jsonl").returncode == 3
    assert "no_text" in (shop.folder / "out.jsonl.errors.jsonl").read_text()

    (shop.folder / "docs" / "a.md").write_text("Some words. " * 400)
    done = _embed(shop, "docs", "-o", "out.jsonl")

    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in shop.output()][:2] == ["a.md#1", "a.md#2"]
    assert not (shop.folder / "out.jsonl.errors.jsonl").exists()


def test_there_is_no_fallback_to_another_space(shop: Shop) -> None:
    job = Job.of("in.jsonl", task="embed", model=_MODEL, base_url=shop.provider.base_url, fallback=("openai:other",))
    with pytest.raises(UsageError, match="different spaces"):
        wire_models(job, _KEY, None)


def test_a_slow_pipe_gets_its_vectors_before_it_ends(shop: Shop) -> None:
    given = ["embed", "-m", _MODEL, "--base-url", shop.provider.base_url, "--max-batch-delay", "50ms"]
    run = subprocess.Popen(
        command(*given), cwd=shop.folder, env=environment(shop.folder, **_KEY),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdin is not None
    assert run.stdout is not None
    run.stdin.write("a first line\n")
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["text"] == "a first line"
    run.stdin.write("a second\n")
    rest, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert json.loads(rest)["text"] == "a second"


def test_the_cap_on_money_is_kept_and_used(tmp_path: Path) -> None:
    with SimulatorProcess() as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", _rows(2_000))
        done = _embed(shop, "in.jsonl", "-o", "out.jsonl", "--price", "in=10", "--max-cost", "0.05", "-j", "2")
        spent = sum(call["prompt_tokens"] * 10e-6 for call in provider.ledger())
        assert done.returncode == 8, done.stderr
        assert 0.045 <= spent <= 0.05


def test_a_dry_run_counts_requests(shop: Shop) -> None:
    shop.write("in.jsonl", _rows(1_000))
    before = len(shop.billed())
    done = _embed(shop, "in.jsonl", "-o", "out.jsonl", "--dry-run", "--price", "in=0.02")
    assert done.returncode == 0, done.stderr
    assert "in about 4 requests" in done.stdout
    assert "row number 0" in done.stdout
    assert len(shop.billed()) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch-size", "0"), "--batch-size cannot be 0"),
        (("--chunk-tokens", "10", "--chunk-overlap", "6"), "more than half"),
        (("-o", "folder/"), "vectors go into one file"),
    ],
)
def test_options_that_cannot_be_are_refused(shop: Shop, options: tuple[str, ...], said: str) -> None:
    shop.write("in.jsonl", _rows(1))
    done = _embed(shop, "in.jsonl", "-o", "out.jsonl", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint:" in done.stderr
