"""What each path means: model calls go to the provider and come back after their latency, the others are answered at
once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from lcbatch.simulator.http import Connection, Request
from lcbatch.simulator.provider import Kind, Provider, Work
from lcbatch.simulator.replies import LAST_CHUNK, ApiError, Reply, error_reply, framed, head, json_reply
from lcbatch.simulator.settings import SettingsError

_KINDS: Final[dict[str, Kind]] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/embeddings": "embeddings",
    "/embeddings": "embeddings",
}

# How long a ledger file may lag behind: a write for each call would be most of that call's cost.
_FLUSH_S: Final = 0.2


class Front:
    """Routes requests, keeps their time on the loop and sees that every admitted call is released once."""

    def __init__(
        self,
        provider: Provider,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._loop = loop
        self._clock = clock
        self._connections: set[Connection] = set()
        self._nobody = asyncio.Event()
        self._waiting: dict[Work, Connection] = {}
        self._hanging: set[Connection] = set()
        self._unfinished: set[int] = set()
        self._flushing = False
        self._seen = ""
        self._answers: dict[tuple[str, str], Callable[[Request], Reply]] = {
            ("GET", "/models"): self._models,
            ("GET", "/stats"): self._stats,
            ("GET", "/ledger"): self._ledger,
            ("GET", "/healthz"): lambda _: json_reply(200, {"status": "ok"}),
            ("POST", "/control"): self._control,
        }

    def on_request(self, connection: Connection, request: Request) -> None:
        kind = _KINDS.get(request.head.path)
        if kind is None or request.head.method != "POST":
            connection.send(self._answer(request))
            return
        now = self._clock()
        provider = self._provider
        authorization = request.head.authorization
        if authorization and authorization != self._seen:
            self._seen = authorization
            provider.stats.saw_key(authorization)
        if provider.settings.down:
            provider.stats.arrived(now)
            provider.stats.rejected["down"] += 1
            connection.send(Reply(b"", ending="reset"))
            return
        outcome = provider.admit(kind, _parse(request.body), authorization, now)
        if isinstance(outcome, Work):
            self._start(outcome, connection)
        else:
            connection.send(outcome)

    def on_settled(self, number: int, *, delivered: bool) -> None:
        ledger = self._provider.ledger
        ledger.settle(number, delivered=delivered)
        if number in self._unfinished:
            self._unfinished.remove(number)
            self._release()
        if ledger.writes and not self._flushing:
            self._flushing = True
            self._loop.call_later(_FLUSH_S, self._flush)

    def on_unread(self, number: int) -> None:
        self._provider.ledger.retract(number)

    def on_opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        stats = self._provider.stats
        stats.connections += 1
        stats.connections_now += 1

    def on_lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._provider.stats.connections_now -= 1
        if not self._connections:
            self._nobody.set()
        if connection in self._hanging:
            self._hanging.remove(connection)
            self._release()

    async def disconnect(self) -> None:
        """Drop every client, and wait until the ledger knows what did not reach them."""
        self._nobody.clear()
        for connection in self._connections:
            connection.abort()
        if self._connections:
            await self._nobody.wait()

    def _start(self, work: Work, connection: Connection) -> None:
        if self._provider.start(work):
            self._serve(work, connection)
        else:
            self._waiting[work] = connection

    def _serve(self, work: Work, connection: Connection) -> None:
        latency_s = self._provider.latency_s(work)
        if latency_s > 0:
            self._loop.call_later(latency_s, self._finish, work, connection)
        else:
            self._finish(work, connection)

    def _finish(self, work: Work, connection: Connection) -> None:
        provider = self._provider
        if not connection.lost or provider.settings.bill_abandoned:
            reply = provider.finish(work, self._clock())
            if reply.number and (reply.pieces is not None or reply.ending == "hang"):
                self._unfinished.add(reply.number)
                connection.send(reply)
                return
            connection.send(reply)
            if reply.ending == "hang" and not connection.lost:
                self._hanging.add(connection)
                return
        self._release()

    def _release(self) -> None:
        self._begin(self._provider.release())

    def _begin(self, works: list[Work]) -> None:
        for work in works:
            connection = self._waiting.pop(work)
            # Not at once: a long line of works without latency would nest as deep as it is long.
            if connection.lost:
                # Nobody had begun it, so nobody pays for it.
                self._loop.call_soon(self._release)
            else:
                self._loop.call_soon(self._serve, work, connection)

    def _flush(self) -> None:
        self._flushing = False
        self._provider.ledger.flush()

    def _answer(self, request: Request) -> Reply:
        path = request.head.path.removeprefix("/v1")
        answer = self._answers.get((request.head.method, path))
        if answer is not None:
            return answer(request)
        if request.head.path in _KINDS or any(path == known for _, known in self._answers):
            return error_reply(405, ApiError(f"Not allowed: {request.head.method} {request.head.path}"))
        return error_reply(
            404, ApiError(f"Invalid URL ({request.head.method} {request.head.path})", code="unknown_url")
        )

    def _models(self, _: Request) -> Reply:
        models = [
            {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "lcbatch"}
            for name in self._provider.settings.models
        ]
        return json_reply(200, {"object": "list", "data": models})

    def _stats(self, _: Request) -> Reply:
        ledger = self._provider.ledger
        ledger.flush()
        sums = {
            "billed": ledger.billed,
            "delivered": ledger.delivered,
            "prompt_tokens": ledger.prompt_tokens,
            "completion_tokens": ledger.completion_tokens,
            "cpu_s": time.process_time(),
        }
        return json_reply(200, self._provider.stats.as_json(self._clock()) | sums)

    def _ledger(self, request: Request) -> Reply:
        ledger = self._provider.ledger
        ledger.flush()
        try:
            since = int(parse_qs(request.head.query).get("since", ["0"])[0])
        except ValueError:
            return error_reply(400, ApiError("since must be a number"))
        return Reply(head(200, None, content_type="application/x-ndjson"), pieces=_framed_all(ledger.lines(since)))

    def _control(self, request: Request) -> Reply:
        changes = _parse(request.body)
        if not isinstance(changes, dict):
            return error_reply(400, ApiError("a JSON object of settings is needed"))
        try:
            self._provider.reconfigure(changes, self._clock())
        except SettingsError as exc:
            return error_reply(400, ApiError(str(exc), code="bad_setting"))
        self._begin(self._provider.startable())
        return json_reply(200, self._provider.settings.as_json())


def _framed_all(blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield from (framed(block) for block in blocks if block)
    yield LAST_CHUNK


def _parse(body: bytes) -> Any:
    """The JSON in a body, or None where there is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        # The standard library takes what orjson refuses and clients send: lone surrogate escapes.
        return json.loads(body)
    except ValueError:
        return None
