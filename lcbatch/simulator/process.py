"""A simulator in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

_STOP_TIMEOUT_S = 10


class SimulatorProcess:
    """Starts `python -m lcbatch.simulator` on a free port and stops it at the block's end.

        with SimulatorProcess(latency_s=0.1, faults={"500": 0.3}) as simulator:
            ... simulator.base_url ...
            simulator.control(rpm=300)

    `settings` are those of settings.Settings, as JSON values. Entering raises RuntimeError, with what it said, if it
    does not come up.
    """

    def __init__(self, *, port: int = 0, ledger_file: Path | None = None, **settings: Any) -> None:
        self._command = [
            sys.executable,
            "-m",
            "lcbatch.simulator",
            "--until-stdin-ends",
            "--port",
            str(port),
            "--settings",
            json.dumps(settings),
        ]
        if ledger_file is not None:
            self._command += ["--ledger-file", str(ledger_file)]
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[str] | None = None
        self.base_url = ""
        self.port = port

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = subprocess.Popen(  # noqa: S603  our own interpreter with our own arguments
            self._command,
            # Held open and never written to: it closes when we die, by SIGKILL too, and the server with it.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A file and not a pipe, which would stop the server once full, as nobody reads it meanwhile.
            stderr=self._said,
            text=True,
            # A test that signals its own process group is not to end the provider with it.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if " on " not in ready:
            raise RuntimeError(f"the simulator did not start: {self.stop().strip()}")
        self.base_url = ready.rsplit(" ", 1)[1].strip()
        self.port = int(self.base_url.split(":")[2].split("/")[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise RuntimeError("the simulator is not running")
        return self._process.pid

    def stop(self) -> str:
        """End it and return what it said on stderr. Does nothing the second time."""
        process, self._process = self._process, None
        said, self._said = self._said, None
        if process is None or said is None:
            return ""
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        with said:
            said.seek(0)
            return said.read()

    def ledger(self, since: int = 0) -> list[dict[str, Any]]:
        """The billed calls after number `since`, in order."""
        return [json.loads(line) for line in self._ask("GET", f"/ledger?since={since}").splitlines()]

    def stats(self) -> dict[str, Any]:
        """The counters; see stats.Stats and ledger.Ledger."""
        counters: dict[str, Any] = json.loads(self._ask("GET", "/stats"))
        return counters

    def control(self, **settings: Any) -> dict[str, Any]:
        """Change settings while it runs; returns all of them.

        Raises RuntimeError with the reason for an unknown or a bad one.
        """
        changed: dict[str, Any] = json.loads(self._ask("POST", "/control", json.dumps(settings)))
        return changed

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode()}")
        return answer
