"""Standard streams that are closed, full, or read by nobody."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.support import Shop, by_shell, rows_of, spawned

_NOBODY_READS = "| true"
_FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not _FULL.exists(), reason="this system has no /dev/full")


def _redirected(shop: Shop, redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line with its streams as a shell leaves them."""
    return by_shell(f'exec "$@" {redirection}', *words, cwd=shop.folder)


@pytest.mark.parametrize(
    "redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", pytest.param("2>/dev/full", marks=needs_full)]
)
def test_a_run_into_a_file_needs_no_standard_stream(shop: Shop, redirection: str) -> None:
    shop.write("in.jsonl", rows_of("a", "b"))

    ended = _redirected(shop, redirection, *shop.words("in.jsonl"), "--progress", "log")

    assert ended.returncode == 0, ended.stderr
    assert len(shop.output()) == 2


def test_a_closed_stdout_is_said_before_anything_is_asked_where_rows_go_there(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    before = len(shop.billed())
    words = [word for word in shop.words("in.jsonl") if word not in {"-o", "out.jsonl"}]

    ended = _redirected(shop, ">&-", *words)

    assert (ended.returncode, len(shop.billed())) == (74, before)
    assert "there is no standard output to write to" in ended.stderr


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_closed_stdin_is_no_input(shop: Shop, name: str) -> None:
    ended = _redirected(shop, "<&-", *shop.words(name))

    assert ended.returncode == 66
    assert "stdin" in ended.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["doctor"], ["status", "out.jsonl"], ["run", "--dry-run"]]
)
@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 74, "error: cannot write to standard output: it is closed"),
        pytest.param(">/dev/full", 74, "error: cannot write to standard output: No space left", marks=needs_full),
        (_NOBODY_READS, 141, ""),
    ],
)
def test_what_cannot_be_shown_is_said_as_that(
    shop: Shop, words: list[str], redirection: str, code: int, said: str
) -> None:
    shop.write("in.jsonl", rows_of("a"))
    if words == ["run", "--dry-run"]:
        words = [*shop.words("in.jsonl"), "--dry-run"]
    elif words[0] == "status":
        assert _redirected(shop, "", *shop.words("in.jsonl")).returncode == 0

    ended = _unread(shop, *words) if redirection == _NOBODY_READS else _redirected(shop, redirection, *words)

    assert ended.returncode == code, ended.stderr
    assert ended.stderr.startswith(said)
    assert bool(ended.stderr) == bool(said)
    assert "Exception" not in ended.stderr


def _unread(shop: Shop, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, whose output goes into a pipe that nobody reads."""
    with spawned(*words, cwd=shop.folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        return subprocess.CompletedProcess(list(words), process.wait(120), "", said)
