"""The threads of a run: for a chain's blocking steps, and apart from them for what calls need themselves.

asyncio has one pool for all, of `cpus + 4` threads. Once as many rows wait in it for their calls, no call ever ends: LangChain
builds replies in a thread of the same pool, and names are resolved there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

MOST = 256
"""Threads of either kind. They are started when they are needed; containers often allow a thousand in all."""

in_a_call: ContextVar[bool] = ContextVar("lcbatch_in_a_call", default=False)
"""Whether a governed call is being made."""


class Threads(ThreadPoolExecutor):
    """A loop's default executor. What is submitted from within a call goes to a pool of its own."""

    def __init__(self, most: int, instead_of: ThreadPoolExecutor | None) -> None:
        super().__init__(most, thread_name_prefix="lcbatch-steps")
        self._of_calls = ThreadPoolExecutor(most, thread_name_prefix="lcbatch-calls")
        self.instead_of = instead_of
        self.runs = 0

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """As ThreadPoolExecutor's."""
        if in_a_call.get():
            return self._of_calls.submit(fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as it is there
        """As ThreadPoolExecutor's."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._of_calls.shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def threads_for_calls(most: int) -> Iterator[None]:
    """While inside, the running loop's default executor is a Threads; runs that overlap on a loop share it.

    A loop that had none before keeps it: asyncio would make one, and knows no way back to none.
    """
    loop = asyncio.get_running_loop()
    threads: Any = getattr(loop, "_default_executor", None)  # uvloop does not tell; our own run has its loop for itself
    if not isinstance(threads, Threads):
        threads = Threads(most, instead_of=threads)
        loop.set_default_executor(threads)
    threads.runs += 1
    try:
        yield
    finally:
        threads.runs -= 1
        if not threads.runs and threads.instead_of is not None:
            loop.set_default_executor(threads.instead_of)
            threads.shutdown(wait=False)
