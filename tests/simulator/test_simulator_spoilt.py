"""Every fault as it looks on the wire, and what the ledger says of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from lcbatch.simulator.server import Running
from lcbatch.simulator.settings import Settings

from .wire import (
    Loop,
    Response,
    answer_to,
    ask,
    both_loops,
    connected,
    faulty,
    ledger,
    run,
)


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
