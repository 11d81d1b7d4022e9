"""Input of every bad kind: the good rows are all done, the others are named with a remedy, and memory stays small."""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, look_again
from tests.torture.bombs import BOMBS
from tests.torture.scale import cases, note
from tests.torture.watched import Ended, watched

_SEED = 6
_MOST_MIB = 300 * 1000**2 / 1024**2
_WHOLE_ONLY = frozenset(
    {
        "flate.pdf",
        "flate-in-flate.pdf",
        "doubling-tree.pdf",
        "deep-dictionary.pdf",
        "just-fits.docx",
        "deep.docx",
        "deep.html",
        "attributes.html",
        "open-tags.html",
        "comment.html",
    }
)
"""They take seconds each, or the minute after which a document is given up."""

_BROKEN = (
    b'{"text": "cut off',
    b'{"text": "caf\xe9"}',
    b'{"text": "\xf0\x9f\x98"}',
    b'{"text": \x00 1}',
    b'{"text": 1} {"text": 2}',
    b'["text"]',
    b"null",
    b"[" * 100_000,
    b'{"text":' * 300 + b"1" + b"}" * 300,
    b"\x00" * 50,
    b"{'text': 'python'}",
)


def _run(shop: Shop, *inputs: str, within_s: float = 300.0) -> Ended:
    return watched(*shop.words(*inputs), cwd=shop.folder, within_s=within_s)


def _failed(shop: Shop, name: str = "out.jsonl.errors.jsonl") -> dict[str, dict[str, Any]]:
    """The errors file, by place."""
    return {row["_lcbatch_error"]["place"]: row["_lcbatch_error"] for row in shop.output(name)}


def _broken_file(path: Path, rows: int) -> tuple[list[str], set[str]]:
    """Every twentieth line is broken, the ends of lines are mixed; (the good rows' texts, the places of the others)."""
    dice = random.Random(_SEED)  # noqa: S311 - lines, no secrets
    good, bad, lines = [], set(), []
    for number in range(1, rows + 1):
        if number % 20 == 0:
            lines.append(_BROKEN[number // 20 % len(_BROKEN)])
            bad.add(f"{path.name}:{number}")
        else:
            good.append(f"row {number} é\u2028 {{x}}")
            lines.append(json.dumps({"text": good[-1]}, ensure_ascii=dice.random() < 0.5).encode())
        lines.append(dice.choice([b"\n", b"\r\n"]))
    path.write_bytes(b"".join(lines))
    return good, bad


def test_good_rows_are_done_and_the_others_named(tmp_path: Path) -> None:
    with SimulatorProcess() as provider:
        shop = Shop(provider, tmp_path)
        good, bad = _broken_file(tmp_path / "broken.jsonl", rows := cases(400, 100_000))
        (tmp_path / "marked.csv").write_bytes(b'\xef\xbb\xbfid,text\r\n1,"csv\r\none"\r\n2\r\n3,"csv three"\r\n')
        (tmp_path / "wide.jsonl").write_bytes(
            '{"text": "utf-16 ü"}\r\n{"text": \r\n{"text": "utf-16 b"}'.encode("utf-16")
        )
        os.mkfifo(tmp_path / "pipe.jsonl")
        with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", 6) as bomb:
            bomb.write(b'{"text": "before the bomb"}\n')
            for _ in range(cases(80, 1000)):
                bomb.write(b"x" * 1024 * 1024)
            bomb.write(b'\n{"text": "after the bomb"}\n')
        writer = threading.Thread(target=(tmp_path / "pipe.jsonl").write_bytes, args=(b'{"text": "fifo"}\n\xff\n',))
        writer.start()
        ended = _run(shop, "broken.jsonl", "marked.csv", "wide.jsonl", "pipe.jsonl", "bomb.jsonl.gz")
        writer.join()
        asked = Counter(entry["prompt"] for entry in shop.billed())
    good += ["csv\r\none", "csv three", "utf-16 ü", "utf-16 b", "fifo", "before the bomb", "after the bomb"]
    bad |= {"marked.csv:4", "wide.jsonl:2", "pipe.jsonl:2", "bomb.jsonl.gz:2"}

    assert ended.code == 3, (_SEED, ended.said)
    assert Counter(row["text"] for row in shop.output()) == Counter(good), _SEED
    assert asked == Counter(f"Say {text}" for text in good), _SEED
    failed = _failed(shop)
    assert failed.keys() == bad, _SEED
    for place, error in failed.items():
        assert error["kind"] == "bad_row"
        assert error["message"].startswith(f"{place}: ")
        assert "; " in error["message"], "a remedy"
    assert ended.peak_mib < _MOST_MIB
    note(
        "input: 5 % broken JSON and UTF-8, NUL, deep nesting, CRLF, BOM, UTF-16, a FIFO, a gz bomb of 1 GB",
        "good rows all done, the others named; memory below 300 MB",
        f"{rows} rows and four more files: {len(good)} done, {len(bad)} named, {ended.peak_mib:.0f} MiB at most",
    )


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_line_of_many_megabytes_is_a_row(name: str, tmp_path: Path) -> None:
    megabytes = cases(8, 50)
    (tmp_path / "in.jsonl").write_text(f'{{"text":"a"}}\n{{"text":"{"x" * megabytes * 1000**2}"}}\n{{"text":"b"}}\n')
    with SimulatorProcess() as provider:
        shop = Shop(provider, tmp_path)
        words = [name if word == "out.jsonl" else word for word in shop.words("in.jsonl")]
        ended = watched(*words, cwd=tmp_path, within_s=300)
        assert len(provider.ledger()) == 3
    exported = watched("export", name, "-o", f"again-{name}", cwd=tmp_path, within_s=300)
    for what, written, base_mib in ((ended, name, 120), (exported, f"again-{name}", 60)):
        assert what.code == 0, what.said
        lines = (tmp_path / written).read_bytes().splitlines()[-3:]
        assert sorted(len(line) // 1000**2 for line in lines) == [0, 0, megabytes]
        assert what.peak_mib < min(_MOST_MIB, base_mib + 5 * megabytes)
    said = f"done, {ended.peak_mib:.0f} MiB at most, {exported.peak_mib:.0f} to export it"
    note(f"input: a line of 50 MB ({name})", "done; memory below 300 MB", said)


def test_a_file_that_grows_while_it_is_read_comes_whole_in_the_end(tmp_path: Path) -> None:
    first, last = 200, 400
    lines = [json.dumps({"text": f"row {number}"}) + "\n" for number in range(last)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(lines[:first]))
    with SimulatorProcess(latency_s=0.01) as provider:
        shop = Shop(provider, tmp_path)

        def grow() -> None:
            with path.open("a", buffering=1) as file:
                for line in lines[first : last - 1]:
                    file.write(line)
                while not provider.stats()["requests"]:
                    look_again()
                file.write(lines[-1][:9])

        writer = threading.Thread(target=grow)
        writer.start()
        during = _run(shop, "in.jsonl")
        writer.join()
        done = {row["text"] for row in shop.output()}
        assert during.code in {0, 3}, during.said
        assert {json.loads(line)["text"] for line in lines[:first]} <= done
        assert all("broken JSON" in error["message"] for error in (_failed(shop) if during.code else {}).values())
        with path.open("a") as file:
            file.write(lines[-1][9:])
        after = _run(shop, "in.jsonl")
        assert after.code == 0, after.said
        assert Counter(row["text"] for row in shop.output()) == Counter(json.loads(line)["text"] for line in lines)
        assert len(provider.ledger()) == last, "nothing was asked twice"


_TEXT = "The night bus runs every hour. It costs 40,000 euros a year. The council wants to keep it. Riders are content."


def _folder_of_traps(folder: Path) -> dict[str, str]:
    """Good documents under names of every bad kind, and links that lead round, out and nowhere; names as they are shown."""
    names = {
        "plain.txt": "plain.txt",
        "new\nline.txt": "new\\nline.txt",
        "\x1b[2Jclear\x1b]0;title\x07.txt": "\\x1b[2Jclear\\x1b]0;title\\x07.txt",
        "n" * 251 + ".txt": "n" * 251 + ".txt",
        "é" * 125 + ".txt": "é" * 125 + ".txt",
        "CON.txt": "CON.txt",
        "{x.__class__} %s.txt": "{x.__class__} %s.txt",
    }
    folder.mkdir()
    for name in names:
        (folder / name).write_text(_TEXT)
    (folder / os.fsdecode(b"not-utf8-\xff.txt")).write_text(_TEXT)
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "sub" / "self").symlink_to(folder / "sub" / "self")
    (folder / "round").symlink_to(folder / "sub")
    (folder / "out").symlink_to("/")
    (folder / "nowhere.txt").symlink_to(folder / "not there")
    (folder / "secret.txt").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.txt")
    return {**names, os.fsdecode(b"not-utf8-\xff.txt"): "not-utf8-\\xff.txt"}


def test_documents_that_explode_or_loop_fail_alone(tmp_path: Path) -> None:
    names = _folder_of_traps(tmp_path / "docs")
    bombs = [name for name in BOMBS if cases(0, 1) or name not in _WHOLE_ONLY]
    for name in bombs:
        (tmp_path / "docs" / name).write_bytes(BOMBS[name]())

    ended = watched("summarize", "docs", "-o", "out/", "--progress", "none", cwd=tmp_path, within_s=900)

    assert ended.code == 3, ended.said
    rows = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    done = {name for name in bombs if f"{name}.md" in written}
    assert {row["_lcbatch_error"]["place"].removeprefix("docs/") for row in rows} == set(bombs) - done
    assert done <= {"just-fits.docx", "attributes.html", "deep.html"}, "nothing else of them has a text to summarize"
    assert all(len(row["_lcbatch_error"]["message"]) > len(row["path"]) + 10 for row in rows)
    assert len(written - {f"{name}.md" for name in bombs}) == len(names), written
    assert all(len(os.fsencode(name)) <= 255 for name in written)
    assert {path.name for path in tmp_path.iterdir()} >= {"docs", "out", "out.lcbatch"}
    assert "\x1b" not in ended.said
    assert ended.peak_mib < _MOST_MIB
    assert ended.whole_peak_mib < _MOST_MIB, "of the processes that read them"
    note(
        "documents that explode, loop or nest: PDF, DOCX, HTML; symlink loops; names with newlines and of 255 bytes",
        "good ones all done, the others named, no stall (a minute each at most); memory below 300 MB",
        f"{len(bombs)} bombs, {len(rows)} named, {len(names)} good ones done, {ended.seconds:.0f} s in all, "
        f"{ended.peak_mib:.0f} MiB at most (a reader process: {ended.whole_peak_mib:.0f} MiB)",
    )


@pytest.mark.parametrize("target", ["loop.jsonl", "gone.jsonl"])
def test_a_link_that_leads_nowhere_is_a_missing_input(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "gone.jsonl").symlink_to("not there")
    ended = watched(
        "run", target, "-m", MODEL, "--base-url", "http://127.0.0.1:9/v1", "-p", "x", "-o", "o.jsonl", cwd=tmp_path
    )
    assert ended.code == 66
    assert "is a link to nothing" in ended.said
