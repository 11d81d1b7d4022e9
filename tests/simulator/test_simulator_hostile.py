"""Answers made to hurt: without end, small ones that unpack to large ones, and those that give the key back."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from lcbatch.simulator import hostile
from lcbatch.simulator.server import Running
from lcbatch.simulator.settings import Settings

from .wire import answer_to, ask, chat, chat_request, connected, faulty, request, run

_BOMB = Settings(gzipbomb_bytes=20_000_000)


def _read_of(fault: str, count: int) -> bytes:
    """So many bytes of what the fault sends."""

    async def scenario(running: Running) -> bytes:
        async with connected(running.port) as wire:
            wire.writer.write(faulty(fault))
            return await wire.reader.readexactly(count)

    return run(scenario)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("endless", b"xxxx"), ("endless-head", b"x-999: yyyy"), ("endless-hints", b"HTTP/1.1 103 Early Hints")],
)
def test_what_is_endless_goes_on_and_on(fault: str, said: bytes) -> None:
    sent = _read_of(fault, 3_000_000)
    assert said in sent[-1_999_000:]
    assert b"HTTP/1.1 200" in sent[:13] or fault == "endless-hints"


def test_hints_come_before_an_answer_that_is_whole() -> None:
    async def scenario(running: Running) -> list[int]:
        async with connected(running.port) as wire:
            wire.writer.write(faulty("hints"))
            return [(await wire.head())[0] for _ in range(101)]

    assert run(scenario) == [103] * 100 + [200]


def test_a_deflate_bomb_is_small_and_unpacks_to_its_size() -> None:
    response, lines = answer_to(faulty("deflatebomb"), _BOMB)
    assert (response.headers["content-encoding"], lines) == ("deflate", [])
    assert len(response.body) < 40_000
    assert len(zlib.decompress(response.body, wbits=-15)) == 20_000_000


def test_a_zstd_bomb_is_small_and_unpacks_to_its_size() -> None:
    zstandard = pytest.importorskip("zstandard")
    response, _ = answer_to(faulty("zstdbomb"), _BOMB)
    unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(response.body)
    assert (response.headers["content-encoding"], len(response.body) < 1000) == ("zstd", True)
    assert 20_000_000 <= len(unpacked) < 20_200_000


def test_nested_json_is_well_formed() -> None:
    assert hostile.nested(3).payload.endswith(b"\r\n\r\n[[[]]]")
    response, _ = answer_to(faulty("nested"))
    with pytest.raises(RecursionError):
        json.loads(response.body)


@pytest.mark.parametrize(("fault", "status"), [("echo", 401), ("echo-400", 400), ("echo-html", 200)])
def test_an_echo_quotes_the_key(fault: str, status: int) -> None:
    async def scenario(running: Running) -> Any:
        asked = request("/v1/chat/completions", chat(f"[[fault:{fault}]]"), {"Authorization": "Bearer sk-canary"})
        return await ask(running.port, asked)

    response = run(scenario)
    assert (response.status, b"Bearer sk-canary" in response.body) == (status, True)


def test_a_misdeclared_answer_is_billed_and_not_delivered() -> None:
    whole, _ = answer_to(chat_request("hello"))
    for fault in ("shortlength", "badgzip"):
        response, lines = answer_to(faulty(fault))
        assert [(line["fault"], line["delivered"]) for line in lines] == [(fault, False)]
        assert (response.body[-1:] == whole.body[-1:]) == (fault == "badgzip")
        assert response.headers.get("content-encoding") == ("gzip" if fault == "badgzip" else None)
