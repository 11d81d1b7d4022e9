"""How a run is put to death: at a random moment of its life, again and again, while others look on."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, command, environment, started
from tests.torture.judge import Case, Row, as_answered, rows_of, whole

_LIFE_S = 300
"""No run of these tests takes nearly as long, on a machine that is busy with much else too; one that does has stalled."""

_LOOK_S = 0.001
"""Between two looks at the provider's counters: a busy loop would take the core that the run needs."""


@dataclass(frozen=True)
class Scene:
    """A folder with an input, and the command that works on it.

    output: as given to -o; None is stdout, which goes to `captured`, written anew by each run as a shell's `>` does, or
    with `appended` to its end as by `>>`.
    """

    folder: Path
    provider: SimulatorProcess
    output: str | None
    in_flight: int
    options: tuple[str, ...] = ()
    appended: bool = False

    @property
    def captured(self) -> Path:
        """Where the rows end up."""
        return self.folder / (self.output or "stdout.jsonl")

    def arguments(self) -> list[str]:
        """The arguments of a run; the same each time."""
        where = ["--store", "pipe.lcbatch", "--errors", "errors.jsonl"] if self.output is None else ["-o", self.output]
        return [
            "run", "in.jsonl", "-m", MODEL, "--base-url", self.provider.base_url, "-p", "Say {text}",
            "-j", str(self.in_flight), "--progress", "none", *where, *self.options,
        ]  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        """Start a run. What it says lands in `said`."""
        with (
            (self.folder / "stdout.jsonl").open("ab" if self.appended else "wb") as out,
            (self.folder / "said").open("wb") as said,
        ):
            return subprocess.Popen(
                command(*self.arguments()),
                cwd=self.folder,
                env=environment(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=out if self.output is None else subprocess.DEVNULL,
                stderr=said,
            )

    def finish(self) -> int:
        """Run to the end; its exit code."""
        return self.start().wait(timeout=_LIFE_S)

    def said(self) -> str:
        """What the last run said on stderr."""
        return (self.folder / "said").read_text()

    def store(self) -> Path:
        """The run store's file."""
        return self.folder / ("pipe.lcbatch" if self.output is None else f"{self.output.rstrip('/')}.lcbatch")

    def errors(self) -> Path:
        """Where failed rows stand."""
        return self.folder / ("errors.jsonl" if self.output is None else f"{self.output.rstrip('/')}.errors.jsonl")


def write_rows(folder: Path, count: int) -> list[Row]:
    """Write `in.jsonl`: so many rows, no two alike."""
    rows = [{"id": f"r{number}", "text": f"row {number}"} for number in range(count)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@dataclass(frozen=True)
class Lives:
    """How often a command was killed, and how it ended at last."""

    kills: int
    exit_code: int


def kill_until_it_ends(scene: Scene, rows: int, kills: int, dice: random.Random) -> Lives:
    """Run the same command and kill it `kills` times, then let it end; earlier when it ends before it can be killed."""
    startup_s = _startup_s(scene)
    for number in range(kills):
        run = scene.start()
        seen = scene.provider.stats()["requests"]
        if kills - number > at_the_end(kills):
            moment = _between_calls(seen, (rows - seen) // (kills - number), startup_s, dice)
        else:
            moment = _Moment(max(seen, rows), startup_s * dice.uniform(0.5, 3), dice.uniform(0, 0.1))
        try:
            _wait_for_its_moment(scene, run, moment)
        finally:
            run.kill()
            code = run.wait(timeout=_LIFE_S)
        if code >= 0:
            return Lives(number, code)
    return Lives(kills, scene.finish())


@dataclass(frozen=True)
class _Moment:
    """When the provider has seen so many requests, or after `at_most_s` of life, and then `later_s` more."""

    requests: int
    at_most_s: float
    later_s: float = 0.0


def _startup_s(scene: Scene) -> float:
    """How long a run that calls nothing takes here and now, from its start to its end."""
    (scene.folder / "empty.jsonl").touch()
    begun = time.monotonic()
    nothing = ["run", "empty.jsonl", "-m", MODEL, "--base-url", scene.provider.base_url, "-p", "Say {text}"]
    ended = started(*nothing, "-o", "empty.out.jsonl", cwd=scene.folder)
    assert ended.returncode == 0, ended.stderr
    return time.monotonic() - begun


def at_the_end(kills: int) -> int:
    """So many of the deaths come when all rows have been asked for; a run may end before them."""
    return min(3, kills // 4)


def _between_calls(seen: int, a_life: int, startup_s: float, dice: random.Random) -> _Moment:
    """One in four dies while it starts and recovers, the rest between their calls: `a_life` of them on average."""
    if dice.random() < 0.25:
        return _Moment(seen + max(1, a_life), startup_s * dice.uniform(0.5, 1.1))
    return _Moment(seen + dice.randrange(1, max(2, 2 * a_life)), _LIFE_S, dice.uniform(0, 0.02))


def _wait_for_its_moment(scene: Scene, run: subprocess.Popen[bytes], moment: _Moment) -> None:
    """Until the moment, or the run's own end."""
    begun = time.monotonic()
    while run.poll() is None and time.monotonic() < begun + moment.at_most_s:
        if scene.provider.stats()["requests"] >= moment.requests:
            break
        time.sleep(_LOOK_S)
    else:
        assert run.poll() is not None or moment.at_most_s < _LIFE_S, f"it stalled: {scene.said()}"
    until = time.monotonic() + moment.later_s
    while run.poll() is None and time.monotonic() < until:
        time.sleep(_LOOK_S)


class Onlooker:
    """Looks at a store with `status` and `export`, one after the other, for as long as the block lasts.

    What they show must be valid at any moment: rows done never become fewer, and each exported one says what was
    answered. `looks` counts. The block's end raises what was found wrong.
    """

    def __init__(self, scene: Scene, case: Case) -> None:
        self.looks = 0
        self._scene = scene
        self._case = replace(case, ended=False, may_repay=10**9, ordered=False)
        self._done = 0
        self._wrong: list[BaseException] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="onlooker")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=_LIFE_S)
        if self._wrong and value is None:
            raise self._wrong[0]

    def _watch(self) -> None:
        looks: list[Callable[[str], None]] = [self._status, self._export]
        target = self._scene.output or "pipe.lcbatch"
        store = self._scene.store()
        try:
            while not self._over.wait(_LOOK_S):
                if store.exists():
                    looks[self.looks % 2](target)
                    self.looks += 1
        except Exception as error:  # noqa: BLE001 - raised again where the test can see it
            self._wrong.append(error)

    def _status(self, target: str) -> None:
        seen = started("status", target, "--json", cwd=self._scene.folder)
        assert seen.returncode == 0 or self._done == 0, f"status ended with {seen.returncode}: {seen.stderr}"
        if seen.returncode == 0:
            done = json.loads(seen.stdout)["done"]
            assert done >= self._done, f"{done} rows done after {self._done}"
            self._done = done

    def _export(self, target: str) -> None:
        aside = self._scene.folder / "aside.csv"
        seen = started("export", target, "-o", "aside.csv", cwd=self._scene.folder)
        assert seen.returncode == 0 or self._done == 0, f"export ended with {seen.returncode}: {seen.stderr}"
        if seen.returncode == 0:
            done = [row for row in rows_of(aside) if row["output"]]
            whole(self._case, [row["id"] for row in done], [])
            as_answered(self._case, done, self._scene.provider.ledger())
