"""The clock jumps by a day while a run works, or was never right: nothing waits for that, and nothing bursts."""

from __future__ import annotations

import shutil
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop, look_again, rows_of
from tests.torture.scale import cases, most_in_a_second, note
from tests.torture.watched import Ended, watched

_DAY_S = 86_400
_PER_S = 20
_BURST = 2 * _PER_S + 2
"""What a second may hold: the rate, what the second before left over, and the ends of both."""

_ENDS_WITHIN_S = 120.0


def _skewed(folder: Path, seconds: int) -> dict[str, str]:
    """The environment in which the time of day is read from a file that says how far it is off; other clocks are right."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed: apt-get install faketime")
    library = subprocess.run(
        [faketime, "-f", "+0d", "sh", "-c", "printf %s $LD_PRELOAD"], capture_output=True, text=True, check=True
    ).stdout
    _move(folder, seconds)
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(folder / "skew"),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _move(folder: Path, seconds: int) -> None:
    (folder / "skew.new").write_text(f"{seconds:+d}\n")
    (folder / "skew.new").rename(folder / "skew")


def _run(shop: Shop, env: dict[str, str], *more: str) -> Ended:
    return watched(
        *shop.words("in.jsonl"),
        *more,
        cwd=shop.folder,
        env=env,
        within_s=_ENDS_WITHIN_S,
    )


def test_a_clock_that_jumps_by_a_day_moves_no_call(tmp_path: Path) -> None:
    rows = cases(50, 600)
    env = _skewed(tmp_path, 0)
    with SimulatorProcess() as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number}" for number in range(rows))))
        over = threading.Event()

        def jump() -> None:
            for calls, seconds in ((rows // 4, _DAY_S), (rows // 2, -_DAY_S), (3 * rows // 4, 0)):
                while provider.stats()["requests"] < calls and not over.is_set():
                    look_again()
                _move(tmp_path, seconds)

        jumping = threading.Thread(target=jump)
        jumping.start()
        ended = _run(shop, env, "--rpm", str(_PER_S * 60))
        over.set()
        jumping.join()
        ledger = provider.ledger()
    times_s = sorted(entry["at_s"] for entry in ledger)
    assert ended.code == 0, ended.said
    assert len(shop.output()) == len(ledger) == rows
    assert most_in_a_second(times_s) <= _BURST
    longest_s = max(after - before for before, after in pairwise(times_s))
    assert longest_s < 30
    note(
        "clock: a day forward, two days back, and right again, while a run works under --rpm",
        "nothing waits, nothing bursts",
        f"{rows} rows in {times_s[-1] - times_s[0]:.0f} s at {_PER_S} a second, "
        f"at most {most_in_a_second(times_s)} in any second",
    )


@pytest.mark.parametrize("days", [-1, 1] if cases(0, 1) else [-1])
def test_a_clock_that_is_a_day_off_waits_as_long_as_the_provider_asks(tmp_path: Path, days: int) -> None:
    env = _skewed(tmp_path, days * _DAY_S)
    with SimulatorProcess(schedule=["#3-#4:429-date"], rate_headers="anthropic", rpm=60_000) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number}" for number in range(8))))
        ended = _run(shop, env)
        assert ended.code == 0, ended.said
        assert len(shop.output()) == len(provider.ledger()) == 8
        assert provider.stats()["requests"] == 10
