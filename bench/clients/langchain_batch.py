"""LangChain's own ways to run a chain over many rows; the fourth argument says which: abatch, as-completed or gather."""

from __future__ import annotations

import asyncio
import sys

from langchain_core.runnables import RunnableConfig

from bench.clients.common import Task, line_for, task_from_argv
from bench.clients.user_chain import chain


async def abatch(task: Task) -> None:
    rows = list(task.rows())
    answers = await chain.abatch(rows, RunnableConfig(max_concurrency=task.concurrency))
    with task.out.open("w") as out:
        out.writelines(line_for(row, answer) for row, answer in zip(rows, answers, strict=True))


async def as_completed(task: Task) -> None:
    rows = list(task.rows())
    config = RunnableConfig(max_concurrency=task.concurrency)
    with task.out.open("w") as out:
        async for place, answer in chain.abatch_as_completed(rows, config):
            out.write(line_for(rows[place], answer))


async def gather(task: Task) -> None:
    slot = asyncio.Semaphore(task.concurrency)
    with task.out.open("w") as out:

        async def one(row: dict[str, str]) -> None:
            async with slot:
                answer = await chain.ainvoke(row)
            out.write(line_for(row, answer))

        await asyncio.gather(*map(one, task.rows()))


if __name__ == "__main__":
    way = {"abatch": abatch, "as-completed": as_completed, "gather": gather}[sys.argv[4]]
    asyncio.run(way(task_from_argv()))
