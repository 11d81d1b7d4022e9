"""The simulator as a program."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lcbatch.simulator.cli import main
from lcbatch.simulator.process import SimulatorProcess

from .wire import chat


def post(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(chat()))
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_a_process_is_started_asked_changed_and_stopped(tmp_path: Path) -> None:
    with SimulatorProcess(faults={"500": 1.0}, ledger_file=tmp_path / "ledger.jsonl") as simulator:
        assert simulator.base_url == f"http://127.0.0.1:{simulator.port}/v1"
        assert post(simulator.port) == 500
        assert simulator.control(faults={})["faults"] == {}
        assert post(simulator.port) == 200
        assert (simulator.stats()["requests"], [line["number"] for line in simulator.ledger()]) == (2, [1])
        assert simulator.ledger(since=1) == []
        with pytest.raises(RuntimeError, match="unknown setting"):
            simulator.control(nonsense=1)
        assert (
            simulator.stop()
            == "lcbatch simulator: 2 requests, 1 billed, 1 delivered, 1 rejected, at most 1 in flight\n"
        )
    assert json.loads((tmp_path / "ledger.jsonl").read_text())["delivered"] is True
    assert simulator.stop() == ""


def test_a_process_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="unknown setting 'nonsense'"), SimulatorProcess(nonsense=1):
        pytest.fail("it started")


def test_a_signal_ends_it_with_exit_code_0_and_the_port_stands_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "port"
    command = [
        sys.executable,
        "-m",
        "lcbatch.simulator",
        "--port-file",
        str(path),
        "--latency",
        "0.5",
        "--fault",
        "500=0.5",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=5)
    assert ready == f"lcbatch simulator on http://127.0.0.1:{path.read_text().strip()}/v1\n"
    assert (process.returncode, said.count("\n")) == (0, 1)
    assert list(tmp_path.iterdir()) == [path]


def test_it_ends_when_whoever_started_it_is_gone() -> None:
    command = [sys.executable, "-m", "lcbatch.simulator", "--until-stdin-ends"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=5) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fault", "5x=1"], "unknown fault '5x'"),
        (["--fault", "500=x"], "is not NAME=RATE"),
        (["--settings", "{"], "--settings is no JSON"),
        (["--settings", "[]"], "must be a JSON object"),
        (["--schedule", "x"], "schedule 'x' is neither"),
    ],
)
def test_bad_usage_is_exit_2_with_the_reason(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_importing_it_is_light() -> None:
    code = "import sys, lcbatch.simulator.cli, lcbatch.simulator.process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name for name in done.stdout.split() if name.startswith("lcbatch.")}
    assert all(name.startswith("lcbatch.simulator") for name in loaded)
    assert not {"uvloop", "langchain_core", "openai", "httpx", "aiohttp", "pydantic", "numpy"} & set(
        done.stdout.split()
    )
