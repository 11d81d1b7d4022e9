"""A plain script in the manner of the parallel request processor in the OpenAI cookbook, written anew for this bench.

What it has in common with that one: requests are read one by one, an estimate of their tokens is taken from a budget of
requests and tokens a minute (both set out of reach here), each becomes a task of its own, the loop sleeps a millisecond
between two, answers are appended to a JSONL file that is opened for each of them, and failed calls are tried again up to five
times. What it has more: a bound on the calls in flight and a connection pool of that size, without which it could not be
compared. What neither has: a template, resume, or anything that makes an answer safe on disk.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.clients.common import MODEL, Task, messages_for, task_from_argv

_PAUSE_S = 0.001
_ATTEMPTS = 5
_REQUESTS_A_MINUTE = 100_000_000.0
_TOKENS_A_MINUTE = 10_000_000_000.0


@dataclass
class Budget:
    """Requests and tokens that may be used now; refills with time up to a minute's worth."""

    requests: float = _REQUESTS_A_MINUTE
    tokens: float = _TOKENS_A_MINUTE
    at_s: float = field(default_factory=time.monotonic)

    def takes(self, tokens: int) -> bool:
        now = time.monotonic()
        share = (now - self.at_s) / 60
        self.at_s = now
        self.requests = min(_REQUESTS_A_MINUTE, self.requests + share * _REQUESTS_A_MINUTE)
        self.tokens = min(_TOKENS_A_MINUTE, self.tokens + share * _TOKENS_A_MINUTE)
        if self.requests < 1 or self.tokens < tokens:
            return False
        self.requests -= 1
        self.tokens -= tokens
        return True


def estimated_tokens(request: dict[str, Any]) -> int:
    return sum(4 + len(message["content"]) // 4 for message in request["messages"])


async def call(session: aiohttp.ClientSession, task: Task, request: dict[str, Any], slot: asyncio.Semaphore) -> None:
    try:
        for attempt in range(_ATTEMPTS):
            async with session.post(f"{task.base_url}/chat/completions", json=request) as response:
                answer = await response.json()
            if "error" not in answer:
                break
            await asyncio.sleep(2**attempt)
        with task.out.open("a") as out:
            out.write(json.dumps([request, answer]) + "\n")
    finally:
        slot.release()


async def main() -> None:
    task = task_from_argv()
    budget = Budget()
    slot = asyncio.Semaphore(task.concurrency)
    connector = aiohttp.TCPConnector(limit=task.concurrency)
    headers = {"Authorization": f"Bearer {task.api_key}"}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        asyncio.TaskGroup() as calls,
    ):
        for row in task.rows():
            request = {"model": MODEL, "messages": messages_for(row)}
            tokens = estimated_tokens(request)
            while not budget.takes(tokens):  # noqa: ASYNC110 - it polls, as the original does
                await asyncio.sleep(_PAUSE_S)
            await slot.acquire()
            calls.create_task(call(session, task, request, slot))
            await asyncio.sleep(_PAUSE_S)


if __name__ == "__main__":
    asyncio.run(main())
