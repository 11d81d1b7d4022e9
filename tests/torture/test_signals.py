"""Signals of every kind, a terminal that closes, a reader that goes or sleeps: drained in time, with the documented code."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, cli, command, environment, look_again, rows_of
from tests.torture.scale import cases, most_in_a_second, note

_ROWS = 300
_IN_FLIGHT = 16
_DRAINED_WITHIN_S = 60.0
"""A call takes 0.05 s, so this is for the machine and not for the drain."""

_SLEPT_ROWS = 3000
_MOST_BEHIND = 2000
"""Rows that a reader may be behind before no more are called: lcbatch/pipeline.py."""

_PIPE_BYTES = 2 * 65536
"""What was read at first, and what the pipe holds."""


def _given(shop: Shop, *more: str) -> list[str]:
    asked = [
        "-m",
        MODEL,
        "--base-url",
        shop.provider.base_url,
        "-p",
        "Say {text}",
        "-j",
        str(_IN_FLIGHT),
    ]
    return ["run", "in.jsonl", *asked, *more]


@contextmanager
def _started(shop: Shop, *more: str, stdout: int | IO[bytes] = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    said = (shop.folder / "said").open("wb")
    run = subprocess.Popen(
        command(*_given(shop, *more)),
        cwd=shop.folder,
        env=environment(shop.folder),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=said,
    )
    try:
        yield run
    finally:
        run.kill()
        run.wait()
        said.close()
        if run.stdout is not None:
            run.stdout.close()


def _until(provider: SimulatorProcess, name: str, least: int) -> None:
    """Wait until one of the provider's counters has come so far."""
    deadline_s = time.monotonic() + _DRAINED_WITHIN_S
    while provider.stats()[name] < least:
        assert time.monotonic() < deadline_s, f"{name} never came to {least}"
        look_again()


def _until_said(shop: Shop, run: subprocess.Popen[bytes], words: str) -> None:
    while words not in (shop.folder / "said").read_text():
        assert run.poll() is None, (shop.folder / "said").read_text()
        time.sleep(0.02)  # the pace of looking


def _continues(shop: Shop, at_most_again: int) -> None:
    """The same command brings the rest: every row once, and nothing asked again but what was cut off."""
    said = cli(*_given(shop, "-o", "out.jsonl"), cwd=shop.folder)
    assert said.returncode == 0, said.stderr
    assert Counter(row["text"] for row in shop.output()) == Counter(f"row {number}" for number in range(_ROWS))
    assert len(shop.provider.ledger()) <= _ROWS + at_most_again


@pytest.mark.parametrize("second", [None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_once_and_twice(tmp_path: Path, first: signal.Signals, second: signal.Signals | None) -> None:
    if cases(1, 0) and (first, second) != (signal.SIGHUP, signal.SIGINT):
        pytest.skip("runs in make torture; each alone also in tests/e2e/test_exits.py")
    with SimulatorProcess(latency_s=0.05) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number}" for number in range(_ROWS))))
        with _started(shop, "-o", "out.jsonl") as run:
            _until(provider, "requests", 40)
            if second is not None:
                provider.control(latency_s=3600.0)
                _until(provider, "in_flight", _IN_FLIGHT)
            run.send_signal(first)
            if second is not None:
                _until_said(shop, run, f"stopped by {first.name}")
                deadline_s = time.monotonic() + _DRAINED_WITHIN_S
                while provider.stats()["in_flight"] and run.poll() is None and time.monotonic() < deadline_s:
                    run.send_signal(second)  # the same again within a second is one signal
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        run.wait(0.3)
            assert run.wait(_DRAINED_WITHIN_S) == 128 + first
        provider.control(latency_s=0.0)
        if second is None:
            assert len(shop.output()) == len(provider.ledger()), "drained: what was asked is there"
        _continues(shop, 0 if second is None else _IN_FLIGHT)
    note(
        f"signal {first.name}, then {second.name if second else 'none'}",
        f"exit {128 + first}, drained, continues",
        f"exit {128 + first}",
    )


def test_a_process_that_stood_still_times_nothing_out_and_does_not_catch_up(tmp_path: Path) -> None:
    """STOP with calls in flight, CONT after every timeout has passed: each is answered, and --rpm has saved nothing up."""
    rows, per_s, stood_s = 80, 20, cases(4, 600)
    with SimulatorProcess(latency_s=1.5) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number}" for number in range(rows))))
        limits = ("-j", "40", "--rpm", str(60 * per_s), "--timeout", "2.5s", "--row-timeout", "3s")
        with _started(shop, "-o", "out.jsonl", *limits) as run:
            _until(provider, "in_flight", 20)
            run.send_signal(signal.SIGSTOP)
            asked = _still(provider, stood_s)
            run.send_signal(signal.SIGCONT)
            assert run.wait(_DRAINED_WITHIN_S) == 0, (tmp_path / "said").read_text()
        times_s = sorted(entry["at_s"] for entry in provider.ledger())
    assert asked < rows, "it was stopped at its work"
    assert len(shop.output()) == len(times_s) == rows, "each row is there, and nothing was asked twice"
    most = most_in_a_second(times_s[asked:])
    assert most <= 2 * per_s + 2, "what a second holds, what the one before left over, and the ends of both"
    note(
        f"STOP for {stood_s} s and CONT, with calls in flight under --timeout 2.5s and --rpm {60 * per_s}",
        "no timeout, nothing asked twice, no burst",
        f"{rows} rows, {len(times_s)} calls, at most {most} in any second afterwards",
    )


def test_a_terminal_that_closes_is_a_hangup(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=0.05) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number}" for number in range(_ROWS))))
        pid, leader = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            line = command(*_given(shop, "-o", "out.jsonl", "--progress", "bar"))
            os.execve(line[0], line, {**environment(tmp_path), "TERM": "xterm-256color"})  # noqa: S606 - a child on a terminal of its own
        _until(provider, "requests", 40)
        os.close(leader)
        assert os.waitstatus_to_exitcode(_waited(pid)) == 129
        assert len(shop.output()) == len(provider.ledger())
        _continues(shop, 0)
    note("terminal closed", "exit 129, drained, continues", "exit 129")


def _waited(pid: int) -> int:
    deadline_s = time.monotonic() + _DRAINED_WITHIN_S
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.02)  # the pace of looking
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("it did not end")


@pytest.mark.parametrize("way", ["| head --ordered", "a FIFO"])
def test_a_reader_that_goes_ends_the_run_and_the_next_run_pays_for_the_rest_alone(tmp_path: Path, way: str) -> None:
    more = ["-o", "fifo"] if way == "a FIFO" else ["--ordered"]
    os.mkfifo(tmp_path / "fifo")
    with SimulatorProcess(latency_s=0.05) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number}" for number in range(_ROWS))))
        with _started(shop, *more, stdout=subprocess.PIPE) as run:
            assert len(_through(["head", "-3"], run, tmp_path / "fifo").splitlines()) == 3
            assert run.wait(_DRAINED_WITHIN_S) == 141, (tmp_path / "said").read_text()
        assert "continue" in (tmp_path / "said").read_text()
        stopped = len(provider.ledger())
        assert stopped < _ROWS, "it went on for a reader that was gone"
        provider.control(latency_s=0.0)
        with _started(shop, *more, stdout=subprocess.PIPE) as run:
            lines = _through(["cat"], run, tmp_path / "fifo").splitlines()
            assert run.wait(_DRAINED_WITHIN_S) == 0, (tmp_path / "said").read_text()
        rows = [json.loads(line)["text"] for line in lines]
        assert sorted(rows) == sorted(f"row {number}" for number in range(_ROWS))
        assert way == "a FIFO" or rows == [f"row {number}" for number in range(_ROWS)]
        assert len(provider.ledger()) == _ROWS
    note(
        f"a reader that goes: {way}",
        "exit 141, drained, nothing paid twice",
        f"{stopped} of {_ROWS} calls out, 0 again",
    )


def _through(reader: list[str], run: subprocess.Popen[bytes], fifo: Path) -> bytes:
    """What a reader has got of a run's rows, on its stdout or by the FIFO, when it has ended."""
    assert run.stdout is not None
    with fifo.open("rb") if "fifo" in run.args else run.stdout as rows:  # type: ignore[operator]
        return subprocess.run(reader, stdin=rows, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("way", ["pipe", "terminal"][: cases(1, 2)])
def test_a_reader_that_sleeps_stops_the_calls_and_costs_no_memory(tmp_path: Path, way: str) -> None:
    with SimulatorProcess(answer_tokens=300) as provider, _reader(way) as (ours, theirs):
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number} {'x' * 500}" for number in range(_SLEPT_ROWS))))
        with _started(shop, stdout=theirs) as run:
            os.close(theirs)
            read = _bytes(ours, 1)
            asked = _still(provider)
            held_mib = _resident_mib(run.pid)
            assert _still(provider) == asked
            assert _resident_mib(run.pid) < held_mib + 8
            read += _bytes(ours)
            assert run.wait(_DRAINED_WITHIN_S) == 0
        lines = read.splitlines()
        # In flight, answers on their way to the store, of which two to a call may wait, and a group that goes there.
        most = _MOST_BEHIND + 4 * _IN_FLIGHT + (_PIPE_BYTES + len(lines[0])) // min(map(len, lines)) + 1
        assert asked <= most < _SLEPT_ROWS, "the pipe is full, and the calls went on"
        assert len(lines) == len(provider.ledger()) == _SLEPT_ROWS
    note(
        f"a consumer that sleeps: {way}",
        f"calls stop going out when it is {_MOST_BEHIND} rows behind, memory flat",
        f"{asked} of {_SLEPT_ROWS} calls out (at most {most}), then none; {held_mib:.0f} MiB",
    )


@contextmanager
def _reader(way: str) -> Iterator[tuple[int, int]]:
    """(where it is read, where it is written). The latter is the user's to close."""
    ours, theirs = os.pipe() if way == "pipe" else pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def _bytes(fd: int, least: int | None = None) -> bytes:
    """So many bytes at least, or all to the end."""
    got = b""
    while least is None or len(got) < least:
        try:
            more = os.read(fd, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that nobody writes to any more
                raise
            more = b""
        if not more:
            assert least is None, "it ended before it wrote"
            break
        got += more
    return got


def _still(provider: SimulatorProcess, quiet_s: float = cases(2, 60)) -> int:
    """The number of calls, once none came for so long."""
    deadline_s = time.monotonic() + _DRAINED_WITHIN_S + quiet_s
    seen, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < quiet_s:
        assert time.monotonic() < deadline_s, "calls kept going out"
        now = provider.stats()["requests"]
        if now != seen:
            seen, since_s = now, time.monotonic()
        time.sleep(0.05)  # the pace of looking
    return seen


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2
