"""Opens the simulator's socket and runs it: inside a loop (`serve`) or as a whole program (`run_blocking`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lcbatch.simulator.front import Front
from lcbatch.simulator.http import Connection, Head
from lcbatch.simulator.ledger import Ledger
from lcbatch.simulator.provider import Provider
from lcbatch.simulator.settings import Settings

# Never another one: what it serves is invented, and /control has no lock.
HOST: Final = "127.0.0.1"
_BACKLOG: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Where a simulator listens and what it writes.

    `until_stdin_ends` ends a program when its parent closes the pipe or dies, so that a killed test leaves none behind.
    Port 0 takes a free one; `port_file` gets the port's number, atomically.
    """

    port: int = 0
    port_file: Path | None = None
    ledger_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    until_stdin_ends: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A simulator that listens. `provider` may be looked into from the same loop."""

    base_url: str
    port: int
    provider: Provider


@contextlib.asynccontextmanager
async def serve(settings: Settings, binding: Binding | None = None) -> AsyncIterator[Running]:
    """Listen until the block is left; then every connection is cut.

    Raises OSError when the port is taken or a file cannot be opened.
    """
    binding = binding or Binding()
    loop = asyncio.get_running_loop()
    heads: dict[bytes, Head] = {}
    now = time.monotonic()
    with Ledger(settings.ledger, binding.ledger_file) as ledger:
        provider = Provider(settings, ledger, now, time.time() - now)
        front = Front(provider, loop, time.monotonic)
        server = await loop.create_server(
            lambda: Connection(front, heads, loop), HOST, binding.port, backlog=_BACKLOG, ssl=_tls(binding)
        )
        try:
            port = int(server.sockets[0].getsockname()[1])
            if binding.port_file is not None:
                _write_port(binding.port_file, port)
            scheme = "https" if binding.tls_cert else "http"
            yield Running(f"{scheme}://{HOST}:{port}/v1", port, provider)
        finally:
            server.close()
            await front.disconnect()
            await server.wait_closed()


def run_blocking(settings: Settings, binding: Binding | None = None) -> int:
    """Serve until SIGINT or SIGTERM, as a program: one line on stdout when ready, one on stderr at the end.

    Returns the exit code, 0.
    """
    _raise_file_limit()
    # Nothing that lives through a request has cycles, and a full collection over a million ledger lines would be
    # measured as latency.
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_signal(settings, binding or Binding()))


async def _until_signal(settings: Settings, binding: Binding) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if binding.until_stdin_ends:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    async with serve(settings, binding) as running:
        sys.stdout.write(f"lcbatch simulator on {running.base_url}\n")
        sys.stdout.flush()
        await stop.wait()
        stats, ledger = running.provider.stats, running.provider.ledger
    sys.stderr.write(
        f"lcbatch simulator: {stats.requests} requests, {ledger.billed} billed, {ledger.delivered} delivered, "
        f"{stats.rejected.total()} rejected, at most {stats.in_flight_peak} in flight\n"
    )
    return 0


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  optional: there is none on Windows, and importing this module must not need it
    except ImportError:
        return None
    return uvloop.Loop


def _raise_file_limit() -> None:
    """Thousands of clients are the point; the usual soft limit of open files is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS calls its hard limit infinite and then takes no more than 10,240.
    for wanted in (65_536, 10_240):
        if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
            target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
                return


def _tls(binding: Binding) -> ssl.SSLContext | None:
    if binding.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(binding.tls_cert, binding.tls_key)
    return context


def _write_port(path: Path, port: int) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fresh.write_text(f"{port}\n", encoding="ascii")
    fresh.replace(path)
