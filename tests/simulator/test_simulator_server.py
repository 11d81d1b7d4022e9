"""Paths, faults and the ledger over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lcbatch.simulator.answers import answer_for, request_digest
from lcbatch.simulator.embeddings import embedding_for
from lcbatch.simulator.server import Binding, Running, serve
from lcbatch.simulator.settings import Settings

from .wire import Loop, Response, Wire, ask, chat, chat_request, connected, request, run, until

both_loops = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


async def ledger(running: Running) -> list[dict[str, Any]]:
    lines = (await ask(running.port, request("/ledger"))).body.splitlines()
    return [json.loads(line) for line in lines]


def faulty(fault: str, **more: Any) -> bytes:
    return chat_request(f"[[fault:{fault}]]", **more)


def answer_to(data: bytes, settings: Settings | None = None) -> tuple[Response, list[dict[str, Any]]]:
    async def scenario(running: Running) -> tuple[Response, list[dict[str, Any]]]:
        return await ask(running.port, data), await ledger(running)

    return run(scenario, settings)


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
            midway = await ledger(running)
            return len([chunk async for chunk in chunks]), midway, await ledger(running)

    settings = Settings(latency_per_token_s=0.001, answer_tokens=5)
    count, midway, after = run(scenario, settings)
    assert count >= 5
    assert [lines[0]["delivered"] for lines in (midway, after)] == [None, True]


def test_embeddings_as_floats_and_as_base64() -> None:
    body = {"model": "e", "input": ["a", "b"], "dimensions": 8}
    response, lines = answer_to(request("/v1/embeddings", body))
    assert [item["embedding"] for item in response.json()["data"]] == [embedding_for(text, 8, "e") for text in "ab"]
    assert lines[0]["prompt"] == ["a", "b"]
    response, _ = answer_to(request("/v1/embeddings", {**body, "encoding_format": "base64"}))
    packed = base64.b64decode(response.json()["data"][1]["embedding"])
    assert list(struct.unpack("<8f", packed)) == pytest.approx(embedding_for("b", 8, "e"), rel=1e-6)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("500", 500, None),
        ("503", 503, None),
        ("503-slow-down", 503, "slow_down"),
        ("529", 529, None),
        ("429", 429, "rate_limit_exceeded"),
        ("quota", 429, "insufficient_quota"),
        ("auth", 401, "invalid_api_key"),
        ("forbidden", 403, "unsupported_country_region_territory"),
        ("notfound", 404, "model_not_found"),
        ("context", 400, "context_length_exceeded"),
        ("errbody", 200, 502),
    ],
)
def test_refusals_have_openais_body_and_are_not_billed(fault: str, status: int, code: Any) -> None:
    response, lines = answer_to(faulty(fault))
    assert (response.status, response.json()["error"]["code"], lines) == (status, code, [])
    assert ("retry-after" in response.headers) == (fault in {"503-slow-down", "529", "429"})


def test_html_and_redirect_are_not_billed() -> None:
    response, lines = answer_to(faulty("html"))
    assert (response.status, response.body[:15], lines) == (200, b"<!DOCTYPE html>", [])
    response, lines = answer_to(faulty("redirect"), Settings(redirect_to="http://x.invalid/"))
    assert (response.status, response.headers["location"], lines) == (307, "http://x.invalid/", [])


def test_a_gzip_bomb_is_small_and_unpacks_to_its_size() -> None:
    response, lines = answer_to(faulty("gzipbomb"), Settings(gzipbomb_bytes=20_000_000))
    assert len(response.body) < 40_000
    assert (response.headers["content-encoding"], len(gzip.decompress(response.body)), lines) == (
        "gzip",
        20_000_000,
        [],
    )


@pytest.mark.parametrize(
    ("fault", "content", "finish"),
    [("filter", "", "content_filter"), ("empty", "", "stop"), ("refusal", None, "stop")],
)
def test_answers_without_content_are_billed(fault: str, content: Any, finish: str) -> None:
    response, lines = answer_to(faulty(fault))
    choice = response.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, finish)
    assert (len(lines), lines[0]["fault"], lines[0]["delivered"]) == (1, fault, True)


@pytest.mark.parametrize(("fault", "escape"), [("surrogate", b"\\ud83d"), ("nul", b"\\u0000")])
def test_answers_with_forbidden_characters_stand_in_the_ledger_as_they_went_out(fault: str, escape: bytes) -> None:
    response, lines = answer_to(faulty(fault))
    assert escape in response.body
    assert response.json()["choices"][0]["message"]["content"] == lines[0]["answer"]


@both_loops
def test_a_big_answer_arrives_whole(loop: Loop) -> None:
    async def scenario(running: Running) -> tuple[Response, list[dict[str, Any]]]:
        return await ask(running.port, faulty("big")), await ledger(running)

    response, lines = run(scenario, Settings(big_bytes=9_000_000), loop)
    assert len(response.json()["choices"][0]["message"]["content"]) == 9_000_000
    assert lines[0]["delivered"] is True


def test_broken_json_for_a_schema() -> None:
    response, lines = answer_to(faulty("brokenschema", response_format={"type": "json_object"}))
    content = response.json()["choices"][0]["message"]["content"]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(content)
    assert lines[0]["answer"] == content


@pytest.mark.parametrize("stream", [False, True])
def test_bad_json_is_well_framed_billed_and_not_delivered(stream: bool) -> None:  # noqa: FBT001  a table's column
    response, lines = answer_to(faulty("badjson", stream=stream))
    assert response.status == 200
    parts = response.body.decode().split("\n\n") if stream else ["data: " + response.body.decode()]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        [json.loads(part.removeprefix("data: ")) for part in parts]
    assert lines[0]["delivered"] is False


def test_a_drip_arrives_whole_and_is_delivered_at_its_end() -> None:
    response, lines = answer_to(faulty("drip"), Settings(drip_interval_s=1e-6))
    assert response.json()["choices"][0]["message"]["content"] == lines[0]["answer"]
    assert lines[0]["delivered"] is True


@pytest.mark.parametrize("fault", ["cut", "badlength"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_ends_too_early_is_billed_and_not_delivered(fault: str, stream: bool) -> None:  # noqa: FBT001  a table's column
    async def scenario(running: Running) -> tuple[bytes, list[dict[str, Any]]]:
        async with connected(running.port) as wire:
            wire.writer.write(faulty(fault, stream=stream))
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await wire.response()
            return caught.value.partial, await ledger(running)

    _, lines = run(scenario)
    assert [line["delivered"] for line in lines] == [False]


@both_loops
@pytest.mark.parametrize("fault", ["reset", "down"])
def test_a_reset_comes_before_any_reply_and_is_not_billed(fault: str, loop: Loop) -> None:
    async def scenario(running: Running) -> list[dict[str, Any]]:
        async with connected(running.port) as wire:
            wire.writer.write(faulty(fault))
            with pytest.raises(ConnectionResetError):
                await wire.reader.read()
            return await ledger(running)

    assert run(scenario, loop=loop) == []


@both_loops
@pytest.mark.parametrize(("fault", "billed"), [("hang", 0), ("hang-billed", 1)])
def test_a_hang_lasts_until_the_client_goes_away(fault: str, billed: int, loop: Loop) -> None:
    async def scenario(running: Running) -> list[dict[str, Any]]:
        stats = running.provider.stats
        async with connected(running.port) as wire:
            wire.writer.write(faulty(fault))
            await until(lambda: stats.in_flight == 1)
        await until(lambda: stats.in_flight == 0)
        return await ledger(running)

    assert [line["delivered"] for line in run(scenario, loop=loop)] == [False] * billed


async def _leave(wire: Wire) -> None:
    await wire.closed()


async def _die(wire: Wire) -> None:
    raw: socket.socket = wire.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.writer.transport.abort()


@both_loops
@pytest.mark.parametrize("leave", [_leave, _die])
@pytest.mark.parametrize("abandoned", [True, False])
def test_a_client_that_leaves_during_the_work_gets_nothing_delivered(
    leave: Callable[[Wire], Any],
    abandoned: bool,  # noqa: FBT001  a table's column
    loop: Loop,
) -> None:
    async def scenario(running: Running) -> list[dict[str, Any]]:
        stats = running.provider.stats
        async with connected(running.port) as wire:
            wire.writer.write(chat_request())
            await until(lambda: stats.in_flight == 1)
            await leave(wire)
        await until(lambda: stats.in_flight == 0)
        return await ledger(running)

    lines = run(scenario, Settings(latency_s=0.01, bill_abandoned=abandoned), loop)
    assert [line["delivered"] for line in lines] == [False] * abandoned


@both_loops
def test_an_answer_that_a_dead_client_never_read_is_not_delivered(loop: Loop) -> None:
    async def scenario(running: Running) -> list[dict[str, Any]]:
        stats, book = running.provider.stats, running.provider.ledger
        client = socket.create_connection(("127.0.0.1", running.port))
        with client:
            client.sendall(chat_request())
            await until(lambda: book.delivered == 1)
        await until(lambda: stats.connections_now == 0)
        return await ledger(running)

    assert [line["delivered"] for line in run(scenario, loop=loop)] == [False]


@both_loops
def test_an_answer_that_was_read_stays_delivered_when_the_client_closes(loop: Loop) -> None:
    async def scenario(running: Running) -> list[dict[str, Any]]:
        await ask(running.port, chat_request())
        await until(lambda: running.provider.stats.connections_now == 0)
        return await ledger(running)

    assert [line["delivered"] for line in run(scenario, loop=loop)] == [True]


def test_a_client_that_reads_nothing_of_a_big_answer_and_leaves() -> None:
    async def scenario(running: Running) -> list[dict[str, Any]]:
        async with connected(running.port) as wire:
            wire.writer.write(faulty("big"))
            await until(lambda: running.provider.ledger.billed == 1)
            await _die(wire)
        await until(lambda: running.provider.stats.connections_now == 0)
        return await ledger(running)

    assert [line["delivered"] for line in run(scenario, Settings(big_bytes=20_000_000))] == [False]


def test_saturation_serves_in_order_and_drops_who_has_left() -> None:
    async def scenario(running: Running) -> tuple[list[str], int]:
        stats = running.provider.stats
        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(connected(running.port)) for _ in range(4)]
            for number, wire in enumerate(wires):
                wire.writer.write(chat_request(str(number)))
                await until(lambda number=number: stats.in_flight == number + 1)  # type: ignore[misc]  a bound default
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


def test_closing_settles_what_is_on_its_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"

    async def scenario() -> None:
        async with serve(Settings(), Binding(ledger_file=path)) as running, connected(running.port) as wire:
            wire.writer.write(faulty("hang-billed"))
            await until(lambda: running.provider.ledger.billed == 1)

    asyncio.run(scenario())
    assert json.loads(path.read_text())["delivered"] is False


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    try:
        subprocess.run(  # noqa: S603  a fixed command
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "1",
            ]  # noqa: S607  wherever it is
            + ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )
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
