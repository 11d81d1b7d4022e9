"""Documents of any length, and folders that are summarized again and again. The provider's ledger is the judge."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.chains.books import book
from tests.e2e.support import MODEL, Shop, cli, command, environment, look_again

_CONTEXT = 2048
_PART = '<part document="'
_DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(context_tokens=_CONTEXT, answer_tokens=150) as running:
        yield running


def summarize(shop: Shop, *more: str | Path, context: int = _CONTEXT) -> list[str]:
    return list(
        map(
            str,
            (
                "summarize", *more, "-m", MODEL, "--base-url", shop.provider.base_url,
                "--context-tokens", context, "-j", 64, "--progress", "none",
            ),
        )
    )  # fmt: skip


def calls_of(shop: Shop, *more: str | Path, context: int = _CONTEXT, code: int = 0) -> list[str]:
    """The prompts that one command paid for."""
    before = shop.provider.stats()["billed"]
    ended = cli(*summarize(shop, *more, context=context), cwd=shop.folder)
    assert ended.returncode == code, ended.stderr
    return [str(entry["prompt"]) for entry in shop.provider.ledger(since=before)]


def maps(prompts: Sequence[str]) -> list[str]:
    return [prompt for prompt in prompts if _PART in prompt]


def planned(shop: Shop, *more: str | Path) -> dict[str, Any]:
    """What --dry-run says, as JSON."""
    ended = cli(*summarize(shop, *more, "--dry-run", "--summary-json", "plan.json"), cwd=shop.folder)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads((shop.folder / "plan.json").read_text())
    return found


def shown(prompt: str) -> str:
    """The text of a part."""
    return prompt.partition(_PART)[2].partition("\n")[2].removesuffix("\n</part>")


def put_together(parts: Sequence[str], text: str) -> str:
    """The document from its parts; what a part repeats of the one before it is left out. The parts may come in any order."""
    whole = ""
    for part in sorted(parts, key=text.index):
        at = text.index(part)
        assert at <= len(whole), "something is missing before this part"
        assert len(whole) - at <= 200, "more is repeated than the overlap"
        whole += part[len(whole) - at :]
    return whole


def in_parts(shop: Shop, name: str, text: str, context: int) -> list[str]:
    """Summarize a book; every byte of it was sent once but for the overlap, in few more calls than the context asks for."""
    shop.provider.control(context_tokens=context)
    prompts = calls_of(shop, name, "-o", "out.jsonl", context=context)
    shop.provider.control(context_tokens=_CONTEXT)

    assert put_together([shown(prompt) for prompt in maps(prompts)], text) == text
    least = math.ceil(len(text) / 4 / context) + 1
    assert len(prompts) <= 1.15 * least
    return prompts


def test_every_byte_of_a_book_is_sent_once_in_few_calls(shop: Shop) -> None:
    text = book(700_000)
    (shop.folder / "book.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())

    prompts = in_parts(shop, "book.txt", text, context=8192)

    assert len(prompts) - len(maps(prompts)) == 1, "what fits is merged at once"
    [row] = shop.output()
    assert row["path"] == "book.txt"
    assert row["output"].startswith("echo ")


@pytest.mark.skipif(not _DATA.exists(), reason="the novel is not here")
def test_a_novel_with_a_byte_order_mark_and_crlf(shop: Shop) -> None:
    path = _DATA / "pride-and-prejudice.txt"
    text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")

    in_parts(shop, str(path.resolve()), text, context=8192)


def test_the_same_command_again_calls_nothing_and_an_insertion_one_part_and_what_is_above_it(shop: Shop) -> None:
    text = book(500_000)
    path = shop.folder / "book.txt"
    path.write_text(text)
    first = calls_of(shop, "book.txt", "-o", "out.jsonl")
    assert calls_of(shop, "book.txt", "-o", "out.jsonl") == []

    path.write_text("A paragraph that was not there before.\n\n" + text)
    plan = planned(shop, "book.txt", "-o", "out.jsonl")
    again = calls_of(shop, "book.txt", "-o", "out.jsonl")

    levels = 3
    assert len(maps(first)) > 50
    assert len(maps(again)) <= 3
    assert len(again) - len(maps(again)) <= len(maps(again)) * (levels - 1)
    assert plan["rows"]["changed"] == 1
    [document] = plan["documents"]
    assert (document["why"], document["parts_to_map"]) == ("changed", len(maps(again)))
    assert len(shop.output()) == 1, "the new summary took the place of the old one"


def test_a_long_document_in_two_places_is_mapped_once(shop: Shop) -> None:
    for folder in ("a", "b"):
        (shop.folder / "docs" / folder).mkdir(parents=True)
        (shop.folder / "docs" / folder / "book.txt").write_text(book(50_000))

    prompts = calls_of(shop, "docs", "-o", "out.jsonl")

    assert len(set(maps(prompts))) == len(maps(prompts))
    assert len(shop.output()) == 2, "they are two answers all the same"


def test_going_back_to_the_last_version_costs_nothing(shop: Shop) -> None:
    path = shop.folder / "book.txt"
    for number, text in enumerate([book(50_000), book(50_000) + "\nThe end.\n", book(50_000)]):
        path.write_text(text)
        assert bool(calls_of(shop, "book.txt", "-o", "out.jsonl")) == (number < 2)


def test_a_kill_among_the_reductions_repays_no_part(shop: Shop) -> None:
    (shop.folder / "book.txt").write_text(book(500_000))
    rehearsal = calls_of(shop, "book.txt", "-o", "rehearsal.jsonl")
    shop.provider.control(latency_s=0.2)
    before = shop.provider.stats()
    run = subprocess.Popen(
        command(*summarize(shop, "book.txt", "-o", "out.jsonl")),
        cwd=shop.folder,
        env=environment(shop.folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None and shop.provider.stats()["requests"] <= before["requests"] + len(maps(rehearsal)):
        look_again()
    run.kill()
    run.wait()
    shop.provider.control(latency_s=0.0)

    killed = [str(entry["prompt"]) for entry in shop.provider.ledger(since=before["billed"])]
    again = calls_of(shop, "book.txt", "-o", "out.jsonl")

    assert sorted(maps(killed)) == sorted(maps(rehearsal))
    assert maps(again) == []
    assert again, "it was killed before the last reduction"
    assert len(shop.output()) == 1


def test_a_part_that_is_refused_is_asked_anew_by_a_retry_and_no_other(shop: Shop) -> None:
    (shop.folder / "book.txt").write_text(book(40_000))
    number = shop.provider.stats()["requests"]
    shop.provider.control(schedule=[f"#{number + 3}:filter"])
    first = calls_of(shop, "book.txt", "-o", "out.jsonl", code=3)
    shop.provider.control(schedule=[])
    before = shop.provider.stats()["billed"]

    ended = cli("retry", "out.jsonl", "--progress", "none", cwd=shop.folder)

    assert ended.returncode == 0, ended.stderr
    prompts = [str(entry["prompt"]) for entry in shop.provider.ledger(since=before)]
    assert len(set(maps(prompts)) & set(maps(first))) == 1
    assert len(set(maps(prompts + first))) == len(maps(prompts + first)) - 1


def folder_of(shop: Shop, copies: int, documents: int) -> Path:
    """A folder of documents, each several times under other names."""
    folder = shop.folder / "docs"
    folder.mkdir()
    for number in range(documents):
        text = book(1500, seed=number)
        for copy in range(copies):
            (folder / f"note-{number:02}-{copy}.md").write_text(text)
    return folder


def test_of_a_folder_only_what_changed_is_called(shop: Shop) -> None:
    folder = folder_of(shop, copies=6, documents=10)
    assert len(calls_of(shop, "docs", "-o", "out/")) == 60
    for name in ("note-01-0.md", "note-05-3.md", "note-09-5.md"):
        (folder / name).write_text((folder / name).read_text() + "\nOne line more in " + name)
    (folder / "new.md").write_text("A new document.")
    (folder / "note-03-2.md").unlink()

    plan = planned(shop, "docs", "-o", "out/")
    prompts = calls_of(shop, "docs", "-o", "out/")

    names = ["new.md", "note-01-0.md", "note-05-3.md", "note-09-5.md"]
    assert sorted(prompt.partition('name="')[2].partition('"')[0] for prompt in prompts) == names
    rows = plan["rows"]
    assert (rows["new"], rows["changed"], rows["reused"], rows["gone"]) == (1, 3, 56, 1)
    told = sorted((one["why"], one["id"]) for one in plan["documents"])
    assert told == [("changed", name) for name in names[1:]] + [("deleted", "note-03-2.md"), ("new", "new.md")]
    assert sorted(path.name for path in (shop.folder / "out").iterdir()) == sorted(
        f"{path.name}.md" for path in folder.iterdir()
    )


@pytest.mark.parametrize(
    ("options", "code"),
    [(("-p", "What is this about?"), 78), (("--strategy", "stuff", "--map-prompt", "{text}"), 2)],
)
def test_a_prompt_that_leaves_the_document_out_is_refused_before_it_is_paid_for(
    shop: Shop, options: tuple[str, ...], code: int
) -> None:
    folder_of(shop, copies=1, documents=1)
    assert calls_of(shop, "docs", "-o", "refused/", *options, code=code) == []


def test_a_dry_run_says_for_each_document_what_and_why(shop: Shop) -> None:
    folder = folder_of(shop, copies=1, documents=3)
    calls_of(shop, "docs", "-o", "out/")
    (folder / "note-01-0.md").write_text(book(30_000))
    shutil.move(folder / "note-02-0.md", folder / "moved.md")

    ended = cli(*summarize(shop, "docs", "-o", "out/", "--dry-run"), cwd=shop.folder)

    assert "3 in the input, 2 reused, 1 to call" in ended.stdout
    assert "changed: note-01-0.md (" in ended.stdout
    assert "parts to map, 1 merging)" in ended.stdout
    assert "moved: note-02-0.md" in ended.stdout


def test_what_an_edit_cost_is_not_taken_for_the_price_of_a_whole_document(shop: Shop) -> None:
    path = shop.folder / "book.txt"
    for number in range(3):
        path.write_text(f"Version {number}.\n\n" + book(50_000))
        calls_of(shop, "book.txt", "-o", "out.jsonl")
    (shop.folder / "other.txt").write_text(book(50_000, seed=7))

    fresh = planned(shop, "other.txt", "-o", "fresh.jsonl")
    beside = planned(shop, "book.txt", "other.txt", "-o", "out.jsonl")

    assert beside["rows"]["to_call"] == fresh["rows"]["to_call"] == 1
    assert beside["tokens"]["prompt"] == pytest.approx(fresh["tokens"]["prompt"], rel=0.25)


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["-p", "Summarize it."], 78, "error: -p has no {text}"),
        (["--strategy", "stuff", "--map-prompt", "Of {text}"], 2, "error: --map-prompt is for documents in parts"),
        (
            ["--strategy", "stuff", "--reduce-prompt", "Of {text}"],
            2,
            "error: --reduce-prompt is for documents in parts",
        ),
    ],
)
def test_prompts_that_say_nothing_of_the_document_or_are_never_used_are_refused(
    shop: Shop, given: list[str], code: int, said: str
) -> None:
    (shop.folder / "note.txt").write_text("A note.")

    ended = cli(*summarize(shop, "note.txt", *given), cwd=shop.folder)

    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr


def test_map_reduce_is_auto_under_another_name(shop: Shop) -> None:
    (shop.folder / "book.txt").write_text(book(20_000))
    assert calls_of(shop, "book.txt", "-o", "out.jsonl") != []

    assert calls_of(shop, "book.txt", "-o", "out.jsonl", "--strategy", "map-reduce") == []


def test_the_embedded_model_takes_a_book_whole(shop: Shop) -> None:
    (shop.folder / "book.txt").write_text(book(100_000))

    ended = cli("summarize", "book.txt", "-o", "out.jsonl", "--progress", "none", cwd=shop.folder)
    refused = cli("summarize", "book.txt", "--strategy", "map-reduce", cwd=shop.folder)

    assert ended.returncode == 0, ended.stderr
    assert (refused.returncode, "takes documents whole" in refused.stderr) == (2, True)


def test_a_document_in_another_encoding_is_not_sent_until_it_is_named(
    provider: SimulatorProcess, tmp_path: Path
) -> None:
    shop = Shop(provider, tmp_path)
    (tmp_path / "plain.txt").write_text("A plain sentence.")
    (tmp_path / "latin.txt").write_bytes("Ein Café.".encode("latin-1"))
    (tmp_path / "noise.md").write_bytes(bytes(range(1, 32)) * 20)
    words = ["plain.txt", "latin.txt", "noise.md", "-o", "out.jsonl"]
    (asked,) = calls_of(shop, *words, code=3)
    assert "A plain sentence." in asked
    (asked,) = calls_of(shop, *words, "--encoding", "latin-1", code=3)
    assert "Ein Café." in asked
    assert calls_of(shop, *words, "--encoding", "latin-1", code=3) == []
    assert sorted(row["id"] for row in shop.output()) == ["latin.txt", "plain.txt"]
    (failed,) = shop.output("out.jsonl.errors.jsonl")
    assert "noise.md: does not look like text" in failed["_lcbatch_error"]["message"]
