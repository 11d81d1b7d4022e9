"""The simulator for one run: a process each time, so that its counters are that run's and its latencies the same for all."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import environments, machine


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for loopback that clients are told to trust, and its key."""

    cert: Path
    key: Path


def certificate() -> Certificate:
    """A new one. Raises UnavailableError where what makes it does not install."""
    python = environments.TOOLS.python()
    made = Certificate(environments.FOLDER / "work" / "cert.pem", environments.FOLDER / "work" / "key.pem")
    root = Path(__file__).resolve().parents[1]
    command = [str(python), "-m", "bench.certificate", str(made.cert), str(made.key)]
    subprocess.run(command, cwd=root, check=True)
    return made


@dataclass(frozen=True, slots=True)
class Provider:
    """A simulator that listens."""

    base_url: str
    tls: ssl.SSLContext | None

    def stats(self) -> dict[str, Any]:
        """Its counters, the connection of this question taken off."""
        url = urlsplit(self.base_url)
        assert url.hostname is not None
        connection = (
            http.client.HTTPSConnection(url.hostname, url.port, context=self.tls, timeout=30)
            if self.tls
            else http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        )
        try:
            connection.request("GET", "/stats")
            counters: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return counters | {"connections": counters["connections"] - 1}


@contextmanager
def serving(settings: Mapping[str, Any], tls: Certificate | None) -> Iterator[Provider]:
    """A simulator on the other core, until the block is left. Raises RuntimeError where it does not come up."""
    command = [sys.executable, "-m", "lcbatch.simulator", "--until-stdin-ends", "--settings", json.dumps(settings)]
    if tls is not None:
        command += ["--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    with (
        machine.on_core(machine.CORES and machine.CORES[1]),
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process,
    ):
        assert process.stdout is not None
        ready = process.stdout.readline()
        if " on " not in ready:
            raise RuntimeError("the simulator did not start")
        trust = ssl.create_default_context(cafile=tls.cert) if tls else None
        try:
            yield Provider(ready.rsplit(" ", 1)[1].strip(), trust)
        finally:
            process.terminate()
