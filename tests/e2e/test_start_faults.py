"""What is wrong from the start is said at once: few requests, no output touched, and a hint that names the option."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, by_shell, rows_of, spawned

_MOST_REQUESTS = 4
_SOON_S = 10.0
_ROWS = 300
_ROWS_BEFORE = 5
_FROM_NOWHERE = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'


@pytest.fixture(scope="module")
def second() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@contextmanager
def _nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def _started(shop: Shop, url: str) -> subprocess.Popen[str]:
    arguments = ["-m", MODEL, "--base-url", url, "-p", "Say {text}", "-o", "out.jsonl"]
    return spawned("run", "in.jsonl", *arguments, cwd=shop.folder, stdout=subprocess.DEVNULL)


def _shop(provider: SimulatorProcess, folder: Path) -> Shop:
    folder.mkdir()
    shop = Shop(provider, folder)
    shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(_ROWS))))
    return shop


def _ended(process: subprocess.Popen[str]) -> str:
    """What it said. A process that is still there after _SOON_S is a failure."""
    try:
        return process.communicate(timeout=_SOON_S)[1]
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _spoilt(fault: str | None, *shops: Shop) -> Iterator[None]:
    """Their providers give nothing but this fault."""
    for shop in shops:
        shop.provider.control(faults={fault: 1.0} if fault else {})
    try:
        yield
    finally:
        for shop in shops:
            shop.provider.control(faults={})


def _files(shop: Shop) -> dict[str, bytes]:
    """What a user sees in the folder: the store and its lock are ours, and the lock is never unlinked."""
    return {path.name: path.read_bytes() for path in shop.folder.iterdir() if ".lcbatch" not in path.name}


_FAULTS: dict[str, tuple[str | None, int, str]] = {
    "a page under 200": ("html", 78, r"--base-url"),
    "a wrong key": ("auth", 77, r"--api-key-env"),
    "a wrong model": ("notfound", 78, r"-m and --base-url"),
    "nobody there": (None, 69, r"--base-url|--outage-timeout"),
}


@pytest.mark.parametrize("what", sorted(_FAULTS))
def test_what_is_wrong_from_the_start_is_said_at_once(
    provider: SimulatorProcess, second: SimulatorProcess, tmp_path: Path, what: str
) -> None:
    """Once on a new output, as a command; once on one that an earlier run has made and that is to grow, in this process."""
    fault, code, hint = _FAULTS[what]
    fresh, again = _shop(provider, tmp_path / "fresh"), _shop(second, tmp_path / "again")
    whole = (again.folder / "in.jsonl").read_text()
    again.write("in.jsonl", rows_of(*(f"row {index}" for index in range(_ROWS_BEFORE))))
    assert asyncio.run(again.run("in.jsonl")).exit_code == 0
    (again.folder / "in.jsonl").write_text(whole)
    before = [_files(fresh), _files(again)]
    asked = [_requests(shop) for shop in (fresh, again)]

    with _nobody() as nowhere, _spoilt(fault, fresh, again):
        urls = [shop.provider.base_url if fault else nowhere for shop in (fresh, again)]
        run = _started(fresh, urls[0])
        # A provider that has answered on this output before is taken to be down, and waited for.
        report = asyncio.run(again.run("in.jsonl", base_url=urls[1], outage_timeout=1.0))
        said = _ended(run)

    assert (run.returncode, report.exit_code) == (code, code), said
    assert report.error is not None
    for text in (said, f"hint: {report.error.hint}"):
        assert re.search(rf"hint: .*({hint})", text), text
    assert "Traceback" not in said
    assert [_files(fresh), _files(again)] == before
    assert not (fresh.folder / "out.jsonl.lcbatch").exists(), "nothing is left of a run that came to nothing"
    for shop, requests in zip((fresh, again), asked, strict=True):
        assert _requests(shop) - requests <= _MOST_REQUESTS


def _requests(shop: Shop) -> int:
    return int(shop.provider.stats()["requests"])


def test_once_mended_the_same_command_does_all_rows(provider: SimulatorProcess, tmp_path: Path) -> None:
    shop = _shop(provider, tmp_path / "shop")
    with _spoilt("auth", shop):
        assert asyncio.run(shop.run("in.jsonl")).exit_code == 77
    before = len(shop.billed())
    assert asyncio.run(shop.run("in.jsonl")).exit_code == 0
    assert len(shop.output()) == len(shop.billed()) - before == _ROWS


def test_a_working_directory_that_was_removed_is_said_and_what_needs_none_works(shop: Shop) -> None:
    path = shop.write("in.jsonl", rows_of("a"))
    out = shop.folder / "out.jsonl"
    run = ["run", str(path), "-m", MODEL, "--base-url", shop.provider.base_url, "-p", "Say {text}", "-o", str(out)]

    assert asyncio.run(shop.run("in.jsonl")).exit_code == 0
    before = len(shop.billed())
    for words in (run, [*run, "--dry-run"], ["retry", str(out)], ["export", str(out), "-o", "more.csv"], ["doctor"]):
        ended = by_shell(_FROM_NOWHERE, *words, cwd=shop.folder)
        assert ended.returncode == 66, ended.stderr
        assert "the working directory is gone" in ended.stderr + ended.stdout
    for word in ("export", "status"):
        assert by_shell(_FROM_NOWHERE, word, out, cwd=shop.folder).returncode == 0
    assert len(shop.billed()) == before


@pytest.mark.parametrize("fault", ["html", "badjson"])
def test_a_row_that_always_draws_a_bad_body_fails_alone_and_at_each_rerun(
    provider: SimulatorProcess, tmp_path: Path, fault: str
) -> None:
    shop = Shop(provider, tmp_path)
    good = [f"row {index}" for index in range(5)]
    shop.write("in.jsonl", rows_of(f"[[fault:{fault}]]", *good))
    for requests in (len(good) + 2, 2):
        before = _requests(shop)
        report = asyncio.run(shop.run("in.jsonl", concurrency="1", output="out.jsonl"))
        assert report.exit_code == 3, report.error
        assert sorted(row["text"] for row in shop.output()) == good
        assert _requests(shop) - before == requests, "two attempts for the bad one, and none for what is answered"


def test_one_row_alone_and_a_page_are_that_row_s_failure(provider: SimulatorProcess, tmp_path: Path) -> None:
    shop = Shop(provider, tmp_path)
    shop.write("in.jsonl", rows_of("[[fault:html]]"))
    assert asyncio.run(shop.run("in.jsonl")).exit_code == 3
    (failed,) = shop.output("out.jsonl.errors.jsonl")
    assert failed["_lcbatch_error"]["kind"] == "bad_body"
    assert "a web page and no chat completion" in failed["_lcbatch_error"]["message"]
