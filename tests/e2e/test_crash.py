"""kill -9 at random moments, the same command each time until it ends."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from pathlib import Path

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, command, environment

_ROWS = 5000
_IN_FLIGHT = 64
_KILLS = 10


def test_ten_kills_lose_nothing_and_repeat_only_what_was_in_flight(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": f"row {number}"} for number in range(_ROWS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with SimulatorProcess(latency_s=0.02) as provider:
        kills = _until_it_ends(tmp_path, provider)
        ledger = provider.ledger()
    output = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kills == _KILLS
    assert Counter(row["id"] for row in output) == Counter(row["id"] for row in rows)
    answered = {entry["prompt"]: entry["answer"] for entry in ledger}
    assert all(row["output"] == answered[f"Say {row['text']}"] for row in output)
    assert len(ledger) <= _ROWS + _KILLS * _IN_FLIGHT


def _until_it_ends(folder: Path, provider: SimulatorProcess) -> int:
    """Run and kill, then let it end; how often it was killed while it was calling."""
    dice = random.Random(7)  # noqa: S311 - moments, no secrets
    for kills in range(_KILLS + 1):
        before = provider.stats()["requests"]
        run = subprocess.Popen(
            command(
                "run", "in.jsonl", "-m", MODEL, "--base-url", provider.base_url, "-p", "Say {text}", "-o", "out.jsonl",
                "-j", str(_IN_FLIGHT), "--progress", "none",
            ),
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        if kills == _KILLS:
            _, said = run.communicate(timeout=120)
            assert run.returncode == 0, said
            return kills
        target = before + dice.randrange(1, _ROWS // (2 * _KILLS))
        while run.poll() is None and provider.stats()["requests"] < target:
            pass  # each look is a request to the provider, which paces it
        assert run.poll() is None, "it ended before it could be killed"
        run.kill()
        run.communicate()
    raise AssertionError("it never ended")
