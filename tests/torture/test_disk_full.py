"""The disk is full, and later it is not: nothing received is lost, nothing is asked again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.torture.disk import Customer, remount, rows_for, small_disk
from tests.torture.scale import WHOLE, cases, note

_ROWS, _FILLER = 900, 1500

_PLACES = {
    "store": ("out.jsonl", "small/store", "6m"),
    "output": ("small/out.jsonl", "store", "500k"),
    "both": ("small/out.jsonl", "small/store", "7m"),
    "output as a table": ("small/out.csv", "store", "500k"),
    "output in input order": ("small/ordered.jsonl", "store", "500k"),
    "output as columns": ("small/out.parquet", "store", "12k"),
    "output as files": ("small/out/", "store", "1m"),
}
"""Output, store, and the size of the disk `small` that is too small for them."""


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(latency_s=0.02) as running:
        yield running


def _customer(name: str, folder: Path, provider: SimulatorProcess) -> Customer:
    output, store, _ = _PLACES[name]
    rows = rows_for(name, _ROWS, filler=_FILLER)
    options = {"store": str(folder / store), "ordered": True if "order" in name else None}
    return Customer(name, folder, provider, rows, output, options)


@pytest.mark.parametrize("name", list(_PLACES)[: cases(1, len(_PLACES))])
def test_a_disk_that_fills_up_stops_the_run_and_costs_nothing(
    name: str, tmp_path: Path, provider: SimulatorProcess
) -> None:
    small = tmp_path / "small"
    with small_disk(small, _PLACES[name][2]):
        customer = _customer(name, tmp_path, provider)
        ended = customer.run()
        assert ended.returncode == 74, ended.stderr
        assert "hint:" in ended.stderr
        billed = len(customer.billed())
        assert 0 < billed <= _ROWS
        if name == "store":
            again = customer.run()
            assert again.returncode == 74, again.stderr
            assert len(customer.billed()) == billed, "on a disk that is full still nothing is asked"
        remount(small, "size=100m")
        customer.is_served()
    note(
        f"disk full: {name}; then space again",
        "exit 74, every answer in flight kept, the rerun continues and pays nothing again",
        f"{billed} of {_ROWS} calls at exit 74, 0 asked again",
    )


@pytest.mark.parametrize("free", [0, 1, 16, 1024, 4096] if WHOLE else [0])
def test_a_disk_that_is_full_from_the_beginning_says_so_before_any_call(
    free: int, tmp_path: Path, provider: SimulatorProcess
) -> None:
    small = tmp_path / "small"
    with small_disk(small, "8m"):
        rows = rows_for(f"full {free}", 20, filler=10)
        customer = Customer(f"full from the start, {free} KiB", tmp_path, provider, rows, "small/out.jsonl")
        (small / "filler").write_bytes(bytes(8 * 1024 * 1024 - free * 1024))
        ended = customer.run()
        assert ended.returncode == 74, ended.stderr
        assert "hint: make room" in ended.stderr
        assert customer.billed() == []
        (small / "filler").unlink()
        customer.is_served()
