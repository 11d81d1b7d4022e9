"""Errors of the disk, at each write and each sync in turn: strace lets the system call fail, and says what came after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from lcbatch.sinks.appendfile import temporary_name
from tests.torture.disk import Customer, rows_for, strace
from tests.torture.scale import WHOLE, note

_ROWS = 150
_MOST_POINTS = 12
"""So many points of one kind at most: a run of this size syncs an output less often."""

_LONG = 60_000
"""Bytes in a row, so that the store's log is moved into its file while the run goes on."""

_SYNC = re.compile(r"(?:fsync|fdatasync)\(\d+<(?P<path>[^>]*)>\)\s+= (?P<result>-?\d+)")


@dataclass(frozen=True)
class Fault:
    """The `call` on `file` fails with `error`."""

    output: str
    file: str
    call: str
    error: str
    ordered: bool = False
    filler: int = 300

    def __str__(self) -> str:
        more = " in input order" if self.ordered else " with a long log" if self.filler == _LONG else ""
        return f"{self.error} from {self.call} of {self.file}{more}"


_STORE, _WAL = "out.jsonl.lcbatch", "out.jsonl.lcbatch-wal"
FAULTS = [
    Fault("out.jsonl", "out.jsonl", "fdatasync", "EIO"),
    Fault("out.jsonl", _WAL, "fdatasync", "EIO"),
    Fault("out.jsonl", "out.jsonl", "write", "EDQUOT"),
    Fault("out.jsonl", _WAL, "pwrite64", "ENOSPC"),
    Fault("out.jsonl", "out.jsonl", "write", "EIO"),
    Fault("out.jsonl", "out.jsonl", "write", "EFBIG"),
    Fault("out.jsonl", _WAL, "pwrite64", "EIO"),
    Fault("out.jsonl", _WAL, "pwrite64", "EDQUOT"),
    Fault("out.jsonl", _STORE, "fdatasync", "EIO"),
    Fault("out.jsonl", _STORE, "pwrite64", "EIO"),
    Fault("out.jsonl", _STORE, "fdatasync", "ENOSPC"),
    Fault("out.jsonl", _WAL, "fdatasync", "EIO", filler=_LONG),
    Fault("out.jsonl", _STORE, "fdatasync", "EIO", filler=_LONG),
    Fault("out.jsonl", _STORE, "pwrite64", "EIO", filler=_LONG),
    Fault("out.csv", "out.csv", "fdatasync", "EIO"),
    Fault("out.csv", "out.csv", "write", "ENOSPC"),
    Fault("out.jsonl", "out.jsonl", "fdatasync", "EIO", ordered=True),
    Fault("out.parquet", temporary_name("out.parquet"), "fsync", "EIO"),
    Fault("out.parquet", temporary_name("out.parquet"), "write", "EDQUOT"),
    Fault("out.parquet", temporary_name("out.parquet"), "rename", "EIO"),
    Fault("out/", "out/.lcbatch.tmp", "fsync", "EIO"),
    Fault("out/", "out/.lcbatch.tmp", "write", "EDQUOT"),
    Fault("out/", "out/.lcbatch.tmp", "rename", "EIO"),
    Fault("out/", "out", "fsync", "EIO"),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(latency_s=0.02) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS if WHOLE else FAULTS[:2], ids=str)
def test_an_error_at_any_write_or_sync_loses_nothing(fault: Fault, tmp_path: Path, provider: SimulatorProcess) -> None:
    strace()
    points = 0
    for when in range(1, _MOST_POINTS + 1) if WHOLE else [2]:
        if not _fails_at(fault, when, tmp_path / str(when), provider):
            break
        points += 1
    assert points, f"{fault} never happened"
    note(
        f"{fault} ({fault.output})",
        "exit 74, nothing lost or twice, no fsync tried again",
        f"{points} points, 0 lost, 0 twice",
    )


def _fails_at(fault: Fault, when: int, folder: Path, provider: SimulatorProcess) -> bool:
    """Let the call fail at its `when`-th time in each thread, and run again without. False: there were less of them."""
    name = f"{fault}, number {when}"
    customer = Customer(name, folder, provider, rows_for(name, _ROWS, filler=fault.filler), fault.output)
    customer.options = {"ordered": True if fault.ordered else None}
    trace = folder / "trace"
    calls = "fsync,fdatasync,write,pwrite64,ftruncate,rename"
    ended = customer.run(
        strace(), "-f", "-qq", "-y", "--seccomp-bpf", "-s", "0", "-o", str(trace), "-P", str(folder / fault.file),
        "-e", f"trace={calls}", "-e", f"inject={fault.call}:error={fault.error}:when={when}",
    )  # fmt: skip
    lines = trace.read_text().splitlines()
    if not any("(INJECTED)" in line for line in lines):
        assert ended.returncode == 0, f"{name}: {ended.stderr}"
        return False
    if ended.returncode != 0 or not _was_at_the_close(fault, lines):
        assert ended.returncode == 74, f"{name}: {ended.returncode} {ended.stderr}"
        assert "hint:" in ended.stderr, name
    assert not (retried := _synced_again(lines)), f"{name}: {retried} was synced again after that had failed"
    customer.is_served()
    return True


def _was_at_the_close(fault: Fault, lines: list[str]) -> bool:
    """Whether the store failed when its log was moved into it at the very end: all is in the log, and was synced there."""
    return fault.file in {_STORE, _WAL} and "(INJECTED)" in lines[-1]


def _synced_again(lines: list[str]) -> list[str]:
    """Files whose sync failed and was tried again later: the kernel may say that it is well, with the data gone.

    What was cut down to nothing in between had nothing to lose: SQLite takes the making of a new store back so.
    """
    failed: set[str] = set()
    again = []
    for line in lines:
        if line.endswith(">, 0) = 0") and "ftruncate(" in line:
            failed.clear()
        if (found := _SYNC.search(line)) is not None:
            if found["path"] in failed:
                again.append(found["path"])
            if found["result"] != "0":
                failed.add(found["path"])
    return again


@pytest.mark.parametrize("blocks", [4097, 4800, 100, 20] if WHOLE else [4097])
def test_a_limit_on_the_size_of_files_is_a_full_disk(blocks: int, tmp_path: Path, provider: SimulatorProcess) -> None:
    name = f"ulimit -f {blocks}"
    customer = Customer(name, tmp_path, provider, rows_for(name, _ROWS, filler=_LONG))
    ended = customer.run("bash", "-c", f'ulimit -f {blocks}; exec "$@"', "--")
    assert ended.returncode == 74, f"{name}: {ended.returncode} {ended.stderr}"
    assert "hint:" in ended.stderr
    billed = len(customer.billed())
    assert bool(billed) == (blocks > 4096), "without room for the reserve it does not begin"
    customer.is_served()
    note(f"EFBIG and short writes ({name})", "exit 74, nothing lost or twice", f"{billed} calls, 0 asked again")
