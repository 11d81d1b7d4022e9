"""Signals of every kind, a terminal that closes, a reader that goes or sleeps: drained in time, with the documented code."""

from __future__ import annotations

import contextlib
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
from tests.e2e.support import MODEL, Shop, cli, command, environment, rows_of
from tests.torture.scale import cases, note

_ROWS = 300
_IN_FLIGHT = 16
_DRAINED_WITHIN_S = 60.0
"""A call takes 0.05 s, so this is for the machine and not for the drain."""


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
    """Each look is a request of its own, which paces this."""
    deadline_s = time.monotonic() + _DRAINED_WITHIN_S
    while provider.stats()[name] < least:
        assert time.monotonic() < deadline_s, f"{name} never came to {least}"


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
    if cases(1, 0) and (first, second) not in {(signal.SIGHUP, signal.SIGINT), (signal.SIGTERM, None)}:
        pytest.skip("runs in make torture")
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
                while run.poll() is None and time.monotonic() < deadline_s:
                    run.send_signal(second)  # the same again within a second is one signal, so until it counts
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


def test_a_reader_that_sleeps_stops_the_calls_and_costs_no_memory(tmp_path: Path) -> None:
    rows, megabyte = 4000, 1024 * 1024
    with SimulatorProcess(answer_tokens=300) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {number} {'x' * 500}" for number in range(rows))))
        with _started(shop, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            first = run.stdout.readline()
            asked = _still(provider)
            held_mib = _resident_mib(run.pid)
            assert asked < rows - 1000, "the pipe is full, and the calls went on"
            assert _still(provider) == asked
            assert _resident_mib(run.pid) < held_mib + 8
            rest = run.stdout.read()
            assert run.wait(_DRAINED_WITHIN_S) == 0
        assert len((first + rest).splitlines()) == len(provider.ledger()) == rows
        assert len(first + rest) > 4 * megabyte
    note(
        "a consumer that sleeps",
        "calls stop going out, memory flat",
        f"{asked} of {rows} calls out, then none; {held_mib:.0f} MiB",
    )


def _still(provider: SimulatorProcess) -> int:
    """The number of calls, once none came for two seconds."""
    deadline_s = time.monotonic() + _DRAINED_WITHIN_S
    seen, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < cases(2, 60):
        assert time.monotonic() < deadline_s + cases(0, 60), "calls kept going out"
        now = provider.stats()["requests"]
        if now != seen:
            seen, since_s = now, time.monotonic()
        time.sleep(0.05)  # the pace of looking
    return seen


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2
