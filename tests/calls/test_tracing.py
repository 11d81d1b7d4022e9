"""LangSmith's endpoint may be dead, slow or alive: what a run then costs, says and sends."""

from __future__ import annotations

import asyncio
import http.server
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any, cast

import pytest
from langchain_core.runnables import RunnableLambda
from langsmith import run_trees
from langsmith.utils import get_env_var, tracing_is_enabled

from lcbatch.calls import tracing
from lcbatch.calls.tracing import is_on, traced

_ROWS = 300


class _Endpoint(http.server.BaseHTTPRequestHandler):
    """Takes all that it is sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(b"{}")

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))  # type: ignore[attr-defined]
        self._say(b"{}")

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def endpoint() -> Iterator[tuple[str, list[bytes]]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    server.bodies = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.bodies  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def refusing() -> Iterator[str]:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(128)  # the system takes connections, and nobody reads
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run_trees, "_CLIENT", None)
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "none-needed")
    _forget()
    yield
    _forget()


def _forget() -> None:
    """LangSmith keeps what it has once read of the environment."""
    cast("Any", get_env_var).cache_clear()


async def run(url: str, rows: int = _ROWS) -> tuple[list[str], float, int]:
    """Run rows of nothing while traces go to `url`: what was said, how long it took, how many rows were traced."""
    os.environ["LANGSMITH_ENDPOINT"] = url
    said, loop, traces = list[str](), asyncio.get_running_loop(), 0
    chain = RunnableLambda(lambda row: row)
    began_s = loop.time()
    async with traced(loop.time, said.append, said.append) as sent:
        assert sent is not None
        bound = sent.row(nullcontext)
        for number in range(rows):
            async with bound():
                traces += bool(tracing_is_enabled())
                await chain.ainvoke({"n": number}, {"metadata": {"lcbatch_row_id": str(number)}})
    return said, loop.time() - began_s, traces


@pytest.fixture
def _endpoint_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_ENDPOINT", "")  # put back afterwards, whatever `run` sets


@pytest.mark.usefixtures("_endpoint_of_ours")
@pytest.mark.parametrize("dead", [refusing, silent])
def test_a_dead_endpoint_costs_a_moment_and_one_warning(dead: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with dead() as url:
        said, took_s, _ = asyncio.run(run(url))
    announced, warned = said
    host = url.removeprefix("http://")
    assert announced.startswith(f"tracing to LangSmith at {host}: ")
    assert warned.startswith(f"LangSmith at {host} cannot be reached (")
    assert took_s < tracing._READ_S + 1.5
    assert "langsmith" not in capfd.readouterr().err.lower()


@pytest.mark.usefixtures("_endpoint_of_ours")
def test_rows_go_untraced_once_the_endpoint_is_down() -> None:
    async def after_the_first() -> int:
        with refusing() as url:
            os.environ["LANGSMITH_ENDPOINT"] = url
            said = asyncio.Queue[str]()
            async with traced(asyncio.get_running_loop().time, said.put_nowait, said.put_nowait) as sent:
                assert sent is not None
                await said.get()
                await said.get()  # LangSmith's thread has tried
                traces = 0
                for _ in range(10):
                    async with sent.row(nullcontext)():
                        traces += bool(tracing_is_enabled())
                assert tracing_is_enabled()
                return traces

    assert asyncio.run(after_the_first()) == 0


@pytest.mark.usefixtures("_endpoint_of_ours")
def test_a_live_endpoint_is_sent_every_row() -> None:
    with endpoint() as (url, bodies):
        said, _, traces = asyncio.run(run(url, rows=20))
    assert len(said) == 1
    assert traces == 20
    sent = b"".join(bodies)
    assert all(b'"lcbatch_row_id":"%d"' % number in sent for number in range(20))


def test_a_client_of_the_users_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_trees, "_CLIENT", object())

    async def enter() -> list[str]:
        said = list[str]()
        async with traced(asyncio.get_running_loop().time, said.append, said.append) as sent:
            assert sent is None
        return said

    assert "your own code" in asyncio.run(enter())[0]


def test_it_is_on_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_on(os.environ)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    _forget()
    assert not is_on(os.environ)
