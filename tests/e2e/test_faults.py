"""Faults in the middle of a run, over real sockets, with the ledger as judge. Those that take long are in test_long_faults.py."""

from __future__ import annotations

import asyncio
import io
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcbatch.app import run_job
from lcbatch.simulator.choices import RetryAfterForm
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, command, environment, rows_of, texts

_OWN_PAUSE_S = 1.0
_SLACK_S = 0.3
"""A busy machine runs a timer late."""

_WAITS_S: dict[RetryAfterForm, tuple[float, float]] = {
    "absent": (_OWN_PAUSE_S, _OWN_PAUSE_S),
    "both": (0.4, 0.4),
    "date": (1.0, 2.0),
    "garbage": (_OWN_PAUSE_S, _OWN_PAUSE_S),
    "ms": (0.4, 0.4),
    "negative": (_OWN_PAUSE_S, _OWN_PAUSE_S),
    "seconds": (1.0, 1.0),
}
"""(least, most) that a provider asks for which means 0.4 s: whole seconds are rounded up, and so is an HTTP date, which counts
from that of the answer, rounded down."""


def test_each_form_of_retry_after_is_waited_out_and_no_longer(provider: SimulatorProcess, tmp_path: Path) -> None:
    shop = Shop(provider, tmp_path)
    provider.control(retry_after_s=0.4)
    requests = provider.stats()["requests"]
    for form in sorted(_WAITS_S):
        shop.write(f"{form}.jsonl", rows_of(f"{form} 1", f"{form} 2 [[fault:429-{form}:1]]", f"{form} 3"))

    async def main() -> list[int]:
        runs = (shop.run(f"{form}.jsonl", output=f"out-{form}.jsonl", concurrency="1") for form in sorted(_WAITS_S))
        return [report.exit_code for report in await asyncio.gather(*runs)]

    assert asyncio.run(main()) == [0] * len(_WAITS_S)
    provider.control(retry_after_s=None)
    assert provider.stats()["requests"] - requests == 4 * len(_WAITS_S), "three rows each, and one refusal"
    for form, (least_s, most_s) in sorted(_WAITS_S.items()):
        at_s = [call["at_s"] for call in shop.billed() if call["prompt"].startswith(f"Say {form} ")]
        assert len(at_s) == 3
        assert least_s <= at_s[1] - at_s[0] <= 1.05 * most_s + _SLACK_S, form
        assert at_s[2] - at_s[1] <= _SLACK_S, "what comes after does not wait again"


def test_a_third_of_all_calls_failing_costs_retries_and_no_row(tmp_path: Path) -> None:
    with SimulatorProcess(faults={"500": 0.3}, latency_s=0.02, seed=5) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(12))))
        report = asyncio.run(shop.run("in.jsonl"))
        assert report.exit_code == 0
        assert len(shop.output()) == len(shop.billed()) == 12
        assert 12 < provider.stats()["requests"] <= 1.6 * 12


def test_a_quota_that_runs_out_stops_the_run_and_bills_nothing_twice(tmp_path: Path) -> None:
    with SimulatorProcess(quota_after=500, latency_s=0.01) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(700))))

        report = asyncio.run(shop.run("in.jsonl", concurrency="16"))

        assert report.exit_code == 8
        assert report.error is not None
        assert "insufficient_quota" in report.error.message or "quota" in report.error.message
        assert "credit" in report.error.hint
        assert len(shop.output()) == len(shop.billed()) == 500
        assert provider.stats()["rejected"]["quota"] <= 16, "those in flight, and none of them again"
        assert not (tmp_path / "out.jsonl.errors.jsonl").exists(), "it is no row's fault"
        provider.control(quota_after=None)
        assert asyncio.run(shop.run("in.jsonl", concurrency="16")).exit_code == 0
        assert len(shop.billed()) == 700
        assert len(set(texts(shop.output()))) == len(shop.output()) == 700


class _Heard(io.StringIO):
    """A stream that lets go of who waits for a word in it."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word
        self.heard = asyncio.Event()

    def write(self, text: str) -> int:
        if self._word in text:
            self.heard.set()
        return super().write(text)


def test_a_provider_that_dies_and_comes_back_loses_no_row(tmp_path: Path) -> None:
    rows, in_flight = 120, 8
    ledger = tmp_path / "ledger.jsonl"

    async def main(shop: Shop, first: SimulatorProcess) -> tuple[int, list[dict[str, Any]], str]:
        said = _Heard("is down")
        job = shop.job("in.jsonl", concurrency=str(in_flight), progress="json")
        run = asyncio.create_task(run_job(job, replace(shop.world(), stderr=said)))
        while len(await asyncio.to_thread(first.ledger)) < rows // 3:
            pass
        await asyncio.to_thread(first.stop)
        await said.heard.wait()  # two seconds of silence and more
        with SimulatorProcess(port=first.port, ledger_file=ledger, latency_s=0.05) as again:
            report = await run
            return report.exit_code, again.ledger(), said.getvalue()

    with SimulatorProcess(latency_s=0.05, ledger_file=ledger) as first:
        shop = Shop(first, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(rows))))
        code, billed_later, said = asyncio.run(main(shop, first))

    assert code == 0, said
    assert "answers again" in said
    done = texts(shop.output())
    assert len(done) == len(set(done)) == rows
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()
    billed = len(ledger.read_text().splitlines())
    assert rows <= billed <= rows + in_flight, "only what was in flight as it died may have been billed in vain"
    assert rows // 3 - in_flight <= len(billed_later) <= rows


@dataclass(frozen=True)
class _Ended:
    code: int
    said: str


def _with_few_files(files: int, shop: Shop, *commands: Sequence[str]) -> list[_Ended]:
    """Run these at the same time, each allowed to open so many files."""
    runs = [
        subprocess.Popen(
            ["sh", "-c", f"ulimit -n {files}; exec {shlex.join(command(*arguments))}"],
            cwd=shop.folder, env=environment(shop.folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        for arguments in commands
    ]  # fmt: skip
    try:
        return [_Ended(run.wait(timeout=60), run.stderr.read()) for run in runs if run.stderr is not None]
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def test_open_files_that_run_out_are_no_outage_and_cost_no_row_and_no_document(tmp_path: Path) -> None:
    count = 24
    with SimulatorProcess(latency_s=0.2) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(count))))
        (tmp_path / "docs").mkdir()
        for index in range(count):
            (tmp_path / "docs" / f"{index}.txt").write_text(f"Document {index} says this. And that.")
        given = ["-m", MODEL, "--base-url", provider.base_url, "-j", "200"]
        rows, documents = (
            ["run", "in.jsonl", "-p", "Say {text}", "-o", "out.jsonl"],
            ["summarize", "docs", "-o", "s.jsonl"],
        )

        ended = _with_few_files(40, shop, [*rows, *given], [*documents, *given])

        for one in ended:
            assert one.code in {0, 71}, one.said
            assert "ulimit -n" in one.said
            assert "down" not in one.said
        assert not list(tmp_path.glob("*.errors.jsonl")), "it is no row's fault"
        assert 0 < provider.stats()["in_flight_peak"] <= 40
        assert asyncio.run(shop.run("in.jsonl", concurrency="200")).exit_code == 0
        assert len(set(texts(shop.output()))) == len(shop.output()) == count
        assert ended[1].code == 71 or len(shop.output("s.jsonl")) == count
        assert len(shop.billed()) == count + len(shop.output("s.jsonl")), "nothing was asked twice"


def test_too_few_files_to_begin_with_are_said_and_nothing_is_touched(
    provider: SimulatorProcess, tmp_path: Path
) -> None:
    shop = Shop(provider, tmp_path)
    shop.write("in.jsonl", rows_of("a"))
    given = ["-m", MODEL, "--base-url", provider.base_url, "-p", "Say {text}", "-o", "out.jsonl"]
    (ended,) = _with_few_files(24, shop, ["run", "in.jsonl", *given])
    assert ended.code == 71, ended.said
    assert "ulimit -n" in ended.said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]
