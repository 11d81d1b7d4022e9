"""`--dry-run` from end to end: it says what the run would do, calls nobody, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lcbatch.app import run_job
from lcbatch.dry_run import dry_run
from lcbatch.errors import ConfigError, Failure, InputMissing, Kind, LcbatchError, RefusedError, UsageError
from lcbatch.job import SUMMARIZE, Job
from lcbatch.observers.outlook import Outlook, outlook_json, outlook_text
from lcbatch.records import Failed
from lcbatch.store.lock import OutputLocked, hold_lock
from lcbatch.store.opened import open_store
from tests.e2e.support import MODEL, Shop, cli, rows_of
from tests.store.support import dump

PRICE = "in=1,out=10"


def told(shop: Shop, *inputs: str, **options: Any) -> Outlook:
    """The outlook of a job of the shop."""
    return dry_run(shop.job(*inputs, dry_run=True, **options), shop.world(), asyncio.run)


def ran(shop: Shop, *inputs: str, **options: Any) -> int:
    """Really run it; the exit code."""
    return asyncio.run(shop.run(*inputs, **options)).exit_code


def names(shop: Shop) -> list[str]:
    return sorted(path.name for path in shop.folder.iterdir())


def state(shop: Shop) -> tuple[list[str], dict[str, str], list[str]]:
    """All that must not change: names, contents of output and errors, the store."""
    files = [shop.folder / name for name in ("out.jsonl", "out.jsonl.errors.jsonl")]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.exists()}
    shared = ("-wal", "-shm")  # looking at the store leaves these
    return [name for name in names(shop) if not name.endswith(shared)], hashes, dump(shop.folder / "out.jsonl.lcbatch")


def test_without_a_store_nothing_is_made_and_nobody_is_called(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b", "c"))
    billed = len(shop.billed())
    found = told(shop, "in.jsonl", system="Be short.")
    assert (found.rows.total, found.rows.to_call, found.rows.new, found.exit_code) == (3, 3, 3, 0)
    assert found.prompt == [("system", "Be short."), ("user", "Say a")]
    assert names(shop) == ["in.jsonl"]
    assert len(shop.billed()) == billed


def test_the_store_and_the_output_stay_as_they_are(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    assert ran(shop, "in.jsonl") == 0
    shop.write("in.jsonl", rows_of("b", "new", "a"))
    before, billed = state(shop), len(shop.billed())
    found = told(shop, "in.jsonl")
    assert (found.rows.total, found.rows.reused, found.rows.to_call, found.rows.new) == (3, 2, 1, 1)
    assert found.prompt == [("user", "Say new")]
    assert (state(shop), len(shop.billed())) == (before, billed)
    assert ran(shop, "in.jsonl") == 0
    assert len(shop.billed()) == billed + 1, "what was said is what the run does"


async def _fail(shop: Shop, *kinds: Kind) -> None:
    """Let the first rows stand failed, as if their calls had."""
    async with open_store(shop.folder / "out.jsonl.lcbatch") as store:
        pages = [page async for page in store.pending()]
        rows = [row for page in pages for row in page]
        await store.put([Failed(row, Failure(kind, "made up")) for row, kind in zip(rows, kinds, strict=False)])


def test_failed_rows_are_told_apart(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b", "c"))
    assert ran(shop, "in.jsonl", limit=1) == 0
    asyncio.run(_placed_and_failed(shop))
    rows = told(shop, "in.jsonl").rows
    assert (rows.reused, rows.failed_before, rows.again, rows.new) == (1, 1, 1, 0)


async def _placed_and_failed(shop: Shop) -> None:
    report = await shop.run("in.jsonl", model=MODEL, fail_on="never", limit=0)
    assert report.exit_code == 0
    await _fail(shop, Kind.REFUSAL, Kind.SERVER)


@pytest.mark.parametrize("mode", ["refuse", "redo"])
def test_a_changed_chain_is_planned_as_redone(shop: Shop, mode: str) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    assert ran(shop, "in.jsonl") == 0
    shop.write("in.jsonl", rows_of("a", "b", "c"))
    before = state(shop)
    found = told(shop, "in.jsonl", prompt="Sing {text}", on_change=mode)
    assert (found.rows.stale, found.rows.new, found.rows.reused) == (2, 1, 0)
    assert found.exit_code == (65 if mode == "refuse" else 0)
    assert ("the run itself would refuse: the chain changed" in outlook_text(found)) == (mode == "refuse")
    assert state(shop) == before


def test_many_rows_gone_are_a_refusal_of_the_run(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b", "c"))
    assert ran(shop, "in.jsonl") == 0
    shop.write("in.jsonl", rows_of("a"))
    before = state(shop)
    assert (told(shop, "in.jsonl").exit_code, told(shop, "in.jsonl").rows.gone) == (65, 2)
    dropped = told(shop, "in.jsonl", on_removed="drop")
    assert (dropped.exit_code, dropped.rows.gone, dropped.rows.reused) == (0, 2, 1)
    assert state(shop) == before


def test_fresh_is_planned_without_the_old_store(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    assert ran(shop, "in.jsonl") == 0
    before = state(shop)
    assert told(shop, "in.jsonl", fresh=True).rows.new == 2
    assert state(shop) == before


@pytest.mark.parametrize(
    ("options", "error"),
    [({"prompt": "Say {txt}"}, ConfigError), ({"output_field": "text"}, UsageError), ({"model": None}, UsageError)],
    ids=["no such column", "a clash", "no model"],
)
def test_what_stops_the_run_stops_it_too(shop: Shop, options: dict[str, Any], error: type[LcbatchError]) -> None:
    shop.write("in.jsonl", rows_of("a"))
    with pytest.raises(error) as dry:
        told(shop, "in.jsonl", **options)
    assert dry.value.message == _end_of(shop, **options).message


def _end_of(shop: Shop, **options: Any) -> LcbatchError:
    """What ends the real run, before it begins or in its course."""
    try:
        report = asyncio.run(shop.run("in.jsonl", **options))
    except LcbatchError as error:
        return error
    assert report.error is not None
    return report.error


def test_an_input_that_is_not_there(shop: Shop) -> None:
    with pytest.raises(InputMissing):
        told(shop, "none.jsonl")


def test_an_output_in_use_is_left_alone(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    assert ran(shop, "in.jsonl") == 0

    async def beside() -> None:
        async with hold_lock(shop.folder / "out.jsonl.lcbatch.lock"):
            await asyncio.to_thread(told, shop, "in.jsonl")

    with pytest.raises(OutputLocked):
        asyncio.run(beside())


def test_money_is_counted_from_prices_and_earlier_answers(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    guessed = told(shop, "in.jsonl", price=PRICE, max_output_tokens=1000)
    assert guessed.cost is not None
    assert guessed.cost.answer_method == "assumed"
    per_prompt, per_answer = 1e-6, 10e-6
    assert guessed.cost.usd == pytest.approx(guessed.cost.prompt_tokens * per_prompt + 256 * per_answer, abs=2e-6)
    assert guessed.cost.most_usd == pytest.approx(guessed.cost.prompt_tokens * per_prompt + 1000 * per_answer, abs=2e-6)
    assert ran(shop, "in.jsonl", price=PRICE) == 0
    shop.write("in.jsonl", rows_of("a", "b", "c", "d"))
    known = told(shop, "in.jsonl", price=PRICE, max_total_tokens=10**6, max_output_tokens=1000, on_change="redo")
    assert known.cost is not None
    billed = shop.billed()[-2:]
    assert known.spent_tokens == sum(call["prompt_tokens"] + call["completion_tokens"] for call in billed)
    assert "2 earlier answers" in known.cost.answer_method


def test_a_cap_says_for_how_many_rows_it_is_enough(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of(*"abcdefghij"))
    found = told(shop, "in.jsonl", price="in=0,out=1000", max_cost=1.0, max_output_tokens=100)
    assert found.cost is not None
    assert found.cost.usd == pytest.approx(0.1)
    assert told(shop, "in.jsonl", price="in=0,out=1000", max_cost=0.55, max_output_tokens=100).cost.allowed == 5  # type: ignore[union-attr]


def test_limit_leaves_the_rest(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b", "c"))
    rows = told(shop, "in.jsonl", limit=2).rows
    assert (rows.total, rows.to_call, rows.beyond_limit) == (3, 2, 1)


def test_lines_and_json_say_the_same(shop: Shop) -> None:
    shop.write("in.jsonl", [{"text": "red \x1b[31malert"}])
    found = told(shop, "in.jsonl", rpm=60.0)
    text, figures = outlook_text(found), json.loads(json.dumps(outlook_json(found)))
    assert "\x1b" not in text
    assert "Say red alert" in text
    assert figures["rows"]["to_call"] == 1
    assert figures["time"]["time_s"] > 0
    assert figures["time"]["limits_method"] == "as given"
    assert figures["per_row"]["prompt_tokens_method"] == "4 characters a token"


def test_documents_are_weighed_by_their_bytes(shop: Shop) -> None:
    folder = shop.folder / "docs"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number:03}.txt").write_text("word " * 10 * (number + 1))
    out = str(shop.folder / "out")
    job = Job.of(
        str(folder), task=SUMMARIZE, model=MODEL, base_url=shop.provider.base_url, words=60, dry_run=True, output=out
    )
    found = dry_run(job, shop.world(), asyncio.run)
    assert found.cost is not None
    assert found.cost.sampled == 64
    assert found.cost.answer_tokens == pytest.approx(80)
    prompt = sum(5 * 10 * (number + 1) for number in range(100)) / 100 / 4
    assert prompt < found.cost.prompt_tokens < prompt * 1.6, "the text, and the prompt around it"


def test_the_embedded_model_costs_nothing(shop: Shop) -> None:
    (shop.folder / "a.txt").write_text("A sentence about lamps. " * 50)
    job = Job.of(str(shop.folder / "a.txt"), task=SUMMARIZE, output=str(shop.folder / "out.jsonl"), dry_run=True)
    found = dry_run(job, shop.world(), asyncio.run)
    assert found.cost is not None
    assert found.cost.usd == 0
    assert names(shop) == ["a.txt"]


def test_a_chain_of_the_users_own_is_not_run(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    (shop.folder / "own.py").write_text("def chain(row):\n    raise SystemExit('it was run')\n")
    found = told(shop, "in.jsonl", chain=f"{shop.folder / 'own.py'}:chain", model=None, prompt=None)
    assert (found.rows.to_call, found.cost, found.time) == (2, None, None)
    assert "unknown: your own chain is not run" in outlook_text(found)


def test_a_job_that_asks_for_no_calls_is_never_run(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    with pytest.raises(UsageError):
        asyncio.run(run_job(shop.job("in.jsonl", dry_run=True), shop.world()))


def test_from_the_command_line_with_a_pipe(shop: Shop) -> None:
    options = ["-m", MODEL, "--base-url", shop.provider.base_url, "-p", "Say {text}"]
    done = cli("run", "--dry-run", "--summary-json", "f.json", *options, cwd=shop.folder, stdin='{"text": "a"}\n')
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 in the input, 1 to call" in done.stdout
    assert json.loads(Path(shop.folder / "f.json").read_text())["rows"]["new"] == 1
    assert names(shop) == ["f.json"]


@pytest.mark.parametrize("price", [None, PRICE], ids=["free", "priced"])
def test_a_run_says_what_it_will_cost_before_its_first_call(shop: Shop, price: str | None) -> None:
    shop.write("in.jsonl", rows_of(*"abc"))
    given = ["--price", price, "--max-cost", "5", "--max-output-tokens", "100"] if price else []
    options = ["-m", MODEL, "--base-url", shop.provider.base_url, "-p", "Say {text}", "--progress", "log", *given]
    done = cli("run", "in.jsonl", "-o", "out.jsonl", *options, cwd=shop.folder)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if " a row (" in line]
    assert len(said) == bool(price)
    if price:
        assert "100 out assumed" in said[0]
        assert "for 3 rows; $0 of --max-cost $5 spent so far" in said[0]


def _files(shop: Shop) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shop.folder.iterdir() if not path.name.endswith(".lock")}


def test_a_store_that_was_emptied_is_refused_as_the_run_does_and_stays_empty(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))
    assert ran(shop, "in.jsonl") == 0
    (shop.folder / "out.jsonl.lcbatch").write_bytes(b"")
    before = _files(shop)
    for end in (lambda: told(shop, "in.jsonl"), lambda: ran(shop, "in.jsonl")):
        with pytest.raises(RefusedError, match="is empty"):
            end()
        assert _files(shop) == before


def test_a_file_of_nothing_in_the_place_of_a_store_is_none_and_stays_so(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    (shop.folder / "out.jsonl.lcbatch").touch()
    before = _files(shop)
    assert told(shop, "in.jsonl").rows.new == 1
    assert _files(shop) == before
    assert ran(shop, "in.jsonl") == 0


def test_an_older_copy_of_the_store_is_refused_as_the_run_does(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    assert ran(shop, "in.jsonl") == 0
    store = shop.folder / "out.jsonl.lcbatch"
    older = store.read_bytes()
    shop.write("in.jsonl", rows_of("a", "b"))
    assert ran(shop, "in.jsonl") == 0
    store.write_bytes(older)
    with pytest.raises(RefusedError, match="knows nothing of what the last run") as dry:
        told(shop, "in.jsonl")
    with pytest.raises(RefusedError) as real:
        ran(shop, "in.jsonl")
    assert dry.value.message == real.value.message


def test_a_damaged_input_is_counted_as_far_as_it_can_be_read_and_hides_no_refusal(shop: Shop) -> None:
    whole = gzip.compress(shop.write("in.jsonl", rows_of(*map(str, range(9)))).read_bytes())
    packed = shop.folder / "in.jsonl.gz"
    packed.write_bytes(whole)
    assert ran(shop, "in.jsonl.gz", limit=2) == 0
    packed.write_bytes(whole[:-8])  # all of its text, without its checksum
    found = told(shop, "in.jsonl.gz")
    assert (found.rows.reused, found.rows.to_call, found.exit_code) == (2, 7, 66)
    assert "in.jsonl.gz cannot be unpacked to its end" in outlook_text(found)
    assert "what was read before the damage is done" in outlook_text(found)
    assert outlook_json(found)["damaged"] == found.damage
    refused = told(shop, "in.jsonl.gz", prompt="Sing {text}")
    assert (refused.rows.stale, refused.exit_code) == (2, 65)
    assert (refused.exit_code, found.exit_code) == (
        ran(shop, "in.jsonl.gz", prompt="Sing {text}"),
        ran(shop, "in.jsonl.gz"),
    )
