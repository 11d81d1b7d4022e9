"""Models inside a user's own chain are governed, however deep: stored, retried, counted."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lcbatch.app import Report, run_job
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop, rows_of

_CHAINS = Path(__file__).with_name("chains_under_test.py")

CALLS = {
    "sequence": 1, "steps": 2, "parallel": 2, "structured": 1, "tools": 1, "fallbacks": 1, "inside": 1, "in_thread": 1,
    "agent": 2,
}  # fmt: skip
"""Billed calls a row."""


def run(shop: Shop, chain: str, **options: Any) -> Report:
    job = shop.job("in.jsonl", model=None, base_url=None, prompt=None, chain=f"{_CHAINS}:{chain}", meta=True, **options)
    return asyncio.run(run_job(job, shop.world()))


@pytest.fixture(autouse=True)
def _provider(monkeypatch: pytest.MonkeyPatch, provider: SimulatorProcess) -> None:
    monkeypatch.setenv("TEST_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed")


@pytest.mark.parametrize("chain", CALLS)
def test_every_shape_is_governed(shop: Shop, chain: str) -> None:
    shop.write("in.jsonl", rows_of("one", "two"))
    before = len(shop.billed())
    report = run(shop, chain)
    assert report.exit_code == 0, report.error
    assert len(shop.billed()) - before == 2 * CALLS[chain]
    assert report.snapshot.calls.answered == 2 * CALLS[chain]
    for row in shop.output():
        assert row["meta"]["calls"] == CALLS[chain]
        assert row["meta"]["prompt_tokens"] > 0
        assert row["output"]


def test_a_fault_inside_a_chain_is_retried_by_us_and_costs_one_answer(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("one [[fault:500:1]]"))
    before = len(shop.billed())
    report = run(shop, "steps")
    assert report.exit_code == 0, report.error
    assert report.snapshot.calls.failed == 1
    assert len(shop.billed()) - before == 2


def test_a_failure_in_a_later_step_repays_no_earlier_call(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("in.jsonl", rows_of("one"))
    before = len(shop.billed())
    with monkeypatch.context() as patch:
        patch.setenv("TEST_SECOND_URL", "http://127.0.0.1:9/v1")
        assert run(shop, "two_providers").exit_code == 69
    assert len(shop.billed()) - before == 1
    assert run(shop, "two_providers").exit_code == 0
    assert len(shop.billed()) - before == 2


def test_the_same_chain_says_the_same_under_langchains_own_ainvoke(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("one"))
    code = (
        "import asyncio, importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('chains', {str(_CHAINS)!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "async def main():\n"
        "    return [await getattr(module, name)().ainvoke({'text': 'one'}) for name in sys.argv[1:]]\n"
        "print(json.dumps(asyncio.run(main())))\n"
    )
    names = ("sequence", "steps", "fallbacks")
    by_hand = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True, timeout=60
    )
    ours = []
    for name in names:
        assert run(shop, name, output=f"{name}.jsonl").exit_code == 0
        ours.append(shop.output(f"{name}.jsonl")[0]["output"])
    assert ours == json.loads(by_hand.stdout)
