"""Models in threads and on other loops, and those that cannot be governed: told once, and answered all the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import run_in_executor

from lcbatch.calls.governed import governed
from lcbatch.ports import Call
from lcbatch.records import Reply, Request, RowScope, current_row
from lcbatch.testing import make_row
from tests.calls.governed_fakes import Model, Stacks, ainvoke, astream, in_a_row

# --- threads and loops


def test_sync_code_in_a_thread_is_governed() -> None:
    stacks, model = Stacks(), Model()
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda _: model.batch(["one", "two"]))
    said = in_a_row(stacks, lambda: chain.ainvoke(None))
    assert [one.content for one in said] == ["model!", "model!"]
    assert len(stacks.calls) == 2
    assert stacks.told == []


@pytest.mark.parametrize("call", [ainvoke, astream])
def test_another_loop_in_a_thread_is_governed(call: Callable[[Model], Any]) -> None:
    stacks, model, threads = Stacks(), Model(), set[int]()

    def note(_: Request) -> None:
        threads.add(threading.get_ident())

    stacks._refuse = note

    async def awaited() -> Any:
        return await call(model)

    in_a_row(stacks, lambda: asyncio.to_thread(lambda: asyncio.run(awaited())))
    assert threads == {threading.get_ident()}
    assert model.asked == ["whole"]
    assert stacks.told == []


class Threaded(Model):
    """Needs a thread for its reply, as ChatOpenAI does."""

    async def _agenerate(self, *args: Any, **options: Any) -> ChatResult:
        return await run_in_executor(None, self._generate, *args, **options)


def test_blocking_steps_do_not_take_the_threads_that_their_calls_need() -> None:
    stacks, model = Stacks(), Threaded()

    async def chain() -> None:
        async with asyncio.timeout(30):
            await asyncio.gather(*(asyncio.to_thread(model.invoke, "hello") for _ in range(8)))

    in_a_row(stacks, chain, threads=2)
    assert len(stacks.calls) == 8


def test_the_loop_has_its_own_executor_back_after_the_last_run() -> None:
    stacks = Stacks()

    async def run() -> None:
        before = ThreadPoolExecutor(1, thread_name_prefix="before")
        asyncio.get_running_loop().set_default_executor(before)
        first, second = (governed(stacks.of, tell=stacks.told.append) for _ in range(2))
        with first:
            with second:
                assert await asyncio.to_thread(_thread_name) == "lcbatch-steps_0"
            assert await asyncio.to_thread(_thread_name) == "lcbatch-steps_0"
        assert await asyncio.to_thread(_thread_name) == "before_0"

    asyncio.run(run())


def _thread_name() -> str:
    return threading.current_thread().name


def test_a_call_of_a_thread_ends_with_the_run() -> None:
    """The row was cut off; its thread is not to wait for ever, nor the process for the thread."""
    ended, called = threading.Event(), threading.Event()

    def call() -> None:
        try:
            Model().invoke("hello")
        finally:
            ended.set()

    async def never(request: Request) -> Reply:  # noqa: ARG001 - named as ports.Call names it
        called.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def stack_of(_: BaseChatModel) -> Call:
        return never

    async def run() -> None:
        with governed(stack_of, tell=lambda _: None):
            current_row.set(RowScope(make_row(0), 0.0))
            row = asyncio.create_task(asyncio.to_thread(call))
            assert await asyncio.to_thread(called.wait, 30)
            row.cancel()
        await asyncio.to_thread(ended.wait, 30)

    copy_context().run(asyncio.run, run())
    assert ended.is_set()


# --- what goes past


async def _invoke(model: Any) -> str:
    return str(model.invoke("hello").content)


async def _stream_here(model: Any) -> str:
    return "".join(str(chunk.text) for chunk in model.stream("hello"))


async def _started_here(model: Any) -> str:
    """A generator that is made in a thread, where it could be governed, and used on the loop, where it cannot."""
    chunks = await asyncio.to_thread(model.stream, "hello")
    return "".join(str(chunk.text) for chunk in chunks)


async def _batch(model: Any) -> str:
    return str(model.batch(["hello"] * 2)[0].content)


async def _joined(model: Any) -> str:
    """The usual helper that awaits from sync code: a loop in a thread, and the thread waited for."""
    context = copy_context()
    with ThreadPoolExecutor(1) as pool:
        return str(pool.submit(context.run, lambda: asyncio.run(model.ainvoke("hello"))).result().content)


async def _without_a_row(model: Any) -> str:
    said = await asyncio.get_running_loop().run_in_executor(None, model.invoke, "hello")
    return str(said.content)


async def _several(model: Any) -> str:
    return str((await model.bind(n=2).ainvoke("hello")).content)


@pytest.mark.parametrize(
    ("chain", "asked", "why"),
    [
        (_invoke, ["whole"], "a sync call on the event loop"),
        (_stream_here, ["stream"], "a sync call on the event loop"),
        (_started_here, ["stream"], "a sync call on the event loop"),
        (_batch, ["whole", "whole"], "the event loop stands still"),
        (_joined, ["whole"], "the event loop stands still"),
        (_without_a_row, ["whole"], "outside of any row"),
        (_several, ["whole{'n': 2}"], "n > 1"),
    ],
)
def test_what_goes_past_is_answered_and_told_once_for_each_model(
    chain: Callable[[Any], Awaitable[str]], asked: list[str], why: str
) -> None:
    stacks, models = Stacks(), [Model(), Model(), Model(name_="other")]

    async def row() -> list[str]:
        return [(await chain(model)).rstrip("!?") for model in models]

    assert in_a_row(stacks, row, patience_s=0.01) == ["model", "model", "other"]
    assert [model.asked for model in models] == [asked] * 3
    assert stacks.calls == []
    first, second = stacks.told
    assert first.startswith("fake:model is called past lcbatch")
    assert second.startswith("fake:other is called past lcbatch")
    assert why in first
    assert "no retries, limits, budget or stored answers" in first


def test_a_model_set_to_several_answers_is_told_and_passed() -> None:
    stacks, model = Stacks(), Model(n=3)
    in_a_row(stacks, lambda: model.ainvoke("hello"))
    assert stacks.calls == []
    assert len(stacks.told) == 1


@pytest.mark.parametrize("way", ["ainvoke", "astream", "invoke"])
def test_a_model_that_is_no_chat_model_is_told(way: str) -> None:
    stacks, model = Stacks(), FakeListLLM(responses=["said"] * 2)

    async def chain() -> None:
        for _ in range(2):
            found = getattr(model, way)("hello")
            if isinstance(found, AsyncIterator):
                [piece async for piece in found]
            elif isinstance(found, Awaitable):
                await found

    in_a_row(stacks, chain)
    (told,) = stacks.told
    assert "FakeListLLM" in told
    assert "no chat model" in told


def test_a_loop_that_is_merely_busy_is_waited_for() -> None:
    """Only one that hangs on another thread is gone past."""
    stacks, model, entered = Stacks(), Model(), threading.Event()

    async def chain() -> Any:
        def invoke() -> None:
            entered.set()
            model.invoke("hello")

        call = asyncio.create_task(asyncio.to_thread(invoke))
        assert await asyncio.to_thread(entered.wait, 30)
        end = asyncio.get_running_loop().time() + 0.1
        while asyncio.get_running_loop().time() < end:
            sum(range(1000))
        await call

    in_a_row(stacks, chain, patience_s=0.01)
    assert len(stacks.calls) == 1
    assert stacks.told == []


def test_a_call_in_another_run_s_row_is_left_to_that_run() -> None:
    """As a built-in chain's, which calls its stack itself: neither governed here nor told."""
    stacks, model = Stacks(), Model()

    async def run() -> None:
        elsewhere = copy_context()
        elsewhere.run(current_row.set, RowScope(make_row(0), 0.0))
        with governed(stacks.of, tell=stacks.told.append):
            await asyncio.get_running_loop().create_task(ainvoke(model), context=elsewhere)

    asyncio.run(run())
    assert model.asked == ["whole"]
    assert stacks.calls == []
    assert stacks.told == []
