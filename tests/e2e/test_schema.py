"""--schema and `lcbatch reparse` over the command line, against a provider that breaks some of its answers."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lcbatch.outputs import locked, place_of
from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, cli

ROWS = 1000
SCHEMA = "category billing|bug|other, score? int, tags list[str]"


@pytest.fixture
def tickets(shop: Shop) -> Path:
    path = shop.folder / "tickets.csv"
    path.write_text("ticket,text\n" + "".join(f'T{n},"My invoice, number {n}"\n' for n in range(ROWS)))
    return path


@pytest.fixture
def broken(provider: SimulatorProcess) -> None:
    """One answer in twenty is cut so that it is no JSON."""
    provider.control(faults={"brokenschema": 0.05})


def run(shop: Shop, *more: str, schema: str = SCHEMA, output: str = "out.csv") -> int:
    done = cli(
        "run", "tickets.csv", "-o", output, "-m", MODEL, "--base-url", shop.provider.base_url, "-p", "Classify: {text}",
        "--schema", schema, "-q", *more, cwd=shop.folder,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode


def table(shop: Shop) -> list[dict[str, str]]:
    with (shop.folder / "out.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def errors(shop: Shop) -> dict[str, dict[str, str]]:
    path = shop.folder / "out.csv.errors.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["ticket"]: row["_lcbatch_error"] for row in rows}


@pytest.mark.usefixtures("tickets", "broken")
def test_every_row_ends_with_a_valid_category_or_stands_failed_with_its_answer(shop: Shop) -> None:
    before = len(shop.billed())

    assert run(shop, "--parse-retries", "0") == 3

    rows, failed = table(shop), errors(shop)
    assert [row["ticket"] for row in rows] == [f"T{n}" for n in range(ROWS)]
    assert list(rows[0]) == ["ticket", "text", "category", "score", "tags", "error"]
    assert 20 < len(failed) < 100
    for row in rows:
        if row["ticket"] in failed:
            assert failed[row["ticket"]]["kind"] == "parse"
            assert failed[row["ticket"]]["answer"].startswith('{"')
            assert (row["category"], row["error"][:6]) == ("", "parse:")
        else:
            assert row["category"] in {"billing", "bug", "other"}
            assert all(isinstance(tag, str) for tag in json.loads(row["tags"]))
            int(row["score"] or 0)
    assert len(shop.billed()) - before == ROWS

    assert run(shop, "--parse-retries", "0") == 3, "a plain rerun asks none of them again"
    assert len(shop.billed()) - before == ROWS
    cli("retry", "out.csv", "-q", cwd=shop.folder)
    assert len(errors(shop)) < len(failed) / 4
    assert len(shop.billed()) - before < ROWS + 2 * len(failed)


@pytest.mark.usefixtures("tickets", "broken")
def test_answers_go_back_to_the_model_once_by_default(shop: Shop) -> None:
    run(shop)

    assert len(errors(shop)) < 12, "1 in 400"


@pytest.mark.usefixtures("tickets")
def test_answers_are_read_again_without_a_call(shop: Shop) -> None:
    shop.provider.control(faults={})
    assert run(shop) == 0
    first, paid = table(shop), len(shop.billed())

    done = cli("reparse", "out.csv", "--schema", "category billing|bug, score? int", "-q", cwd=shop.folder)

    assert done.returncode == 3, done.stderr
    rows, failed = table(shop), errors(shop)
    assert list(rows[0]) == ["ticket", "text", "category", "score", "error"]
    assert set(failed) == {row["ticket"] for row in first if row["category"] == "other"}
    assert all('"category":"other"' in error["answer"] for error in failed.values())
    assert [(row["ticket"], row["category"]) for row in rows if not row["error"]] == [
        (row["ticket"], row["category"]) for row in first if row["category"] != "other"
    ]

    assert run(shop, schema="category billing|bug, score? int") == 3
    assert table(shop) == rows
    assert run(shop) == 65, "the way back changes the output, and has to be meant"
    assert run(shop, "--on-change", "redo") == 0
    assert table(shop) == first
    assert cli("reparse", "out.csv", "--schema", "category billing|bug|other", "-q", cwd=shop.folder).returncode == 0
    assert len(errors(shop)) == 0
    assert len(shop.billed()) == paid


@pytest.mark.usefixtures("tickets", "broken")
def test_a_retry_after_a_reparse_asks_by_the_new_schema(shop: Shop) -> None:
    run(shop, "--parse-retries", "0")
    cli("reparse", "out.csv", "--schema", "category billing|bug|other", "-q", cwd=shop.folder)
    shop.provider.control(faults={})
    waiting, paid = len(errors(shop)), len(shop.billed())

    assert cli("retry", "out.csv", "-q", cwd=shop.folder).returncode == 0
    assert len(shop.billed()) - paid == waiting
    assert run(shop, schema="category billing|bug|other") == 0
    assert len(shop.billed()) - paid == waiting


def test_after_a_reparse_rows_that_failed_for_a_passing_reason_are_the_next_step(shop: Shop) -> None:
    (shop.folder / "tickets.csv").write_text("ticket,text\nT0,fine\nT1,[[fault:500]]\n")
    shop.provider.control(faults={})
    assert run(shop, "--max-wait", "1s") == 3

    done = cli("reparse", "out.csv", "--schema", "category", cwd=shop.folder)

    assert done.returncode == 3
    assert "lcbatch retry out.csv" in done.stderr
    assert "lcbatch reparse" not in done.stderr
    assert [row["error"][:7] for row in table(shop)] == ["", "server:"]


@pytest.mark.usefixtures("tickets")
def test_a_reparse_that_cannot_go_through_changes_nothing(shop: Shop) -> None:
    shop.provider.control(faults={})
    assert run(shop) == 0
    before, paid = (shop.folder / "out.csv").read_bytes(), len(shop.billed())
    with closing(sqlite3.connect(shop.folder / "out.csv.lcbatch")) as store:
        store.execute("UPDATE answers SET reply_key = NULL WHERE row_id = ?", (ROWS,))
        store.commit()

    assert cli("reparse", "out.csv", "--schema", "category", cwd=shop.folder).returncode == 65

    assert (shop.folder / "out.csv").read_bytes() == before
    assert run(shop) == 0
    assert len(shop.billed()) == paid


@pytest.mark.usefixtures("tickets")
def test_a_reparse_waits_for_nobody(shop: Shop) -> None:
    assert run(shop, "--limit", "1") == 0
    job = shop.job("tickets.csv", output="out.csv")

    async def meanwhile() -> int:
        async with locked(place_of(job, shop.world()), job, "another"):
            found = await asyncio.to_thread(cli, "reparse", "out.csv", "--schema", "category", cwd=shop.folder)
            return found.returncode

    assert asyncio.run(meanwhile()) == 75


@pytest.mark.usefixtures("tickets")
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--schema", "text, category"], 2, "the input has a field 'text' already, and so has the --schema"),
        (["--schema", "category billing|"], 2, "--schema: column 18"),
        (["--schema", "none.json"], 66, "cannot read the schema none.json"),
        (["--schema", "nowhere.models:Ticket"], 78, "--schema: there is no module 'nowhere.models'"),
        (["--schema", '{"type": "array"}'], 78, "an answer has to be an object"),
        (["--schema", "a", "--chain", "json:loads"], 2, "--schema is for lcbatch's own chains"),
    ],
)
def test_what_cannot_be_is_said_before_the_first_call(shop: Shop, options: list[str], code: int, said: str) -> None:
    paid = len(shop.billed())

    done = cli(
        "run", "tickets.csv", "-o", "out.csv", "-m", MODEL, "--base-url", shop.provider.base_url, "-p", "{text}", *options,
        cwd=shop.folder,
    )  # fmt: skip

    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert len(shop.billed()) == paid


def test_answers_of_a_chain_of_ones_own_are_not_read_by_a_schema(shop: Shop) -> None:
    (shop.folder / "c.py").write_text("def chain(row):\n    return row\n")
    shop.write("in.jsonl", [{"text": "x"}])
    assert cli("run", "in.jsonl", "-o", "o.jsonl", "--chain", "./c.py:chain", cwd=shop.folder).returncode == 0

    assert cli("reparse", "o.jsonl", "--schema", "a", cwd=shop.folder).returncode == 65
    assert cli("reparse", "o.jsonl", cwd=shop.folder).returncode == 2
    assert json.loads((shop.folder / "o.jsonl").read_text())["output"] == {"text": "x"}
