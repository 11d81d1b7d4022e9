"""Models inside a user's own chain are governed, however deep: stored, retried, counted."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lcbatch.app import Report, run_job
from lcbatch.calls.rate import RateLimits
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop, cli, rows_of, texts

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

_CHAINS = Path(__file__).with_name("chains_under_test.py")

CALLS = {
    "sequence": 1, "steps": 2, "two_providers": 2, "parallel": 2, "structured": 1, "tools": 1, "bound": 1, "blocks": 2,
    "configurable": 1, "fallbacks": 1, "fallbacks_by_type": 1, "inside": 1, "wrapped": 1, "agent": 2,
    "in_thread": 1, "batched": 2, "batched_in_thread": 2, "loop_in_thread": 1,
    "streaming_model": 1, "chain_streamed": 1, "json_streamed": 1, "structured_streamed": 1, "by_tool_streamed": 1,
    "model_streamed": 1, "tools_streamed": 1, "unstreamed": 1, "streamed_in_thread": 1, "events_v2": 1, "events_v3": 1,
    "events_v3_in_thread": 1, "agent_streamed": 2, "agent_events": 2,
}  # fmt: skip
"""Billed calls a row."""


def run(shop: Shop, chain: str, **options: Any) -> Report:
    job = shop.job("in.jsonl", model=None, base_url=None, prompt=None, chain=f"{_CHAINS}:{chain}", meta=True, **options)
    return asyncio.run(run_job(job, shop.world()))


@pytest.fixture(autouse=True)
def _provider(monkeypatch: pytest.MonkeyPatch, provider: SimulatorProcess) -> None:
    monkeypatch.setenv("TEST_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed")
    monkeypatch.setattr("lcbatch.wiring.random.uniform", lambda least, _most: least)  # no waiting between attempts


@pytest.mark.parametrize("chain", sorted(CALLS))
def test_every_shape_is_governed(shop: Shop, chain: str) -> None:
    """A fault is retried by us and costs nothing, each call is billed once, and none is streamed past the stack."""
    shop.write("in.jsonl", rows_of("one", "two [[fault:500:1]]"))
    before = len(shop.billed())
    report = run(shop, chain)
    assert report.exit_code == 0, report.error
    assert len(shop.billed()) - before == 2 * CALLS[chain]
    assert report.snapshot.calls.answered == 2 * CALLS[chain]
    assert report.snapshot.calls.failed >= 1
    for row in shop.output():
        assert row["meta"]["calls"] == CALLS[chain]
        assert row["meta"]["prompt_tokens"] > 0
        assert row["output"]
    hit = next(row for row in shop.output() if row["text"] != "one")
    assert hit["meta"]["attempts"] > CALLS[chain]


def test_no_shape_pays_twice(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that fail after their calls are answered from the store when they are run again."""
    shop.write("in.jsonl", [{"text": "one", "shape": shape} for shape in sorted(CALLS)])
    before = len(shop.billed())
    with monkeypatch.context() as patch:
        patch.setenv("TEST_BREAK", "1")
        broken = run(shop, "every")
    assert broken.snapshot.rows.failed == len(CALLS), broken
    messages = {row["_lcbatch_error"]["message"] for row in shop.output("out.jsonl.errors.jsonl")}
    assert messages == {f"broken on purpose: {shape}" for shape in CALLS}
    paid = len(shop.billed()) - before
    assert paid == sum(CALLS.values())
    again = run(shop, "every")
    assert again.exit_code == 0, again.error
    assert len(shop.billed()) - before == paid
    assert {row["shape"]: row["meta"]["calls"] for row in shop.output()} == CALLS


def test_more_blocking_rows_than_asyncio_has_threads(shop: Shop) -> None:
    count = min(32, (os.cpu_count() or 1) + 4) + 8
    shop.write("in.jsonl", rows_of(*(f"row {number}" for number in range(count))))
    report = run(shop, "in_thread", concurrency=str(count))
    assert report.exit_code == 0, report.error
    assert report.snapshot.calls.answered == count


def test_a_failure_in_a_later_step_repays_no_earlier_call(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("in.jsonl", rows_of("one"))
    before = len(shop.billed())
    with monkeypatch.context() as patch:
        patch.setenv("TEST_SECOND_URL", "http://127.0.0.1:9/v1")
        assert run(shop, "two_providers").exit_code == 69
    assert len(shop.billed()) - before == 1
    assert run(shop, "two_providers").exit_code == 0
    assert len(shop.billed()) - before == 2


def test_a_budget_is_kept_inside_a_chain(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of(*"abcdefgh"))
    before = len(shop.billed())
    assert run(shop, "capped", max_total_tokens=200).exit_code == 8
    billed = shop.billed()[before:]
    assert billed
    assert sum(call["prompt_tokens"] + call["completion_tokens"] for call in billed) <= 200


def test_what_could_not_be_governed_is_said_once_and_answered_all_the_same(shop: Shop) -> None:
    ways = {
        "invoke": "a sync call on the event loop",
        "stream": "a sync call on the event loop",
        "batch": "the event loop stands still",
        "several": "n > 1",
        "thread": "outside of any row",
    }
    rows = rows_of(*(f"{way} {row}" for way in [*ways, "completion"] for row in ("1", "2")))
    path = shop.write("in.jsonl", rows)
    env = {"TEST_BASE_URL": shop.provider.base_url, "OPENAI_API_KEY": "none-needed"}
    ran = cli("run", path, "--chain", f"{_CHAINS}:past_the_stack", "-o", "out.jsonl", cwd=shop.folder, env=env)
    assert ran.returncode == 0, ran.stderr
    assert texts(shop.output()) == texts(rows)
    said = [line for line in ran.stderr.splitlines() if "is called past lcbatch" in line]
    assert len(said) == len(ways) + 1, ran.stderr
    for way, why in ways.items():
        assert len([line for line in said if f"openai:sim-{way} " in line and why in line]) == 1, (way, said)
    assert len([line for line in said if "FakeListLLM" in line and "no chat model" in line]) == 1, said


def test_models_built_for_every_row_share_one_stack_that_hears_the_provider_s_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks: list[RateLimits] = []

    class Heard(RateLimits):
        def __init__(self, **limits: Any) -> None:
            super().__init__(**limits)
            stacks.append(self)

    monkeypatch.setattr("lcbatch.wiring.RateLimits", Heard)
    with SimulatorProcess(rpm=30_000, tpm=6_000_000) as limited:
        monkeypatch.setenv("TEST_BASE_URL", limited.base_url)
        shop = Shop(limited, tmp_path)
        shop.write("in.jsonl", rows_of("one", "two", "three"))
        assert run(shop, "inside").exit_code == 0
    (limits,) = stacks
    assert limits.requests.per_s == pytest.approx(0.99 * 30_000 / 60)
    assert limits.tokens.per_s == pytest.approx(0.99 * 6_000_000 / 60)


def test_every_shape_says_the_same_under_langchain_alone(shop: Shop) -> None:
    """Where models really stream, and nothing is hooked."""
    code = (
        "import asyncio, importlib.util, json, sys, warnings; warnings.simplefilter('ignore')\n"
        f"spec = importlib.util.spec_from_file_location('chains', {str(_CHAINS)!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "async def main():\n"
        "    return {shape: await module.every({'text': 'one', 'shape': shape}) for shape in sys.argv[1:]}\n"
        "print(json.dumps(asyncio.run(main()), default=lambda verdict: verdict.model_dump()))\n"
    )
    # LangChain shares an HTTP client, which breaks on a second loop; two give whole messages.
    apart = {"loop_in_thread", "parallel", "tools"}
    shapes = sorted(CALLS.keys() - apart)
    by_hand = subprocess.run(
        [sys.executable, "-c", code, *shapes], capture_output=True, text=True, check=False, timeout=120
    )
    assert by_hand.returncode == 0, by_hand.stderr
    theirs = json.loads(by_hand.stdout)
    shop.write("in.jsonl", [{"text": "one", "shape": shape} for shape in sorted(theirs)])
    assert run(shop, "every").exit_code == 0
    assert {row["shape"]: row["output"] for row in shop.output()} == theirs
