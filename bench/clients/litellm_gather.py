"""litellm's acompletion, gathered under a semaphore, which is how its documentation has it done."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm  # type: ignore[import-not-found]  # installed in an environment of its own

from bench.clients.common import MODEL, line_for, messages_for, task_from_argv


async def main() -> None:
    task = task_from_argv()
    slot = asyncio.Semaphore(task.concurrency)
    with task.out.open("w") as out:

        async def one(row: dict[str, Any]) -> None:
            async with slot:
                response = await litellm.acompletion(
                    model=f"openai/{MODEL}", messages=messages_for(row), base_url=task.base_url, api_key=task.api_key
                )
            out.write(line_for(row, response.choices[0].message.content))

        await asyncio.gather(*map(one, task.rows()))


if __name__ == "__main__":
    asyncio.run(main())
