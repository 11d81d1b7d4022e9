"""The bare HTTP call over aiohttp: a pool of workers that post a row and read the answer's bytes, and keep nothing."""

from __future__ import annotations

import asyncio

import aiohttp

from bench.clients.common import MODEL, messages_for, task_from_argv


async def main() -> None:
    task = task_from_argv()
    rows = task.rows()
    url = f"{task.base_url}/chat/completions"
    headers = {"Authorization": f"Bearer {task.api_key}"}

    async def worker(session: aiohttp.ClientSession) -> None:
        for row in rows:
            async with session.post(url, json={"model": MODEL, "messages": messages_for(row)}) as response:
                response.raise_for_status()
                await response.read()

    connector = aiohttp.TCPConnector(limit=task.concurrency)
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session,
        asyncio.TaskGroup() as workers,
    ):
        for _ in range(task.concurrency):
            workers.create_task(worker(session))


if __name__ == "__main__":
    asyncio.run(main())
