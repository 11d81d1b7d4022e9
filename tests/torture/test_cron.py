"""Many starts at once on one output, as of a cron line that is faster than its runs; the one that holds it killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lcbatch.simulator.process import SimulatorProcess
from tests.torture.deaths import Scene, write_rows
from tests.torture.judge import Case, calls_nothing, judge
from tests.torture.nursery import Nursery
from tests.torture.scale import cases, note

_STARTS = cases(20, 50)
_IN_FLIGHT = 4
_MOST_S = 120


def test_of_many_starts_at_once_one_wins_and_when_it_is_killed_the_next_starts_at_once(
    tmp_path: Path, nursery: Nursery
) -> None:
    rounds = cases(1, 20)
    rows = write_rows(tmp_path, 20)
    with SimulatorProcess() as provider:
        scene = Scene(tmp_path, provider, "out.jsonl", _IN_FLIGHT)
        # What it finds out about a model stays in a cache: else each of the fifty would load LangChain for it.
        assert nursery.run([*scene.arguments(), "--limit", "1"], tmp_path) == 0
        provider.control(latency_s=3600)
        for number in range(rounds):
            pids = _start_together(scene, nursery)
            winner = _one_is_left(scene, nursery, pids, calls=1 + (number + 1) * _IN_FLIGHT)
            os.kill(winner, signal.SIGKILL)
            assert nursery.end(winner) == -signal.SIGKILL
        provider.control(latency_s=0)
        begun = time.monotonic()
        code = nursery.run(scene.arguments(), tmp_path)
        took_s = time.monotonic() - begun
        case = Case(name=f"{_STARTS} starts", rows=rows, may_repay=rounds * _IN_FLIGHT)
        judge(case, scene.captured, provider.ledger(), exit_code=code)
        calls_nothing(case, lambda: nursery.run(scene.arguments(), tmp_path), provider, scene.captured)
    seen = f"{rounds} rounds of {_STARTS}: 1 winner each, all others 75; the next ran and ended in {took_s:.1f} s"
    note("50 starts at once on one output, the holder killed", "1 winner, 49 exit 75; the next starts at once", seen)


def _start_together(scene: Scene, nursery: Nursery) -> list[int]:
    """Start the same command many times; all of them wait at their first step, and take it at one moment."""
    pids = [
        nursery.begin(scene.arguments(), scene.folder, said=f"said-{number}", held=True) for number in range(_STARTS)
    ]
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return pids


def _one_is_left(scene: Scene, nursery: Nursery, pids: Sequence[int], *, calls: int) -> int:
    """Wait until all but one have ended, and look at how; the one that is left, with its calls in flight."""
    _until(lambda: sum(not nursery.has_ended(pid) for pid in pids) <= 1, "more than one holds the output")
    left = [pid for pid in pids if not nursery.has_ended(pid)]
    assert len(left) == 1, f"{len(left)} runs are left: {scene.said()}"
    assert [nursery.end(pid) for pid in pids if pid != left[0]] == [75] * (_STARTS - 1)
    held_by = json.loads((scene.folder / "out.jsonl.lcbatch.lock").read_text())["pid"]
    assert held_by == left[0]
    refusals = [(scene.folder / f"said-{number}").read_text() for number, pid in enumerate(pids) if pid != left[0]]
    assert all("out.jsonl.lcbatch is in use by another run" in said for said in refusals), refusals
    _until(lambda: scene.provider.stats()["requests"] >= calls, "the winner calls nothing")
    assert scene.provider.stats()["requests"] == calls, "a run that was refused has called"
    return left[0]


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _MOST_S
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)
