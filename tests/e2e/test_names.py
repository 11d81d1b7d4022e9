"""Names of files that are no UTF-8, wherever they stand on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e.support import Shop, cli, rows_of

_ODD = os.fsdecode(b"caf\xe9")

_CHAIN = """
def answer(fields):
    if fields["text"] == "bad" and not MENDED:
        raise ValueError("no")
    return fields["text"].upper()
"""


def _chain(folder: Path, *, mended: bool) -> None:
    (folder / f"{_ODD}.py").write_text(f"MENDED = {mended}\n{_CHAIN}")


def test_files_of_such_names_in_a_folder_of_such_a_name_are_run_retried_and_told(shop: Shop) -> None:
    folder = shop.folder / _ODD
    folder.mkdir()
    (folder / f"{_ODD}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of("good", "bad")))
    _chain(folder, mended=False)
    run = ["run", f"{_ODD}.jsonl", "--chain", f"./{_ODD}.py:answer", "--chain-version", "1", "-o", f"{_ODD}.out.jsonl"]

    first = cli(*run, cwd=folder)
    _chain(folder, mended=True)
    again = cli("retry", f"{_ODD}.out.jsonl", cwd=folder)
    status = cli("status", f"{_ODD}.out.jsonl", cwd=folder)
    doctor = cli("doctor", cwd=folder)
    export = cli("export", f"{_ODD}.out.jsonl", cwd=folder)

    assert [ended.returncode for ended in (first, again, status, doctor, export)] == [3, 0, 0, 0, 0], first.stderr
    assert r"lcbatch retry $'caf\xe9.out.jsonl'" in first.stderr
    assert r"command  lcbatch retry $'caf\xe9.out.jsonl'" in status.stdout
    assert r"/caf\xe9 can hold a run store" in doctor.stdout
    assert {json.loads(line)["output"] for line in export.stdout.splitlines()} == {"GOOD", "BAD"}


def test_documents_of_such_a_folder_are_read_again_by_a_retry(shop: Shop) -> None:
    (shop.folder / _ODD).mkdir()
    for word in ("good", "bad"):
        (shop.folder / _ODD / f"{_ODD} {word}.txt").write_text(word)
    _chain(shop.folder, mended=False)
    chain = ["--chain", f"./{_ODD}.py:answer", "--chain-version", "1"]

    first = cli("run", _ODD, *chain, "-o", "out.jsonl", cwd=shop.folder)
    _chain(shop.folder, mended=True)
    again = cli("retry", "out.jsonl", cwd=shop.folder)

    assert (first.returncode, again.returncode) == (3, 0), first.stderr + again.stderr
    assert {(row["path"], row["output"]) for row in shop.output()} == {
        (r"caf\xe9/caf\xe9 good.txt", "GOOD"),
        (r"caf\xe9/caf\xe9 bad.txt", "BAD"),
    }


def test_the_command_that_goes_on_leaves_out_fresh_and_keeps_such_names(shop: Shop) -> None:
    shop.write(f"{_ODD}.jsonl", rows_of("a", "b"))

    ended = cli(*shop.words(f"{_ODD}.jsonl"), "--fresh", "--limit", "1", "--progress", "log", cwd=shop.folder)

    assert r"lcbatch run $'caf\xe9.jsonl' -m" in ended.stderr
    assert "--fresh" not in ended.stderr


@pytest.mark.parametrize("flag", ["-p", "--system", "-m", "--fallback", "--output-field"])
def test_text_that_is_no_utf_8_is_refused_by_option(shop: Shop, flag: str) -> None:
    shop.write("in.jsonl", rows_of("a"))

    ended = cli(*shop.words("in.jsonl"), flag, _ODD, cwd=shop.folder)

    assert (ended.returncode, ended.stderr.splitlines()[0]) == (2, rf"error: {flag} is no UTF-8: 'caf\udce9'")
    assert not (shop.folder / "out.jsonl").exists()
