"""Paths, answers and switches over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shlex
import ssl
import struct
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.answers import answer_for, request_digest
from lcbatch.simulator.embeddings import embedding_for
from lcbatch.simulator.server import Binding, Running, serve
from lcbatch.simulator.settings import Settings

from .wire import (
    Loop,
    Response,
    Wire,
    answer_to,
    ask,
    both_loops,
    chat,
    chat_request,
    connected,
    faulty,
    ledger,
    request,
    run,
    until,
)

MAKE_CERT = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
    "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
)


def events(response: Response) -> list[dict[str, Any]]:
    lines = [line for line in response.body.decode().split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@both_loops
def test_a_chat_is_answered_and_stands_in_the_ledger_as_delivered(loop: Loop) -> None:
    async def scenario(running: Running) -> tuple[Response, list[dict[str, Any]]]:
        return await ask(running.port, chat_request()), await ledger(running)

    response, lines = run(scenario, loop=loop)
    message = response.json()["choices"][0]["message"]
    assert message["content"] == answer_for(chat()) == lines[0]["answer"]
    assert (lines[0]["prompt"], lines[0]["delivered"]) == ("hello", True)
    assert lines[0]["sha"] == request_digest(chat()).hex()[:16]


def test_a_path_without_v1_is_the_same() -> None:
    response, _ = answer_to(request("/chat/completions", chat()))
    assert response.json()["object"] == "chat.completion"


def test_a_body_that_is_no_json_is_400() -> None:
    response, lines = answer_to(request("/v1/chat/completions", b"{"))
    assert (response.status, lines) == (400, [])


def test_a_surrogate_in_a_request_is_taken() -> None:
    response, lines = answer_to(chat_request("a\ud83d"))
    assert response.json()["choices"][0]["message"]["content"] == answer_for(chat("a\ud83d"))
    assert lines[0]["prompt"] == "a\ud83d"


@pytest.mark.parametrize(
    ("data", "status", "field"),
    [
        (request("/v1/models"), 200, "data"),
        (request("/healthz"), 200, "status"),
        (request("/stats"), 200, "requests"),
        (request("/nothing"), 404, "error"),
        (request("/v1/chat/completions"), 405, "error"),
        (request("/ledger?since=x"), 400, "error"),
    ],
)
def test_the_other_paths(data: bytes, status: int, field: str) -> None:
    response, _ = answer_to(data)
    assert response.status == status
    assert field in response.json()


def test_n_choices() -> None:
    response, lines = answer_to(chat_request(n=3))
    texts = [choice["message"]["content"] for choice in response.json()["choices"]]
    assert texts == lines[0]["answer"]
    assert len(set(texts)) == 3


def test_a_stream_adds_up_to_the_answer_and_ends_with_usage() -> None:
    response, lines = answer_to(chat_request(stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events(response)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == answer_for(chat())
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], lines[0]["completion_tokens"])
    assert lines[0]["delivered"] is True


def test_a_stream_without_the_option_tells_no_usage() -> None:
    response, _ = answer_to(chat_request(stream=True))
    assert all("usage" not in event for event in events(response))


def test_a_stream_may_take_its_time() -> None:
    async def scenario(running: Running) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
        async with connected(running.port) as wire:
            wire.writer.write(chat_request(stream=True))
            await wire.head()
            chunks = wire.chunks()
            await anext(chunks)
            assert running.provider.stats.in_flight == 1
            midway = await ledger(running)
            return len([chunk async for chunk in chunks]), midway, await ledger(running)

    settings = Settings(latency_per_token_s=0.001, answer_tokens=5)
    count, midway, after = run(scenario, settings)
    assert count >= 5
    assert [lines[0]["delivered"] for lines in (midway, after)] == [None, True]


def test_a_stream_is_in_flight_until_its_end() -> None:
    async def scenario(running: Running) -> tuple[int, int]:
        async with connected(running.port) as wire:
            first = await wire.ask(chat_request(stream=True))
            assert first.status == 200
            second = await wire.ask(chat_request(stream=True))
            return second.status, running.provider.stats.in_flight

    settings = Settings(latency_per_token_s=0.001, answer_tokens=2, max_concurrency=1)
    assert run(scenario, settings) == (200, 0)


def test_embeddings_as_floats_and_as_base64() -> None:
    body = {"model": "e", "input": ["a", "b"], "dimensions": 8}
    response, lines = answer_to(request("/v1/embeddings", body))
    assert [item["embedding"] for item in response.json()["data"]] == [embedding_for(text, 8, "e") for text in "ab"]
    assert lines[0]["prompt"] == ["a", "b"]
    response, _ = answer_to(request("/v1/embeddings", {**body, "encoding_format": "base64"}))
    packed = base64.b64decode(response.json()["data"][1]["embedding"])
    assert list(struct.unpack("<8f", packed)) == pytest.approx(embedding_for("b", 8, "e"), rel=1e-6)


def test_saturation_serves_in_order_and_drops_who_has_left() -> None:
    async def scenario(running: Running) -> tuple[list[str], int]:
        stats = running.provider.stats
        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(connected(running.port)) for _ in range(4)]
            for number, wire in enumerate(wires):
                wire.writer.write(chat_request(str(number)))
                await until(partial(lambda before: stats.in_flight > before, number))
            await wires[2].closed()
            await asyncio.gather(*(wires[number].response() for number in (0, 1, 3)))
            await until(lambda: stats.in_flight == 0)
            return [line["prompt"] for line in await ledger(running)], stats.in_flight_peak

    assert run(scenario, Settings(saturate_at=1, latency_s=0.01)) == (["0", "1", "3"], 4)


def test_control_changes_settings_and_refuses_unknown_ones() -> None:
    async def scenario(running: Running) -> list[int]:
        good = await ask(running.port, request("/control", {"faults": {"500": 1}}))
        spoilt = await ask(running.port, chat_request())
        bad = await ask(running.port, request("/control", {"fault": {}}))
        assert "did you mean 'faults'" in bad.json()["error"]["message"]
        assert good.json()["faults"] == {"500": 1}
        listed = await ask(running.port, request("/control", []))
        return [good.status, spoilt.status, bad.status, listed.status]

    assert run(scenario) == [200, 500, 400, 400]


def test_an_outage_leaves_the_way_back_open() -> None:
    async def scenario(running: Running) -> int:
        await ask(running.port, request("/control", {"down": True}))
        with pytest.raises(ConnectionResetError):
            await ask(running.port, chat_request())
        await ask(running.port, request("/control", {"down": False}))
        return (await ask(running.port, chat_request())).status

    assert run(scenario) == 200


def test_stats_count_what_happened() -> None:
    async def scenario(running: Running) -> dict[str, Any]:
        await ask(running.port, request("/v1/chat/completions", chat(), {"Authorization": "Bearer sk-canary"}))
        await ask(running.port, faulty("500"))
        found: dict[str, Any] = (await ask(running.port, request("/stats"))).json()
        return found

    stats = run(scenario)
    assert (stats["requests"], stats["billed"], stats["delivered"]) == (2, 1, 1)
    assert (stats["faults"], stats["rejected"]) == ({"500": 1}, {"500": 1})
    assert (stats["connections"], stats["in_flight"], stats["in_flight_peak"]) == (3, 0, 1)
    assert (sum(stats["requests_by_second"]), len(stats["authorization_sha256"])) == (2, 1)
    assert stats["completion_tokens"] > 16
    assert stats["cpu_s"] > 0


def test_the_ledger_can_be_read_from_a_number_on() -> None:
    async def scenario(running: Running) -> list[int]:
        for _ in range(3):
            await ask(running.port, chat_request())
        lines = (await ask(running.port, request("/ledger?since=1"))).body.splitlines()
        return [json.loads(line)["number"] for line in lines]

    assert run(scenario) == [2, 3]


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    try:
        subprocess.run([*shlex.split(MAKE_CERT), "-keyout", key, "-out", cert], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl that can make a certificate")

    async def scenario() -> tuple[str, int]:
        async with serve(Settings(), Binding(tls_cert=cert, tls_key=key)) as running:
            trust = ssl.create_default_context(cafile=cert)
            wire = Wire(*await asyncio.open_connection("127.0.0.1", running.port, ssl=trust))
            response = await wire.ask(chat_request())
            await wire.closed()
            return running.base_url, response.status

    base_url, status = asyncio.run(scenario())
    assert base_url.startswith("https://127.0.0.1:")
    assert status == 200
