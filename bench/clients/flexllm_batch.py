"""flexllm's batch, with its checkpoint file and its progress, its own limit of requests a second taken away."""

from __future__ import annotations

import asyncio

from flexllm import LLMClient  # type: ignore[import-not-found]  # installed in an environment of its own

from bench.clients.common import MODEL, messages_for, task_from_argv


async def main() -> None:
    task = task_from_argv()
    client = LLMClient(
        model=MODEL,
        base_url=task.base_url,
        api_key=task.api_key,
        concurrency_limit=task.concurrency,
        max_qps=None,
    )
    async with client:
        results = await client.chat_batch(list(map(messages_for, task.rows())), output_jsonl=str(task.out))
        results.raise_for_errors()


if __name__ == "__main__":
    asyncio.run(main())
