"""A store that is cut, flipped, deleted or another one's: taken up rightly, or refused with a way out in words."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import LcbatchError, RefusedError
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import environment
from tests.store.support import fast_folder
from tests.torture.deaths import Scene
from tests.torture.disk import Customer, rows_for
from tests.torture.judge import Case, content, judge, rows_of
from tests.torture.scale import cases, note

_ROWS = 150
_PAGE = 4096
_REFUSALS = {65, 73}
"""The store is damaged; the output was not written by this store."""


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@dataclass
class Shelf:
    """A finished output with its store, as good as new before each case."""

    customer: Customer
    good: Path

    @property
    def store(self) -> Path:
        return self.customer.path.with_name(self.customer.path.name + ".lcbatch")

    def again(self) -> None:
        for path in self.customer.folder.iterdir():
            path.unlink()
        shutil.copytree(self.good, self.customer.folder, dirs_exist_ok=True)

    def all_is_read(self) -> None:
        """Without its output all of a store has to be read."""
        self.customer.path.unlink()

    def outcome(self, name: str, *, may_repay: int = 0) -> str:
        """Run it: "refused" in words, or "recovered" with an output that is right. Anything else is an AssertionError."""
        before = self.customer.provider.stats()["billed"]
        try:
            error = self.customer.run_here().error
        except LcbatchError as refusal:
            error = refusal
        if error is not None:
            assert error.exit_code in _REFUSALS, f"{name}: {error.exit_code} {error.message}"
            assert error.hint, f"{name}: no way out of {error.message!r}"
            return "refused"
        repaid = self.customer.provider.stats()["billed"] - before
        assert repaid <= may_repay, f"{name}: {repaid} called again"
        case = Case(name=name, rows=self.customer.rows, may_repay=may_repay)
        judge(case, self.customer.path, self.customer.billed(), exit_code=0)
        return "recovered"


@pytest.fixture(scope="module")
def shelf(provider: SimulatorProcess) -> Iterator[Shelf]:
    with fast_folder() as folder:
        rows = rows_for("damaged", _ROWS, filler=300)
        customer = Customer("damaged", Path(folder) / "job", provider, rows)
        assert customer.run_here().exit_code == 0
        shutil.copytree(customer.folder, Path(folder) / "good")
        yield Shelf(customer, Path(folder) / "good")


def test_a_bit_flipped_in_any_page_is_noticed_or_does_no_harm(shelf: Shelf) -> None:
    outcomes: list[str] = []
    dice = random.Random(4)  # noqa: S311 - places, no secrets
    pages = (shelf.good / shelf.store.name).stat().st_size // _PAGE
    for number in range(cases(pages, 20 * pages)):
        shelf.again()
        shelf.all_is_read()
        page, byte, bit = number % pages, dice.randrange(_PAGE), dice.randrange(8)
        data = bytearray(shelf.store.read_bytes())
        data[page * _PAGE + byte] ^= 1 << bit
        shelf.store.write_bytes(data)
        outcomes.append(shelf.outcome(f"page {page}, byte {byte}, bit {bit} (seed 4)"))
    assert outcomes.count("refused"), "damaged pages are refused"
    _noted("a bit flipped in each page of the store", outcomes)


def test_a_bit_flipped_in_the_first_page_is_never_a_bug(shelf: Shelf) -> None:
    """It tells SQLite of its tables, in texts of its own."""
    dice = random.Random(6)  # noqa: S311
    outcomes: list[str] = []
    for byte in [18, 2058, *(dice.randrange(_PAGE) for _ in range(cases(10, 2000)))]:
        shelf.again()
        shelf.all_is_read()
        data = bytearray(shelf.store.read_bytes())
        data[byte] ^= 128
        shelf.store.write_bytes(data)
        outcomes.append(shelf.outcome(f"byte {byte} of the first page (seed 6)"))
    assert outcomes.count("refused")
    _noted("a bit flipped in the first page of the store", outcomes)


def test_a_store_that_was_cut_is_refused(shelf: Shelf) -> None:
    outcomes: list[str] = []
    dice = random.Random(5)  # noqa: S311
    size = (shelf.good / shelf.store.name).stat().st_size
    for number in range(cases(8, 400)):
        shelf.again()
        shelf.all_is_read()
        left = dice.randrange(0, size, _PAGE if number % 2 else 1) if number else 0
        with shelf.store.open("r+b") as file:
            file.truncate(left)
        outcomes.append(shelf.outcome(f"cut to {left} of {size} (seed 5)"))
    _noted("the store cut at its tail", outcomes)


def test_without_its_store_an_output_is_left_alone(shelf: Shelf) -> None:
    shelf.again()
    shelf.store.unlink()
    output = shelf.customer.path.read_bytes()
    assert shelf.outcome("the store deleted") == "refused"
    assert shelf.customer.path.read_bytes() == output


def _killed(customer: Customer, *, more_than: int = 0) -> None:
    """A run that is killed as soon as its output holds more bytes than so many."""
    _killed_when(customer, lambda: customer.path.exists() and _size(customer.path) > more_than)


def _killed_when(customer: Customer, due: Callable[[], bool]) -> None:
    run = subprocess.Popen(
        customer.words,
        cwd=customer.folder,
        env=environment(customer.folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not due():
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)  # each look takes the processor from what is looked at
    run.kill()
    run.wait()


def _size(output: Path) -> int:
    return sum(path.stat().st_size for path in output.iterdir()) if output.is_dir() else output.stat().st_size


def _log_of(customer: Customer) -> Path:
    return customer.path.with_name(customer.path.name + ".lcbatch-wal")


def test_without_its_log_a_run_that_was_killed_is_refused(provider: SimulatorProcess, tmp_path: Path) -> None:
    customer = Customer("without log", tmp_path, provider, rows_for("without log", 3000, filler=100))
    _killed(customer)
    _log_of(customer).unlink()
    output = customer.path.read_bytes()
    assert Shelf(customer, tmp_path).outcome("the log deleted") == "refused"
    assert customer.path.read_bytes() == output


@pytest.mark.parametrize(
    ("output", "ordered"),
    [("out/", False), ("out.jsonl", True), ("out.parquet", False)],
    ids=["files", "nothing shown", "columns"],
)
def test_without_its_log_a_first_run_that_was_killed_is_refused_though_its_output_says_nothing(
    output: str, *, ordered: bool, provider: SimulatorProcess, tmp_path: Path
) -> None:
    """A folder may be anybody's, in input order all may wait for the first row, and columns are written as the run ends."""
    name = f"first without log, {output}"
    rows = rows_for(name, 3000, filler=100)
    rows[0]["text"] = f"[[fault:hang:1]] {name}"
    customer = Customer(name, tmp_path, provider, rows, output, {"ordered": True} if ordered else {})
    _killed_when(customer, lambda: len(customer.billed()) > 300)
    log = _log_of(customer)
    kept = log.read_bytes()
    log.unlink()
    billed = provider.stats()["billed"]

    for _ in "once", "and as long as the log is gone":
        with pytest.raises(RefusedError, match="its -wal was deleted"):
            customer.run_here()
    assert provider.stats()["billed"] == billed

    log.write_bytes(kept)
    assert customer.run_here().exit_code == 0, "with its log it goes on as if nothing had been"
    assert len(customer.billed()) <= 3000 + 16, "no more than the calls in flight at the kill"


def test_a_run_with_another_store_that_is_refused_does_not_make_the_log_forgotten(
    provider: SimulatorProcess, tmp_path: Path
) -> None:
    name = "by another store"
    customer = Customer(name, tmp_path, provider, rows_for(name, 3000, filler=100), options={"limit": 20})
    assert customer.run_here().exit_code == 0
    customer.options = {}
    _killed(customer, more_than=_size(customer.path))
    customer.options = {"store": str(tmp_path / "other")}
    assert _code_of(customer) == 73
    assert not (tmp_path / "other").exists()
    _log_of(customer).unlink()
    customer.options = {}
    assert _code_of(customer) == 65


def _code_of(customer: Customer) -> int:
    try:
        return customer.run_here().exit_code
    except LcbatchError as refusal:
        return refusal.exit_code


@pytest.mark.parametrize("others", [300, 0])
def test_a_store_that_came_after_the_killed_runs_goes_on_with_an_output_that_is_gone(
    others: int, provider: SimulatorProcess, tmp_path: Path
) -> None:
    """It has another output's rows, and knows nothing of that run; but it is not that run's store without its log."""
    name = f"after {others}"
    rows, options = rows_for(name, 300, filler=100), {"store": str(tmp_path / "shared")}
    first = Customer(name, tmp_path, provider, rows, options=options)
    _killed(first)
    for path in (first.path, *tmp_path.glob("shared*")):
        if not path.name.endswith(".lock"):
            path.unlink()
    assert Customer(name, tmp_path, provider, rows[:others], "out.csv", options).run_here().exit_code == 0
    billed = provider.stats()["billed"]
    Customer(name, tmp_path, provider, rows, options=options)  # which writes the whole input again
    assert first.run_here().exit_code == 0
    assert provider.stats()["billed"] == billed + 300 - others, (
        "what the other output has is in the store that they share"
    )


def test_without_its_log_a_pipe_that_was_killed_is_refused(provider: SimulatorProcess, tmp_path: Path) -> None:
    scene = Scene(tmp_path, provider, None, 16)
    lines = [json.dumps(row) + "\n" for row in rows_for("pipe without log", 3000, filler=300)]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    run = scene.start()
    while not scene.captured.stat().st_size:
        assert run.poll() is None, scene.said()
        time.sleep(0.005)
    run.kill()
    run.wait()
    scene.store().with_name(f"{scene.store().name}-wal").unlink()
    billed = provider.stats()["billed"]

    assert scene.finish() == 65
    assert "its -wal was deleted" in scene.said()
    assert provider.stats()["billed"] == billed

    _obey(scene.said(), tmp_path)
    assert scene.finish() == 0, scene.said()


def _obey(said: str, folder: Path) -> None:
    """Do what a refusal says for the case that the store cannot be put back."""
    told = re.search(r"or remove (\S+?)(?:, move (\S+) away)? (?:and begin anew|to go on with what it has):", said)
    assert told, said
    (folder / told[1]).unlink()
    if told[2]:
        (folder / told[2]).rename(folder / "moved away")


def _refused_without_its_log_and_done_as_told(customer: Customer) -> None:
    """Kill a run of 3000 rows, take its log away, and go on as the refusal says."""
    _killed_when(customer, lambda: len(customer.billed()) > 300)
    _log_of(customer).unlink()
    with pytest.raises(RefusedError) as refusal:
        customer.run_here()
    _obey(refusal.value.hint, customer.path.parent)
    assert customer.run_here().exit_code == 0
    assert len(rows_of(customer.path)) == 3000


@pytest.mark.parametrize("output", ["out/", "out.jsonl"])
def test_who_removes_the_store_begins_anew(output: str, provider: SimulatorProcess, tmp_path: Path) -> None:
    name = f"anew {output}"
    customer = Customer(name, tmp_path, provider, rows_for(name, 3000, filler=100), output)
    _refused_without_its_log_and_done_as_told(customer)


@pytest.mark.parametrize(
    ("output", "options"),
    [("out.jsonl", {}), ("out.jsonl", {"ordered": True}), ("out.csv", {}), ("out/", {})],
    ids=["lines", "lines in input order", "a table", "files"],
)
def test_without_its_log_a_run_after_a_good_one_is_refused_and_asks_nothing_again(
    output: str, options: dict[str, Any], provider: SimulatorProcess, tmp_path: Path
) -> None:
    """The store itself holds the rows of the good run alone; those that were paid for since stand in the output."""
    name = f"without log, {output} {options}"
    customer = Customer(name, tmp_path, provider, rows_for(name, 3000, filler=100), output, {**options, "limit": 20})
    assert customer.run_here().exit_code == 0
    customer.options = options
    _killed(customer, more_than=_size(customer.path))
    log = _log_of(customer)
    kept = log.read_bytes()
    log.unlink()
    before, billed = content(customer.path), provider.stats()["billed"]

    with pytest.raises(RefusedError) as refusal:
        customer.run_here()

    assert str(customer.path) in refusal.value.message
    assert "-wal" in refusal.value.message
    assert "billed" in refusal.value.hint
    assert content(customer.path) == before
    assert provider.stats()["billed"] == billed
    log.write_bytes(kept)
    assert customer.run_here().exit_code == 0, "with its log it goes on as if nothing had been"
    assert len(customer.billed()) <= 3000 + 16, "no more than the calls in flight at the kill"


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_who_removes_the_lock_file_accepts_to_be_billed_again(
    output: str, provider: SimulatorProcess, tmp_path: Path
) -> None:
    """Also where the output shows nothing of it: columns are written as the run ends."""
    name = f"accepted {output}"
    customer = Customer(name, tmp_path, provider, rows_for(name, 3000, filler=100), output, {"limit": 20})
    assert customer.run_here().exit_code == 0
    customer.options = {}
    _refused_without_its_log_and_done_as_told(customer)


def test_another_runs_store_is_refused(shelf: Shelf, provider: SimulatorProcess, tmp_path: Path) -> None:
    rows = [{**row, "id": f"other {row['id']}"} for row in rows_for("other", 40, filler=10)]
    _refuses_the_store_of(Customer("other", tmp_path, provider, rows), shelf)


def test_another_runs_store_with_the_same_ids_is_refused(
    shelf: Shelf, provider: SimulatorProcess, tmp_path: Path
) -> None:
    _refuses_the_store_of(Customer("same ids", tmp_path, provider, rows_for("same ids", _ROWS, filler=10)), shelf)


def _refuses_the_store_of(other: Customer, shelf: Shelf) -> None:
    assert other.run_here().exit_code == 0
    shelf.again()
    output, billed = shelf.customer.path.read_bytes(), shelf.customer.provider.stats()["billed"]
    shutil.copyfile(other.path.with_name(other.path.name + ".lcbatch"), shelf.store)
    assert shelf.outcome("another run's store") == "refused"
    assert shelf.customer.path.read_bytes() == output
    assert shelf.customer.provider.stats()["billed"] == billed


def test_an_older_copy_of_output_and_store_together_is_taken_up(provider: SimulatorProcess, tmp_path: Path) -> None:
    rows = rows_for("older", 60, filler=10)
    customer = Customer("older", tmp_path, provider, rows, options={"limit": 20})
    assert customer.run_here().exit_code == 0
    store = customer.path.with_name(customer.path.name + ".lcbatch")
    for path in (customer.path, store):
        shutil.copy2(path, tmp_path / f"{path.name}.copy")
    customer.options = {}
    assert customer.run_here().exit_code == 0
    for path in (customer.path, store):
        (tmp_path / f"{path.name}.copy").replace(path)
    assert customer.run_here().exit_code == 0
    assert len(customer.billed()) == 20 + 40 + 40, "what came after the copy is asked again"


def test_a_file_that_is_no_store_is_refused(shelf: Shelf) -> None:
    for bytes_there in (b"", b"SQLite format 3\0", b"text\n" * 5000, bytes(20_000)):
        shelf.again()
        shelf.store.write_bytes(bytes_there)
        output = shelf.customer.path.read_bytes()
        assert shelf.outcome(f"a store of {bytes_there[:20]!r}") == "refused"
        assert shelf.customer.path.read_bytes() == output


def _noted(case: str, outcomes: list[str]) -> None:
    seen = ", ".join(f"{outcomes.count(word)} {word}" for word in sorted(set(outcomes)))
    note(case, "recovered, or refused with exit 65 and a way out in words", f"{len(outcomes)} cases: {seen}")
