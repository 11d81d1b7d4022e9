"""A file that was being read is closed, whenever the reading is given up."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lcbatch.records import Item
from lcbatch.sources.peek import Peeked
from lcbatch.sources.streams import file_chunks
from lcbatch.testing import ListSource


@pytest.fixture
def left_open() -> Iterator[list[str]]:
    """Files that nobody closed, as of the last `gc.collect()`."""
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: found.append(str(message))
        warnings.simplefilter("always", ResourceWarning)
        yield found


@asynccontextmanager
async def busy_threads() -> AsyncIterator[None]:
    """While inside, whatever is handed to a thread waits until we leave."""
    loop, free = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocking = loop.run_in_executor(None, free.wait)
    try:
        yield
    finally:
        free.set()
        await blocking


async def cancelled(task: asyncio.Future[Any], times: int) -> None:
    """Cancel it as a stop does, then a second one."""
    for _ in range(times):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_while_the_file_is_opened(
    tmp_path: Path, left_open: list[str], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A thread is at it, and cannot be called back."""
    (tmp_path / "in").write_text("x")
    begun, may_end = threading.Event(), threading.Event()

    def slow_open(*given: Any, **more: Any) -> Any:
        begun.set()
        may_end.wait()
        return open(*given, **more)  # noqa: PTH123 - as the library calls it

    async def main() -> None:
        task = asyncio.ensure_future(anext(file_chunks(tmp_path / "in")))
        await asyncio.sleep(0)  # it begins
        await asyncio.sleep(0)  # and so does its task
        begun.wait()
        await cancelled(task, times)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr("aiofiles.threadpool.sync_open", slow_open)
    asyncio.run(main())
    gc.collect()
    assert left_open == []


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_while_the_file_is_closed(tmp_path: Path, left_open: list[str], times: int) -> None:
    """No thread is free to close it: the close must not be given up with the reading."""
    (tmp_path / "in").write_text("x")

    async def main() -> None:
        chunks = file_chunks(tmp_path / "in")
        await anext(chunks)
        async with busy_threads():
            task = asyncio.create_task(chunks.aclose())
            await cancelled(task, times)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gc.collect()
    assert left_open == []


def test_given_up_at_the_batch_that_was_looked_at() -> None:
    """The first batch has been peeked at, and is all that is ever taken."""
    closed: list[bool] = []

    class Told(ListSource):
        async def batches(self) -> AsyncGenerator[list[Item]]:
            try:
                async for batch in super().batches():
                    yield batch
            finally:
                closed.append(True)

    async def main() -> None:
        source = Peeked(Told([Item({"text": "a"}, "in.jsonl:1")]))
        await source.row_model()
        async with aclosing(source.batches()) as batches:
            await anext(batches)
        # Looked at here: the end of the loop closes what was forgotten, too.
        assert closed == [True]

    asyncio.run(main())
