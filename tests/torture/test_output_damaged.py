"""An output that somebody edited, took away or locked: written again without a call, or refused with the file as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcbatch.errors import LcbatchError
from lcbatch.simulator.process import SimulatorProcess
from tests.torture.disk import Customer, remount, rows_for, small_disk
from tests.torture.judge import Case, content, judge
from tests.torture.scale import note

_ROWS = 40


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


def _served(output: str, folder: Path, provider: SimulatorProcess, **options: str) -> Customer:
    """A customer whose run is done."""
    name = f"{output} of {folder.name}"
    customer = Customer(name, folder, provider, rows_for(name, _ROWS, filler=20), output, options)
    assert customer.run_here().exit_code == 0
    return customer


def _is_as_before(customer: Customer) -> None:
    """Run it again: no call, and the output as if nothing had happened to it."""
    billed = len(customer.billed())
    assert customer.run_here().exit_code == 0
    assert len(customer.billed()) == billed, f"{customer.name}: called again"
    for path in [*customer.folder.rglob("*.edited-*"), *customer.folder.rglob("*.orig-*")]:
        path.unlink()  # kept aside for the user, and said; the judge knows of no user
    judge(Case(name=customer.name, rows=customer.rows), customer.path, customer.billed(), exit_code=0)


def _edit(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40] + b"edited by hand\n")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _swap(path: Path) -> None:
    path.unlink()
    path.write_text("another file\n")


_DAMAGES: dict[str, Callable[[Path], None]] = {
    "edited": _edit,
    "cut": _cut,
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": Path.unlink,
    "replaced": _swap,
}


@pytest.mark.parametrize("damage", _DAMAGES)
@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_what_was_done_to_an_output_is_undone_without_a_call(
    output: str, damage: str, tmp_path: Path, provider: SimulatorProcess
) -> None:
    customer = _served(output, tmp_path, provider)
    _DAMAGES[damage](customer.path)
    damaged = customer.path.read_bytes() if customer.path.exists() else b""
    billed = len(customer.billed())
    assert customer.run_here().exit_code == 0
    kept = [path.read_bytes() for path in tmp_path.glob("*.edited-*")]
    assert kept == ([damaged] if damaged else []), "what somebody wrote is kept"
    assert len(customer.billed()) == billed
    _is_as_before(customer)
    note(
        f"output {damage} ({output})", "rebuilt without a call, or refused", "rebuilt, 0 called; what was there is kept"
    )


def test_files_of_a_folder_come_back_without_a_call(tmp_path: Path, provider: SimulatorProcess) -> None:
    customer = _served("out/", tmp_path, provider)
    for damage, path in zip(_DAMAGES.values(), sorted(customer.path.iterdir()), strict=False):
        damage(path)
    _is_as_before(customer)
    note("files of an output folder edited, deleted, replaced", "rebuilt without a call", "rebuilt, 0 called")


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_folder_in_the_outputs_place_is_refused(output: str, tmp_path: Path, provider: SimulatorProcess) -> None:
    customer = _served(output, tmp_path, provider)
    customer.path.unlink()
    customer.path.mkdir()
    billed = len(customer.billed())
    assert _refusal(customer) == 73
    assert len(customer.billed()) == billed
    assert list(customer.path.iterdir()) == []
    customer.path.rmdir()
    _is_as_before(customer)


def test_a_file_in_a_folders_place_is_refused(tmp_path: Path, provider: SimulatorProcess) -> None:
    customer = _served("out/", tmp_path, provider)
    customer.path.rename(tmp_path / "moved")
    customer.path.write_text("theirs")
    assert _refusal(customer) == 73
    assert customer.path.read_text() == "theirs"


def _refusal(customer: Customer) -> int:
    """The exit code of a run that says what to do instead."""
    try:
        error = customer.run_here().error
    except LcbatchError as refused:
        error = refused
    assert error is not None
    assert error.hint, error.message
    return error.exit_code


@pytest.mark.parametrize("output", ["disk/out.jsonl", "disk/out.parquet", "disk/out/"])
def test_an_output_on_another_file_system_is_served_and_a_read_only_one_refused(
    output: str, tmp_path: Path, provider: SimulatorProcess
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "8m"):
        customer = _served(output, tmp_path, provider, store=str(tmp_path / "store"))
        _is_as_before(customer)
        before = content(customer.path)
        remount(disk, "ro")
        assert _refusal(customer) == 73
        assert content(customer.path) == before
        remount(disk, "rw")
        _is_as_before(customer)
    note(
        f"{output} on another file system, then read-only",
        "served, or refused",
        "served; read-only: exit 73, as it was",
    )
