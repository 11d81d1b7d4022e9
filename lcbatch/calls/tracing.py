"""Tracing to LangSmith, bounded: an endpoint that is dead costs a run a moment and one warning.

LangSmith's own client retries, waits up to a minute for an answer, and writes a log line for every batch of traces: 300 runs of
nothing took 58.8 s against 1.5 s while its endpoint was out of reach. For the time of a run a client of ours stands in its place.
Once the endpoint has failed, rows are not traced any more, and so go the short way again; after a while it is tried once more.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lcbatch.ports import Clock

if TYPE_CHECKING:
    from langsmith import Client

Bound = Callable[[], AbstractAsyncContextManager[None]]
"""Goes around one row's work."""

Tell = Callable[[str], None]
"""Is told one sentence for the user, on the run's loop."""

_CONNECT_S, _FIRST_S, _READ_S = 1.0, 1.0, 1.5
"""Longest waits for a connection, for the first answer, and for others. The thread that waits is LangSmith's, and holds the
process up at its end for as long: a run may cost 2 s more."""

_REST_S = 60.0
"""How long an endpoint that failed is left in peace: each time that it is tried again some rows take LangChain's long way."""

_LAST_S = 10.0
"""Longest wait at a run's end for traces that are still to be sent, as long as the endpoint takes them."""

_STEP_S = 0.2
_KEY_REFUSED = frozenset({401, 403})
_NOT_FOUND = 404
_SERVERS_FAULT = 500
_NAMES = ("LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING", "LANGCHAIN_TRACING")


class Tracing:
    """What a run's traces are sent with, and whether their endpoint is there. Sent from LangSmith's threads."""

    def __init__(self, clock: Clock, tell: Tell) -> None:
        self.host = ""
        self._clock = clock
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._down_until_s: float | None = None
        self._told = False
        self._read_s = _FIRST_S
        self._over = False

    @property
    def is_down(self) -> bool:
        """Whether nothing is to be sent now."""
        return self._over or (self._down_until_s is not None and self._clock() < self._down_until_s)

    def row(self, bound: Bound) -> Bound:
        """The same around a row's work, which is not traced while the endpoint is down."""

        @asynccontextmanager
        async def around() -> AsyncIterator[None]:
            if not self.is_down:
                async with bound():
                    yield
                return
            from langsmith.run_helpers import get_tracing_context, tracing_context  # noqa: PLC0415 - loads late

            with tracing_context(**{**get_tracing_context(), "enabled": False}):
                async with bound():
                    yield

        return around

    def sending(self, send: Callable[..., Any]) -> Callable[..., Any]:
        """`requests.Session.send`, with waits that are bounded, and none for an endpoint that is down."""
        from requests import ConnectionError as NoConnection  # noqa: PLC0415

        def bounded(request: Any, **options: Any) -> Any:
            if self.is_down:
                raise NoConnection("not sent: the endpoint is down, or the run is over")
            try:
                response = send(request, **{**options, "timeout": (_CONNECT_S, self._read_s)})
            except Exception as error:
                self._failed(type(error).__name__)
                raise
            status, self._read_s = response.status_code, _READ_S
            # Its older way, which it takes where /runs/multipart is not found.
            nobody = status == _NOT_FOUND and request.url.endswith("/runs/batch")
            if nobody or status in _KEY_REFUSED or status >= _SERVERS_FAULT:
                self._failed(f"HTTP {status}")
            else:
                self._down_until_s = None
            return response

        return bounded

    async def end(self, client: Client) -> None:
        """Send what is left, unless the endpoint is down, and let LangSmith's threads go."""
        try:
            for _ in range(int(_LAST_S / _STEP_S)):
                queue = client.tracing_queue
                if self.is_down or queue is None or not queue.unfinished_tasks:
                    break
                await asyncio.to_thread(client.flush, _STEP_S)
            await asyncio.to_thread(client.close, _STEP_S)
        finally:
            self._over = True

    def _failed(self, why: str) -> None:
        self._down_until_s = self._clock() + _REST_S
        if not self._told and not self._over:
            self._told = True
            self._loop.call_soon_threadsafe(self._say_down, why)

    def _say_down(self, why: str) -> None:
        self._tell(f"LangSmith at {self.host} cannot be reached ({why}); rows go untraced until it can")


def is_on(env: Mapping[str, str]) -> bool:
    """Whether chains are traced. Loads nothing where nobody asks for it."""
    utils = sys.modules.get("langsmith.utils")
    if utils is None and not any(env.get(name, "").lower() == "true" for name in _NAMES):
        return False
    from langsmith.utils import tracing_is_enabled  # noqa: PLC0415 - loads late

    try:
        return bool(tracing_is_enabled())
    except Exception:  # noqa: BLE001 - how LangChain refuses a form of tracing that it no longer knows, it says itself
        return False


@asynccontextmanager
async def traced(clock: Clock, tell: Tell, announce: Tell) -> AsyncIterator[Tracing | None]:
    """While inside, traces go through a client of ours; None where the user has set one up.

    `announce` is told that they go out and where to, `tell` what becomes of them.
    """
    from langsmith import Client, run_trees  # noqa: PLC0415 - loads late
    from langsmith.run_helpers import get_tracing_context, tracing_context  # noqa: PLC0415
    from requests import Session  # noqa: PLC0415
    from urllib3.util import Retry  # noqa: PLC0415

    around = get_tracing_context()
    if around.get("client") is not None or run_trees._CLIENT is not None:  # noqa: SLF001 - a user's own is left to its settings
        announce("tracing to LangSmith is on, with a client that your own code has set up")
        yield None
        return
    tracing, session = Tracing(clock, tell), Session()
    vars(session)["send"] = tracing.sending(session.send)  # found before the class's
    with _logs_unheard():
        try:
            client = Client(session=session, retry_config=Retry(total=0))
        except Exception as error:  # noqa: BLE001 - no key, a bad address: the run does not depend on it
            tell(f"tracing to LangSmith is on and cannot begin: {error}")
            yield None
            return
        tracing.host = urlsplit(client.api_url).netloc
        announce(f"tracing to LangSmith at {tracing.host}: inputs and outputs of all steps are sent there")
        try:
            with tracing_context(**{**around, "client": client}):
                yield tracing
        finally:
            await tracing.end(client)


@contextmanager
def _logs_unheard() -> Iterator[None]:
    """LangSmith warns for every batch. What there is to say of its endpoint is said once, by us."""
    logger, silence = logging.getLogger("langsmith"), logging.NullHandler()
    propagate = logger.propagate
    logger.addHandler(silence)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(silence)
