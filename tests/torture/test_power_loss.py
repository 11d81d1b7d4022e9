"""Power loss at any moment of a run: legal states of the disk, rebuilt from what the run asked of it, each taken up again."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.store.support import fast_folder
from tests.torture.disk import Customer, rows_for, strace
from tests.torture.judge import Case, judge
from tests.torture.power import OPTIONS, Disk, Inode, Op, State, operations
from tests.torture.scale import cases, note

_ROWS = 160
_SCENES = {
    "lines": ("out.jsonl", {}),
    "files": ("out/", {}),
    "lines in input order": ("out.jsonl", {"ordered": True}),
    "a table": ("out.csv", {}),
    "columns": ("out.parquet", {}),
    "lines, recovered": ("out.jsonl", {}),
    "lines, written anew": ("out.jsonl", {"meta": True}),
    "files, recovered": ("out/", {}),
}
_STATES = cases(24, 10_000) // (2 if cases(1, 0) else len(_SCENES))


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(latency_s=0.03) as running:
        yield running


@dataclass
class Recording:
    """A run as strace saw it. `kept` are the real files by their inode's number, for the program knows files by their inodes."""

    customer: Customer
    place: Path
    start: Disk
    ops: list[Op]
    kept: dict[int, Path] = field(default_factory=dict)
    times_ns: dict[int, int] = field(default_factory=dict)

    def keep(self, names: dict[str, Inode | None]) -> None:
        """Hold on to files that would go away with their names."""
        for path, inode in names.items():
            if inode is not None and inode.number not in self.kept and not path.endswith("-shm"):
                kept = self.customer.folder / "kept" / str(inode.number)
                kept.parent.mkdir(exist_ok=True)
                kept.hardlink_to(path)
                self.kept[inode.number] = kept

    def put(self, state: State) -> None:
        """Make the folder what a state says."""
        shutil.rmtree(self.place)
        for path, (inode, content) in sorted(state.items()):
            if inode is None:
                Path(path).mkdir()
            elif not path.endswith("-shm"):
                self._put_file(Path(path), inode, content)
        inode = state.get(str(self.customer.path), (None, b""))[0]
        if inode is not None and inode.number not in self.kept:
            self._call_it_ours()

    def _call_it_ours(self) -> None:
        """Name the output's new inode in the store, where it had one that was made and replaced within the run."""
        known = [kept.stat().st_ino for kept in self.kept.values()]
        with closing(sqlite3.connect(_store_of(self.customer), isolation_level=None)) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                connection.execute(
                    "UPDATE projections SET state = json_replace(state, '$.inode', ?), sum = NULL WHERE name = 'output' "
                    "AND json_extract(state, '$.inode') NOT IN (SELECT value FROM json_each(?))",
                    (self.customer.path.stat().st_ino, json.dumps([0, *known])),
                )

    def _put_file(self, path: Path, inode: Inode, content: bytes) -> None:
        kept = self.kept.get(inode.number)
        if kept is None:
            path.write_bytes(content)
            return
        kept.write_bytes(content)
        os.utime(kept, ns=(self.times_ns[inode.number], self.times_ns[inode.number]))
        path.hardlink_to(kept)


def _store_of(customer: Customer) -> Path:
    return customer.path.with_name(customer.path.name + ".lcbatch")


def _recorded(scene: str, folder: Path, provider: SimulatorProcess) -> Recording:
    output, options = _SCENES[scene]
    place = folder / "place"
    place.mkdir(parents=True)
    rows = rows_for(scene, _ROWS, filler=100)
    customer = Customer(scene, folder, provider, rows, f"place/{output}")
    if "recovered" in scene:
        _cut_off(customer)
    elif "anew" in scene:
        assert customer.run_here().exit_code == 0
    customer.options = options
    start = Disk.of(place)
    recording = Recording(customer, place, start, [])
    recording.keep(start.names)
    before = {number: kept.stat().st_mtime_ns for number, kept in recording.kept.items()}
    ended = customer.run(strace(), *OPTIONS, "-o", str(folder / "trace"))
    assert ended.returncode == 0, ended.stderr
    recording.ops = list(operations(folder / "trace", place))
    end = Disk(start.names)
    for op in recording.ops:
        end.do(op)
    _is_what_was_traced(end)
    recording.keep(end.names)
    recording.times_ns = {number: kept.stat().st_mtime_ns for number, kept in recording.kept.items()} | before
    return recording


def _is_what_was_traced(end: Disk) -> None:
    """The folder itself is the proof that no operation was missed or misread."""
    for path, inode in end.names.items():
        if inode is not None and not path.endswith("-shm"):
            inode.synced()
            assert Path(path).read_bytes() == bytes(inode.safe), path


def _cut_off(customer: Customer) -> None:
    """Half of it is done, in an earlier boot, and the machine lost its power."""
    customer.options = {"limit": _ROWS // 2}
    assert customer.run_here().exit_code == 0
    customer.options = {}
    with closing(sqlite3.connect(_store_of(customer), isolation_level=None)) as connection:
        connection.execute(
            "UPDATE projections SET boot = 'an earlier boot', sum = NULL, state = json_remove(state, '$.settled') "
            "WHERE state IS NOT NULL"
        )


@pytest.mark.parametrize("scene", list(_SCENES)[: cases(2, len(_SCENES))])
def test_after_power_loss_only_the_last_beat_is_asked_again(
    scene: str, provider: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fast_folder() as folder:  # thousands of runs, of which none needs a disk of its own
        _lose_power(scene, _recorded(scene, Path(folder).resolve() / "job", provider), monkeypatch)


def _lose_power(scene: str, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    paid = recording.customer.billed()
    monkeypatch.setattr("lcbatch.store.run_store.boot_id", lambda: "the next boot")
    dice = random.Random(scene)  # noqa: S311 - moments, no secrets
    cuts = sorted(dice.randint(0, len(recording.ops)) for _ in range(_STATES))
    disk, safe, done, most, beat = Disk(recording.start.names), set[str](), 0, 0, _Beats()
    if "recovered" in scene or "anew" in scene:
        safe = _ids(disk, recording.customer)
    for number, cut in enumerate(cuts):
        for op in recording.ops[done:cut]:
            disk.do(op)
            if op.name == "sync" and op.path.endswith("-wal"):
                safe |= _ids(disk, recording.customer)
            beat.see(op)
        done = cut
        name = f"{scene}, state {number} after call {cut} of {len(recording.ops)}"
        state = disk.without_power(random.Random(f"{scene} {number}"))  # noqa: S311
        recording.put(state)
        answered = _ids(disk, recording.customer, seen=True)
        most = max(most, len(answered & _is_taken_up(name, recording.customer, paid, safe)))
    note(
        f"power loss: {scene}",
        "at most 100 ms and one fsync of answers called again, 0 twice, no garbage",
        f"{len(cuts)} states, at most {most} answers called again; the longest beat took {beat.longest_s * 1000:.0f} ms",
    )


@dataclass
class _Beats:
    """How far the safe state is behind: from one sync of the output to the end of the store's sync after the next."""

    longest_s: float = 0.0
    _last_s: float | None = None

    def see(self, op: Op) -> None:
        if op.name == "sync" and op.path.endswith("-wal"):
            if self._last_s is not None:
                self.longest_s = max(self.longest_s, op.at_s - self._last_s)
            self._last_s = op.at_s


def _is_taken_up(name: str, customer: Customer, paid: list[dict[str, Any]], safe: set[str]) -> set[str]:
    """Run again on what the power loss left; which rows were called."""
    before = customer.provider.stats()["billed"]
    ended = customer.run_here()
    assert ended.exit_code == 0, f"{name}: {ended.exit_code} {ended.error}"
    again = customer.provider.ledger(since=before)
    asked = [str(entry["prompt"]) for entry in again]
    by_text = {f"Say {row['text']}": row["id"] for row in customer.rows}
    ids = [by_text[prompt] for prompt in asked]
    assert len(ids) == len(set(ids)), f"{name}: called twice"
    assert not (repaid := safe & set(ids)), (
        f"{name}: {len(repaid)} called again that were safe, such as {sorted(repaid)[:3]}"
    )
    case = Case(name=name, rows=customer.rows, may_repay=len(again), ordered=bool(customer.options.get("ordered")))
    judge(case, customer.path, [*paid, *again], exit_code=ended.exit_code)
    return set(ids)


def _ids(disk: Disk, customer: Customer, *, seen: bool = False) -> set[str]:
    """Ids of the rows in the output that are safe from power loss now; with `seen` of all that are in it."""
    names = disk.names if seen else disk.safe_names
    if customer.output.endswith("/"):
        files = [Path(name) for name, inode in names.items() if inode is not None and name.endswith(".md")]
        return {path.stem for path in files if path.parent == customer.path}
    inode = names.get(str(customer.path))
    if inode is None or customer.path.suffix == ".parquet":
        return set()
    text = (inode.seen() if seen else bytes(inode.safe)).decode()
    rows = csv.DictReader(io.StringIO(text)) if customer.path.suffix == ".csv" else map(json.loads, text.splitlines())
    return {str(row["id"]) for row in rows}
