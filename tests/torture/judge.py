"""The judge of a case: the input, what a sink wrote, and the provider's book of what it billed, held against each other."""

from __future__ import annotations

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]

from lcbatch.simulator.process import SimulatorProcess

Row = dict[str, Any]
Ledger = Sequence[Mapping[str, Any]]


def say(row: Mapping[str, Any]) -> str:
    """What `-p "Say {text}"` asks the provider for a row."""
    return f"Say {row['text']}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a case began with. Every row has an `id` of its own, and needs one call.

    may_repay: calls in flight, summed over the deaths: so many calls may be billed and lead to no row. wasted: further
    billed calls without an answer, of faults that the case asked for. ended: whether the last run read its input to
    the end. name: goes into every message; it should give the seed.
    """

    name: str
    rows: Sequence[Row]
    may_repay: int = 0
    wasted: int = 0
    ordered: bool = False
    ended: bool = True
    asked: Callable[[Mapping[str, Any]], str] = say


def judge(case: Case, output: Path, ledger: Ledger, *, exit_code: int, errors: Path | None = None) -> None:
    """Raise AssertionError unless nothing is lost, nothing stands twice, and no more was billed than may be."""
    written = rows_of(output)
    done = [row for row in written if not row.get("error")]
    failed = failed_ids(errors or output.with_name(f"{output.name}.errors.jsonl"))
    whole(case, [str(row["id"]) for row in done], failed)
    as_answered(case, done, ledger)
    if case.ordered:
        place = {str(row["id"]): number for number, row in enumerate(case.rows)}
        places = [place[str(row["id"])] for row in written]
        assert places == sorted(places), f"{case.name}: not in input order"
    paid_for_nothing = len(ledger) - len(done) - case.wasted
    assert paid_for_nothing <= case.may_repay, (
        f"{case.name}: {len(ledger)} calls billed, {len(done)} rows done: {paid_for_nothing} more, not {case.may_repay}"
    )
    if case.ended:
        assert exit_code == (3 if failed else 0), f"{case.name}: exit {exit_code} with {len(failed)} rows failed"
        assert not (left := leftovers(output)), f"{case.name}: {left} left behind"


def judge_appended(case: Case, lines: Sequence[bytes], ledger: Ledger, *, exit_code: int, deaths: int) -> None:
    """The same for stdout behind `>>`, where each life begins anew and nothing can be taken back.

    `lines` are those of all lives: each row at least once, and exactly once by the last life. A death tears one line at
    most, and no later line goes on from there.
    """
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    torn = len(lines) - len(rows)
    assert torn <= deaths, f"{case.name}: {torn} lines torn by {deaths} deaths"
    as_answered(case, rows, ledger)
    last = rows[-len(case.rows) :]
    whole(case, [str(row["id"]) for row in last], [])
    assert not case.ordered or [row["id"] for row in last] == [row["id"] for row in case.rows], f"{case.name}: order"
    assert len(ledger) - len(case.rows) <= case.may_repay, f"{case.name}: {len(ledger)} calls billed"
    assert exit_code == 0, f"{case.name}: exit {exit_code}"


def calls_nothing(case: Case, run: Callable[[], int], provider: SimulatorProcess, output: Path) -> None:
    """Run once more: what is done is not called again, and the output stays as it was."""
    billed, before = provider.stats()["billed"], content(output)
    code = run()
    again = provider.stats()["billed"] - billed
    assert again == 0, f"{case.name}: the next run made {again} calls for what was done (exit {code})"
    assert code in {0, 3}, f"{case.name}: the next run ended with {code}"
    assert content(output) == before, f"{case.name}: the next run changed the output"


def rows_of(output: Path) -> list[Row]:
    """The rows of an output, read as somebody else's program would; a half line or a file of no row is an error."""
    if output.is_dir():
        files = sorted(path for path in output.rglob("*") if path.is_file())
        assert all(path.suffix == ".md" for path in files), f"{[path.name for path in files if path.suffix != '.md']}"
        return [{"id": str(path.relative_to(output))[:-3], "output": path.read_text()[:-1]} for path in files]
    if output.suffix == ".parquet":
        return [dict(row) for row in pyarrow.parquet.read_table(output).to_pylist()]
    if output.suffix == ".csv":
        with output.open(newline="", encoding="utf-8") as file:
            return [dict(row) for row in csv.DictReader(file, strict=True)]
    data = output.read_bytes()
    assert not data or data.endswith(b"\n"), f"{output.name} ends within a line: {data[-80:]!r}"
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def failed_ids(errors: Path) -> list[str]:
    """The ids of the rows in an errors file; none where there is no file."""
    if not errors.exists():
        return []
    return [str(row["id"]) for row in rows_of(errors)]


def content(output: Path) -> Any:
    """What an output holds, to be compared with what it holds later."""
    if output.is_dir():
        return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    return output.read_bytes()


def leftovers(output: Path) -> list[str]:
    """Names of files that a run must not leave behind: temporary ones, a reserve, and what it took for an edit."""
    beside = [path.name for path in output.parent.iterdir()]
    own = [path.name for path in output.iterdir()] if output.is_dir() else []
    marks = (".tmp", ".reserve")
    return [name for name in (*beside, *own) if name.endswith(marks) or ".edited-" in name or ".before-" in name]


def whole(case: Case, done: Iterable[str], failed: Iterable[str]) -> None:
    """Each row of the input stands once, as done or as failed; in a case that has not ended, at most once."""
    wanted = {str(row["id"]) for row in case.rows}
    found = Counter([*done, *failed])
    twice = sorted(id_ for id_, times in found.items() if times > 1)
    assert not twice, f"{case.name}: {len(twice)} rows twice, such as {twice[:5]}"
    foreign = sorted(found.keys() - wanted)
    assert not foreign, f"{case.name}: {len(foreign)} rows that are not of the input, such as {foreign[:5]}"
    lost = sorted(wanted - found.keys())
    assert not lost or not case.ended, f"{case.name}: {len(lost)} of {len(wanted)} rows lost, such as {lost[:5]}"


def as_answered(case: Case, done: Iterable[Row], ledger: Ledger) -> None:
    """Each row has the fields that the input gave it, and says what was answered to it."""
    answers: dict[str, set[str]] = {}
    for entry in ledger:
        answers.setdefault(str(entry["prompt"]), set()).add(str(entry["answer"]))
    given = {str(row["id"]): row for row in case.rows}
    for row in done:
        origin = given[str(row["id"])]
        changed = {name for name in origin.keys() & row.keys() if str(origin[name]) != str(row[name])}
        assert not changed, f"{case.name}: row {row['id']} has another {changed} than the input: {row}"
        said = answers.get(case.asked(origin), set())
        assert row["output"] in said, (
            f"{case.name}: row {row['id']} says {row['output']!r}, answered was {said or 'nothing'}"
        )
