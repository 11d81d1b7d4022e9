"""What counts as delivered, with clients that leave at every bad moment."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.provider import Work
from lcbatch.simulator.replies import Reply
from lcbatch.simulator.server import Binding, Running, serve
from lcbatch.simulator.settings import Settings

from .wire import (
    Loop,
    Wire,
    ask,
    both_loops,
    chat_request,
    connected,
    faulty,
    ledger,
    run,
    until,
)


async def _leave(wire: Wire) -> None:
    await wire.closed()


async def _die(wire: Wire) -> None:
    raw: socket.socket = wire.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.writer.transport.abort()


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
def test_a_client_that_leaves_while_the_server_is_busy_gets_nothing_delivered(loop: Loop) -> None:
    """The client is gone when the answer's timer fires, but the loop has not looked at its socket yet."""

    async def scenario(running: Running) -> list[dict[str, Any]]:
        stats = running.provider.stats
        client = socket.create_connection(("127.0.0.1", running.port))
        with client:
            client.sendall(chat_request())
            await until(lambda: stats.in_flight == 1)
        time.sleep(0.01)  # noqa: ASYNC251  the loop has to be late
        await until(lambda: stats.connections_now == 0 and stats.in_flight == 0)
        return await ledger(running)

    assert [line["delivered"] for line in run(scenario, Settings(latency_s=0.005), loop)] == [False]


@both_loops
def test_a_client_that_leaves_at_the_instant_of_the_answer_gets_nothing_delivered(loop: Loop) -> None:
    """Its end of file is in our socket, unseen, when the answer is written: the kernel takes the bytes all the same."""

    async def scenario(running: Running) -> list[dict[str, Any]]:
        provider = running.provider
        finish = provider.finish
        client = socket.create_connection(("127.0.0.1", running.port))

        def finish_too_late(work: Work, now: float) -> Reply:
            client.close()
            return finish(work, now)

        with client, pytest.MonkeyPatch.context() as patch:
            patch.setattr(provider, "finish", finish_too_late)
            client.sendall(chat_request())
            await until(lambda: provider.ledger.billed == 1 and provider.stats.connections_now == 0)
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


def test_closing_settles_what_is_on_its_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"

    async def scenario() -> None:
        async with serve(Settings(), Binding(ledger_file=path)) as running, connected(running.port) as wire:
            wire.writer.write(faulty("hang-billed"))
            await until(lambda: running.provider.ledger.billed == 1)

    asyncio.run(scenario())
    assert json.loads(path.read_text())["delivered"] is False
