"""A million rows: killed in the middle and run again, and in input order behind a first row that is stuck. Memory stays small."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lcbatch.simulator.answers import request_digest
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, command, environment
from tests.torture.memory import high_water_mb
from tests.torture.scale import WHOLE, cases, note

_IN_FLIGHT = 64
_MOST_MB = 200


@dataclass(frozen=True)
class Ended:
    """How a run ended, negative by a signal, and the most memory that it took."""

    code: int
    peak_mb: float


@dataclass(frozen=True)
class Pile:
    """So many rows, and a provider that answers at once."""

    folder: Path
    provider: SimulatorProcess
    rows: int
    ordered: bool = False

    def write(self) -> None:
        """The input; where it is about order, the provider never answers the first call of the first row."""
        with (self.folder / "in.jsonl").open("w") as file:
            for number in range(self.rows):
                stuck = "[[fault:hang:1]] " if self.ordered and number == 0 else ""
                file.write(f'{{"n": {number}, "text": "{stuck}row {number} of {self.rows}"}}\n')

    def run(self, *, kill_when: Callable[[int], bool] | None = None) -> Ended:
        """Run it to its end, or kill -9 when the provider has been asked so often that `kill_when` says so."""
        order = (
            ["--ordered", "--timeout", "2h"] if self.ordered else []
        )  # the first row is not to be asked again meanwhile
        started = subprocess.Popen(
            command(
                "run", "in.jsonl", "-m", MODEL, "--base-url", self.provider.base_url, "-p", "Say {text}", "-o",
                "out.jsonl", "-j", str(_IN_FLIGHT), "--progress", "none", *order,
            ),
            cwd=self.folder,
            env=environment(self.folder),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        peak_mb, killed = 0.0, False
        while started.poll() is None:
            peak_mb = max(peak_mb, high_water_mb(started.pid))
            if kill_when is not None and kill_when(self.provider.stats()["requests"]):
                started.kill()
                killed = True
            time.sleep(0.05)  # so that the looking is not what the provider does
        assert killed or kill_when is None, "it ended before it could be killed"
        return Ended(started.returncode, peak_mb)

    def check_output(self) -> None:
        """Each row once, with its own answer; in the input's order where that was asked for."""
        seen = bytearray(self.rows)
        with (self.folder / "out.jsonl").open() as file:
            for place, line in enumerate(file):
                row = json.loads(line)
                messages = [{"role": "user", "content": f"Say {row['text']}"}]
                asked = request_digest({"model": MODEL.partition(":")[2], "messages": messages})
                assert row["output"].startswith(f"echo {asked.hex()[:16]} "), row
                assert row["n"] == place or not self.ordered, f"row {row['n']} stands in line {place}"
                seen[row["n"]] += 1
        assert seen.count(1) == self.rows, f"{seen.count(0)} rows are not there"


def killed_and_resumed(pile: Pile) -> float:
    """Kill it in the middle, run it again; the larger of the two peaks."""
    pile.write()
    before = pile.provider.stats()
    killed = pile.run(kill_when=lambda asked: asked - before["requests"] >= pile.rows // 2)
    resumed = pile.run()
    assert (killed.code, resumed.code) == (-9, 0)
    pile.check_output()
    billed = pile.provider.stats()["billed"] - before["billed"]
    assert pile.rows <= billed <= pile.rows + _IN_FLIGHT
    return max(killed.peak_mb, resumed.peak_mb)


def stuck_and_ordered(pile: Pile) -> float:
    """All rows but the first are answered, and none is shown; run again, the first is answered, and all are."""
    pile.write()
    before = pile.provider.stats()
    stuck = pile.run(kill_when=lambda asked: asked - before["requests"] >= pile.rows)
    assert (pile.folder / "out.jsonl").stat().st_size == 0
    resumed = pile.run()
    assert (stuck.code, resumed.code) == (-9, 0)
    pile.check_output()
    billed = pile.provider.stats()["billed"] - before["billed"]
    assert pile.rows <= billed <= pile.rows + _IN_FLIGHT
    return max(stuck.peak_mb, resumed.peak_mb)


_WAYS = [(True, stuck_and_ordered), (False, killed_and_resumed)]


@pytest.mark.parametrize(("ordered", "way"), _WAYS[: cases(1, 2)])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, *, ordered: bool, way: Callable[[Pile], float]) -> None:
    few, many = cases(1_500, 20_000), cases(6_000, 1_000_000)
    peaks = []
    with SimulatorProcess() as provider:
        for rows in (few, many):
            folder = tmp_path / str(rows)
            folder.mkdir()
            peaks.append(way(Pile(folder, provider, rows, ordered)))
    assert peaks[1] < _MOST_MB, peaks
    if not WHOLE:
        # What is held for each row would show: 4,500 rows of 2 KB are 9 MB.
        assert peaks[1] - peaks[0] < 8, peaks
    what = "`--ordered` with the first row stuck until all others were answered" if ordered else "kill -9 in the middle"
    note(f"{many:,} rows, {what}", "RSS below 200 MB", f"{peaks[1]:.0f} MB ({peaks[0]:.0f} MB with {few:,} rows)")
