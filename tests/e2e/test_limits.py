"""Caps on money, several endpoints, fallbacks and timeouts, over real sockets, with the ledger as judge."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, cli, rows_of

_KEY = {"OPENAI_API_KEY": "x"}
_PRICE = "in=10,out=100"


@pytest.fixture
def second() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


def _cost_usd(shop: Shop) -> float:
    """What the ledger says that the calls cost at _PRICE."""
    return float(sum(call["prompt_tokens"] * 10e-6 + call["completion_tokens"] * 100e-6 for call in shop.billed()))


def _run(shop: Shop, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = ["-m", MODEL, "--base-url", shop.provider.base_url, "-p", "{text}", "-o", "out.jsonl"]
    return cli("run", "in.jsonl", *given, *more, cwd=shop.folder, env={**_KEY, **env})


def test_the_cap_on_money_holds_over_all_runs(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=0.05, answer_tokens=16) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"word {number}" for number in range(200))))
        capped = ("--max-output-tokens", "20", "--price", _PRICE, "--max-cost", "0.1", "-j", "50")

        first = _run(shop, *capped)
        spent = _cost_usd(shop)
        again = _run(shop, *capped)

        assert (first.returncode, again.returncode) == (8, 8), first.stderr
        assert "--max-cost 0.1 is reached" in first.stderr
        assert "higher cap" in first.stderr
        assert 0.95 * 0.1 <= spent <= 0.1
        assert _cost_usd(shop) <= 0.1
        more = _run(shop, "--max-output-tokens", "20", "--price", _PRICE, "--max-cost", "5", "-j", "50")
        assert more.returncode == 0, more.stderr
        assert len(shop.output()) == 200
        assert len(shop.billed()) == 200


def test_the_cap_on_tokens_and_retry_under_it(tmp_path: Path) -> None:
    with SimulatorProcess(answer_tokens=16) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"word {number}" for number in range(100))))
        done = _run(shop, "--max-output-tokens", "20", "--max-total-tokens", "1000")
        used = sum(call["prompt_tokens"] + call["completion_tokens"] for call in shop.billed())
        assert done.returncode == 8
        assert "--max-total-tokens 1000 is reached" in done.stderr
        assert used <= 1000
        status = json.loads(cli("status", "out.jsonl", "--json", cwd=tmp_path).stdout)
        assert status["exit_code"] == 8
        assert status["left"] == 100 - len(shop.output())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-cost", "1", "--price", _PRICE), "--max-output-tokens"),
        (("--max-cost", "1", "--price", "1,2"), "--price cannot be '1,2'"),
        (("--max-cost", "1", "--max-output-tokens", "9", "-m", "openai:no-such-model"), "no price is known"),
    ],
)
def test_a_cap_that_cannot_be_kept_is_refused_before_the_first_call(
    shop: Shop, options: tuple[str, ...], said: str
) -> None:
    shop.write("in.jsonl", rows_of("a"))
    url = ("--base-url", "http://192.0.2.1:9/v1", "--insecure-http")
    done = cli(
        "run", "in.jsonl", "-m", MODEL, *url, "-p", "{text}", "-o", "out.jsonl", *options, cwd=shop.folder, env=_KEY
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (shop.folder / "out.jsonl").exists()


def test_three_endpoints_with_one_down_and_one_throttled(shop: Shop, second: SimulatorProcess) -> None:
    second.control(rpm=60.0, burst_s=1.0)
    shop.write("in.jsonl", rows_of(*(f"w{number}" for number in range(200))))
    endpoints = (
        "".join(
            f'[[endpoints]]\nbase-url = "{url}"\napi-key-env = "{key}"\n'.replace("-", "_", 0)
            for url, key in (
                (shop.provider.base_url, "KEY_ONE"),
                (second.base_url, "KEY_TWO"),
                (_dead_url(), "KEY_ONE"),
            )
        )
        .replace("base-url", "base_url")
        .replace("api-key-env", "api_key_env")
    )
    (shop.folder / "lcbatch.toml").write_text(endpoints)
    before = len(shop.billed())

    began_s = time.monotonic()
    done = cli(
        "run", "in.jsonl", "-m", MODEL, "-p", "{text}", "-o", "out.jsonl",
        cwd=shop.folder, env={"KEY_ONE": "1", "KEY_TWO": "2"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_s < 30.0
    assert len(shop.output()) == 200
    assert len(shop.billed()) - before + len(second.ledger()) == 200
    assert len(second.ledger()) >= 1


def _dead_url() -> str:
    with SimulatorProcess() as gone:
        return gone.base_url


def test_a_fallback_takes_what_the_first_model_cannot_answer(tmp_path: Path, second: SimulatorProcess) -> None:
    with SimulatorProcess(context_tokens=60) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of("short", "long " * 200, "brief"))
        larger = ("--fallback", "openai:larger", "--max-output-tokens", "20")
        done = _run(shop, *larger, "--meta", OPENAI_BASE_URL=second.base_url)
    assert done.returncode == 0, done.stderr
    assert "openai:larger takes the calls that openai:sim cannot answer, the first for context_length" in done.stderr
    models = {row["text"][:4]: row["meta"]["model"] for row in shop.output()}
    assert models == {"shor": "sim", "long": "larger", "brie": "sim"}
    assert len(second.ledger()) == 1


def test_a_row_that_takes_too_long_fails_and_is_taken_up_again(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=1.0) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of("a", "b"))
        slow = _run(shop, "--row-timeout", "300ms")
        assert slow.returncode == 3
        assert "the row took longer than --row-timeout 0.3 s" in slow.stderr
        provider.control(latency_s=0.0)
        assert _run(shop, "--row-timeout", "300ms").returncode == 0


def test_status_says_what_a_run_waits_for(tmp_path: Path) -> None:
    with SimulatorProcess(rpm=120.0, burst_s=1.0) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"w{number}" for number in range(7))))
        done = _run(shop, "--summary-json", "summary.json")
        assert done.returncode == 0, done.stderr
        held_s = json.loads((tmp_path / "summary.json").read_text())["held_s"]
        assert max(held_s, key=lambda gate: held_s[gate]) in {"rpm", "pause"}
        assert "held up" in done.stderr
        text = cli("status", "out.jsonl", cwd=tmp_path).stdout
        assert "held up  " in text
        known = json.loads(cli("status", "out.jsonl", "--json", cwd=tmp_path).stdout)
        assert known["limits"][MODEL]["rpm"] == pytest.approx(120.0, rel=0.02)
