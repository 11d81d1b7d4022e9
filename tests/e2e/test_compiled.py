"""A compiled chain in a whole run: the output, the calls and the failures of LangChain's own way."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lcbatch.app import run_job
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop, rows_of

_CHAINS = Path(__file__).with_name("chains_under_test.py")
_SHAPES = ["sequence", "message", "steps", "parallel", "structured", "tools", "fallbacks", "inside", "in_thread"]


@pytest.fixture(autouse=True)
def _provider(monkeypatch: pytest.MonkeyPatch, provider: SimulatorProcess) -> None:
    monkeypatch.setenv("TEST_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed")


def came_of(shop: Shop, chain: str, *, compiled: bool) -> list[Any]:
    """The exit code, the rows, the failures and how many calls were billed."""
    before = len(shop.billed())
    output = f"{chain}-{compiled}.jsonl"
    given = {"model": None, "base_url": None, "prompt": None, "chain": f"{_CHAINS}:{chain}", "compile": compiled}
    report = asyncio.run(run_job(shop.job("in.jsonl", output=output, **given), shop.world()))
    return [
        report.exit_code,
        *map(_lines, (shop.folder / output, shop.folder / f"{output}.errors.jsonl")),
        len(shop.billed()) - before,
    ]


def _lines(path: Path) -> list[str]:
    """What numbers the calls, and when they were, is no difference."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.dumps(json.loads(line), sort_keys=True) for line in lines]
    return sorted(
        re.sub(r"chatcmpl-\d+|lc_run--[-0-9a-f]+|call_\d+_|\"(created|at|latency_s)\": [\d.]+", "", row) for row in rows
    )


@pytest.mark.parametrize("chain", _SHAPES)
def test_a_run_comes_to_the_same_compiled_or_not(shop: Shop, chain: str) -> None:
    shop.write("in.jsonl", rows_of("one", "two {braces} é", "three [[fault:500:1]]"))

    assert came_of(shop, chain, compiled=True) == came_of(shop, chain, compiled=False)


def test_rows_fail_alike(shop: Shop) -> None:
    shop.write(
        "in.jsonl", [{"text": "[[fault:context]]"}, {"text": "[[fault:refusal]]"}, {"txt": "no text"}, {"text": "ok"}]
    )
    compiled = came_of(shop, "structured", compiled=True)

    assert compiled == came_of(shop, "structured", compiled=False)
    assert compiled[0] == 3
    assert len(compiled[2]) == 3
