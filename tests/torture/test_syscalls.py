"""Death at every system call that writes, and again during the recovery from it."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.torture.deaths import Scene, write_rows
from tests.torture.judge import Case, calls_nothing, judge
from tests.torture.nursery import Nursery
from tests.torture.scale import cases, note
from tests.torture.tracing import Point, Tracer, hidden, killing, looking, need_strace, points

_ROWS = 4
_IN_FLIGHT = 2
_NEXT_RUN_EVERY = 5
"""So often the run after the last one is looked at too: it takes as long as the case itself."""

_STORE = (".lcbatch", ".lcbatch-wal", ".lcbatch-shm", ".lcbatch-journal")
_OUTPUTS = ["out.jsonl", "out/", "out.parquet", "out.csv", None]
_CASES = [(output, begun) for output in _OUTPUTS for begun in (True, False)]
"""Each output, with a run before that left one row done, and without."""


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    need_strace()
    with SimulatorProcess() as running:
        yield running


@dataclass
class _Stage:
    """Where the same run is killed again and again: always in one folder, so that the files have the same names.

    billed: calls before the case; paid: those that the template's row took.
    """

    scene: Scene
    nursery: Nursery
    template: Path
    billed: int = 0
    paid: list[dict[str, Any]] = field(default_factory=list)

    def set_up(self) -> None:
        """The folder as it was before the first run."""
        shutil.rmtree(self.scene.folder, ignore_errors=True)
        shutil.copytree(self.template, self.scene.folder)
        self.billed = int(self.scene.provider.stats()["billed"])

    def run(self, point: Point | None = None) -> int:
        """Run, to the point's death or to the end."""
        if point is None:
            return self.nursery.run(*self._order(), stdout=self._stdout())
        return self._traced(lambda pid, log: killing(pid, log, point))

    def watched(self) -> tuple[list[Point], int]:
        """Run to the end: every point on the way, and how many calls are hidden behind them."""
        log = self.template.with_name("trace")
        assert self._traced(looking) == 0, self.scene.said()
        return points(log, self.scene.folder), hidden(log, self.scene.folder)

    def _traced(self, attach: Callable[[int, Path], Tracer]) -> int:
        pid = self.nursery.begin(*self._order(), stdout=self._stdout(), held=True)
        tracer = attach(pid, self.template.with_name("trace"))
        code = self.nursery.end(pid)
        tracer.close()
        return code

    def _order(self) -> tuple[list[str], Path]:
        return self.scene.arguments(), self.scene.folder

    def _stdout(self) -> Path | None:
        return self.scene.captured if self.scene.output is None else None


@dataclass
class _Tally:
    """What a sweep saw. `unmet`: points that this run did not come to, since answers were committed in other groups."""

    points: int = 0
    unmet: int = 0
    pairs: int = 0
    hidden: int = 0


@pytest.mark.parametrize(("output", "begun"), _CASES[: cases(1, len(_CASES))], ids=str)
def test_death_at_a_writing_call_and_again_in_the_recovery_loses_nothing(
    tmp_path: Path, provider: SimulatorProcess, nursery: Nursery, output: str | None, *, begun: bool
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    rows = write_rows(template, _ROWS)
    stage = _Stage(Scene(tmp_path / "case", provider, output, _IN_FLIGHT), nursery, template)
    seed = _CASES.index((output, begun)) + 1
    dice = random.Random(seed)  # noqa: S311 - moments, no secrets
    if begun:
        _begin(stage)
    tally = _Tally()
    firsts, seconds = _scout(stage, tally)
    # The store's own calls are the same whatever the sink: the first sink's sweep makes them all.
    firsts = [point for point in firsts if output == _CASES[0][0] or not point.path.endswith(_STORE)]
    firsts = dice.sample(firsts, min(len(firsts), cases(2, len(firsts))))
    where = f"{output or 'stdout'}, {'begun' if begun else 'new'}"
    _sweep(stage, Case(name=f"{where}, seed {seed}", rows=rows), [(one, dice.choice(seconds)) for one in firsts], tally)
    seen = f"{tally.points} points, {tally.pairs} pairs; {tally.unmet} points not met, {tally.hidden} hidden: 0 lost, 0 twice"
    note(f"kill at every writing system call, and in the recovery: {where}", "every point: 0 lost, 0 twice", seen)


def _begin(stage: _Stage) -> None:
    """Leave one row done in the template, so that a run finds a store and an output."""
    stage.set_up()
    limited = replace(stage.scene, options=("--limit", "1"))
    assert replace(stage, scene=limited).run() == 0
    shutil.rmtree(stage.template)
    shutil.copytree(stage.scene.folder, stage.template)
    stage.paid = stage.scene.provider.ledger(since=stage.billed)


def _scout(stage: _Stage, tally: _Tally) -> tuple[list[Point], list[Point]]:
    """The points of a run that is left alone, and those of a run after a death in its middle."""
    stage.set_up()
    firsts, out_of_reach = stage.watched()
    tally.hidden += out_of_reach
    stage.set_up()
    assert stage.run(firsts[len(firsts) // 2]) == -signal.SIGKILL
    return firsts, stage.watched()[0]


def _sweep(stage: _Stage, case: Case, pairs: Sequence[tuple[Point, Point]], tally: _Tally) -> None:
    """Die at a point, and then at one of the recovery's; the run after that ends, and is judged."""
    for number, (first, second) in enumerate(pairs):
        stage.set_up()
        died = [stage.run(first) == -signal.SIGKILL]
        if died[0]:
            died.append(stage.run(second) == -signal.SIGKILL)
        code = stage.run()
        this = replace(case, name=f"{case.name}: {first}, then {second}: {died}", may_repay=sum(died) * _IN_FLIGHT)
        ledger = stage.paid + stage.scene.provider.ledger(since=stage.billed)
        judge(this, stage.scene.captured, ledger, exit_code=code, errors=stage.scene.errors())
        if number % _NEXT_RUN_EVERY == 0:
            calls_nothing(this, stage.run, stage.scene.provider, stage.scene.captured)
        tally.points += died[0]
        tally.unmet += not died[0]
        tally.pairs += sum(died) == 2
