"""Random weather at the provider (bursts of 429, 500s, outages, cut bodies, hangs) and kill -9 into it, judged by the ledger."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, command, environment
from tests.torture.scale import cases, note

_CALM = ("429-seconds", "429-ms", "429-absent", "500", "503", "reset", "hang", "cut", "badlength", "html")
_BURSTS = ("429-ms@0.9", "429-seconds@0.5", "500@0.8", "503-slow-down@0.5", "down", "reset@0.7", "529@0.5")
_LONGEST_S = 600
"""Of a run: a provider that is down is asked once in a while, and a burst of faults is counted in questions."""


@dataclass(frozen=True)
class Weather:
    """One schedule, all of it decided by its seed."""

    seed: int
    rows: int
    in_flight: int
    kills: tuple[int, ...]
    settings: dict[str, Any]

    @classmethod
    def of(cls, seed: int) -> Weather:
        """Drawn by chance: what may happen at any time, and what comes in bursts, by the number of the request."""
        dice = random.Random(seed)  # noqa: S311 - weather, no secrets
        rows = dice.randrange(40, 160)
        faults = {name: dice.uniform(0.005, 0.04) for name in dice.sample(_CALM, 4)}
        schedule = []
        for burst in dice.sample(_BURSTS, dice.randrange(1, 4)):
            start, length = dice.randrange(1, rows), 4 if burst == "down" else dice.randrange(3, 15)
            schedule.append(f"#{start}-#{start + length}:{burst}")
        settings = {
            "latency_s": dice.choice([0.0, 0.005, 0.03]), "latency_sigma": dice.choice([0.0, 1.0]), "faults": faults,
            "schedule": schedule, "retry_after_s": dice.choice([0.1, 0.5]), "seed": seed,
        }  # fmt: skip
        kills = sorted(dice.randrange(2, rows) for _ in range(dice.randrange(0, 4)))
        return cls(seed, rows, dice.choice([1, 4, 16]), tuple(kills), settings)


@pytest.mark.parametrize("seed", range(5, cases(6, 105)))
def test_each_row_is_paid_once_but_for_what_a_fault_or_a_death_took(tmp_path: Path, seed: int) -> None:
    weather = Weather.of(seed)
    rows = [{"n": number, "text": f"row {number}"} for number in range(weather.rows)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with SimulatorProcess(**weather.settings) as provider:
        deaths = sum(_killed(tmp_path, provider, weather, at) for at in weather.kills)
        _to_the_end(tmp_path, provider, weather)
        ledger = provider.ledger()
        asked = provider.stats()["requests"]
        _to_the_end(tmp_path, provider, weather)
        assert provider.stats()["requests"] == asked, f"{weather}: it asked for what was done"
    output = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(row["n"] for row in output) == list(range(weather.rows)), weather
    answers = {entry["prompt"]: entry["answer"] for entry in ledger}
    assert all(row["output"] == answers[f"Say {row['text']}"] for row in output), weather
    extra = sum(Counter(entry["prompt"] for entry in ledger).values()) - weather.rows
    spoiled = sum(entry["fault"] is not None for entry in ledger)
    assert 0 <= extra - spoiled <= deaths * weather.in_flight, f"{weather}: {extra} calls more than rows"
    note(
        "bursts of 429, 500s, outages, cut and slow answers at the provider, by chance, and kill -9 into them",
        "each row billed once, but for faults after billing and what was in flight at each death",
        f"{weather.rows} rows, {deaths} kills, {extra} billed again, {spoiled} of them spoiled by a fault",
    )


def _run(folder: Path, provider: SimulatorProcess, weather: Weather) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(
            "run", "in.jsonl", "-m", MODEL, "--base-url", provider.base_url, "-p", "Say {text}", "-o", "out.jsonl",
            "-j", str(weather.in_flight), "--timeout", "3s", "--progress", "none",
        ),
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def _killed(folder: Path, provider: SimulatorProcess, weather: Weather, at: int) -> bool:
    """Run until the provider has been asked `at` times in all, and kill it then; whether that came before its end."""
    run = _run(folder, provider, weather)
    while run.poll() is None and provider.stats()["requests"] < at:
        time.sleep(0.01)  # so that the looking is not what the provider does
    run.kill()
    run.communicate()
    # 69: before anything was ever answered, a provider that is down ends the run.
    assert run.returncode in {-9, 0, 3, 69}, weather
    return run.returncode == -9


def _to_the_end(folder: Path, provider: SimulatorProcess, weather: Weather) -> None:
    """The same command until every row is done: those that a fault failed for now are taken up by it."""
    for _ in range(5):
        run = _run(folder, provider, weather)
        _, said = run.communicate(timeout=_LONGEST_S)
        assert run.returncode in {0, 3, 69}, f"{weather}: {said}"
        if run.returncode == 0:
            return
    raise AssertionError(f"{weather}: five runs did not come to an end")
