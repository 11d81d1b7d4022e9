"""kill -9 at random moments, at every sink, the same command each time until it ends, while others look on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.torture.deaths import Onlooker, Scene, at_the_end, kill_until_it_ends, write_rows
from tests.torture.judge import Case, calls_nothing, judge, judge_appended
from tests.torture.scale import cases, note

_IN_FLIGHT = 8
_ROWS_A_KILL = 30
_LATENCY_S = 0.03


@dataclass(frozen=True)
class _Shape:
    """A sink, and the order of its rows. None is stdout, to a file (`>`). `watched` has `status` and `export` look on."""

    output: str | None
    ordered: bool
    watched: bool = False

    def __str__(self) -> str:
        return f"{self.output or 'stdout'}{' --ordered' if self.ordered else ''}{' (watched)' if self.watched else ''}"

    def options(self) -> tuple[str, ...]:
        return ("--ordered",) if self.ordered else ("--no-ordered",)


_SHAPES = [
    _Shape("out.jsonl", ordered=False, watched=True),
    _Shape(None, ordered=True),
    _Shape("out.csv", ordered=True),
    _Shape("out.parquet", ordered=False),
    _Shape("out/", ordered=False),
    _Shape("out.jsonl", ordered=True),
    _Shape("out.csv", ordered=False, watched=True),
    _Shape("out.parquet", ordered=True),
    _Shape("out/", ordered=True, watched=True),
    _Shape(None, ordered=False, watched=True),
]


@pytest.mark.parametrize("shape", _SHAPES[: cases(2, len(_SHAPES))], ids=str)
def test_kills_at_random_moments_lose_nothing_and_double_nothing(tmp_path: Path, shape: _Shape) -> None:
    kills, seed = cases(2, 100), _SHAPES.index(shape) + 1
    rows = write_rows(tmp_path, kills * _ROWS_A_KILL)
    name = f"{shape}, seed {seed}"
    case = Case(name=name, rows=rows, ordered=shape.ordered and shape.output != "out/", may_repay=kills * _IN_FLIGHT)
    with SimulatorProcess(latency_s=_LATENCY_S) as provider:
        scene = Scene(tmp_path, provider, shape.output, _IN_FLIGHT, shape.options())
        dice = random.Random(seed)  # noqa: S311 - moments, no secrets
        if shape.watched:
            with Onlooker(scene, case) as onlooker:
                lives = kill_until_it_ends(scene, len(rows), kills, dice)
            assert onlooker.looks, f"{name}: nobody looked on"
        else:
            lives = kill_until_it_ends(scene, len(rows), kills, dice)
        ledger = provider.ledger()
        judge(case, scene.captured, ledger, exit_code=lives.exit_code, errors=scene.errors())
        assert lives.kills >= kills - at_the_end(kills), f"{name}: it ended after {lives.kills} kills"
        calls_nothing(case, scene.finish, provider, scene.captured)
    repaid = len(ledger) - len(rows)
    seen = f"{lives.kills} kills, {len(rows)} rows, {repaid} calls repaid (at most {lives.kills * _IN_FLIGHT}): 0 lost, 0 twice"
    note(f"kill -9 at random moments: {shape}", "100 kills: 0 lost, 0 twice", seen)


@pytest.mark.parametrize("ordered", [False, True][: cases(1, 2)])
def test_kills_behind_an_appending_shell_lose_nothing_and_spoil_no_line(tmp_path: Path, *, ordered: bool) -> None:
    kills, seed = cases(2, 100), 29 + ordered
    rows = write_rows(tmp_path, kills * _ROWS_A_KILL)
    shape = _Shape(None, ordered)
    name = f">> out.jsonl{' --ordered' if ordered else ''}, seed {seed}"
    case = Case(name=name, rows=rows, ordered=ordered, may_repay=kills * _IN_FLIGHT)
    before = b'{"id": "older"}\n{"id": "cut of'
    with SimulatorProcess(latency_s=_LATENCY_S) as provider:
        scene = Scene(tmp_path, provider, None, _IN_FLIGHT, shape.options(), appended=True)
        scene.captured.write_bytes(before)
        lives = kill_until_it_ends(scene, len(rows), kills, random.Random(seed))  # noqa: S311 - moments, no secrets
        held, ledger = scene.captured.read_bytes(), provider.ledger()
        assert held.startswith(before + b"\n"), f"{name}: what was there before was touched, or a line went on from it"
        lines = held.removeprefix(before + b"\n").split(b"\n")
        assert lines.pop() == b"", f"{name}: it ends within a line"
        judge_appended(case, lines, ledger, exit_code=lives.exit_code, deaths=lives.kills)
        assert lives.kills >= kills - at_the_end(kills), f"{name}: it ended after {lives.kills} kills"
        assert scene.finish() == 0
        assert provider.ledger() == ledger, f"{name}: the next run called what was done"
    times = len(lines) / len(rows)
    seen = f"{lives.kills} kills, {len(rows)} rows, each {times:.1f} times on average, {len(ledger) - len(rows)} calls repaid"
    note(f"kill -9 at random moments: {name}", "100 kills: 0 lost, none run into another's line", seen)
