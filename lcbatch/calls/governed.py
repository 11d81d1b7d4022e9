"""Every chat model that runs inside a user's own chain, governed: what it asks of its provider goes through a call stack.

LangChain's base class comes to a model's own code in a few places, each time through `self`. In a row they work on a stand-in,
which has all of the model's state and takes its generating steps from the call stack. All else stays LangChain's: callbacks,
tracing, ids, output versions, its cache, and streaming, where the stand-in's stream is one chunk, the whole reply. A wrapper
around the model would not do: it breaks `bind_tools` and structured output, and cannot reach a model that is built inside a
function or an agent. Outside of a row nothing is changed.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.utils.utils import LC_ID_PREFIX

from lcbatch.calls.failures import failure_of, is_providers
from lcbatch.calls.hooks import hooked
from lcbatch.calls.standin import Asked, LoopWaits, is_stand_in, stand_in, whole_replies
from lcbatch.calls.threads import MOST, in_a_call, threads_for_calls
from lcbatch.errors import CallFailed
from lcbatch.messages import answer_of, message_of
from lcbatch.ports import Call
from lcbatch.records import Answer, Json, Reply, Request, current_row, current_step

StackOf = Callable[[BaseChatModel], Call]
"""Builds the call stack for a model and all others of its account; its innermost layer calls `ask`."""

Quiet = Callable[[BaseChatModel], BaseChatModel]
"""Gives the model to ask in another's place: the same, without retries of its own."""

Tell = Callable[[str], None]
"""Is told one sentence for the user, on the run's loop."""

_PATIENCE_S = 1.0
"""How long a call from another thread stands in front of a loop that does nothing but wait for a thread."""

_ON_THE_LOOP = (
    "a sync call on the event loop cannot wait for its turn",
    "Use ainvoke, abatch or astream there, or make the step a plain function: those run in a thread",
)
_LOOP_WAITS = (
    "the event loop stands still until the thread that makes the call has ended",
    "Use ainvoke or abatch there, or make the step a plain function: those run in a thread",
)
_SEVERAL = ("n > 1 asks for several answers in one call", "Ask n times for one answer each")
_NO_CHAT_MODEL = ("it is no chat model", "Use the provider's chat model, such as ChatOpenAI for OpenAI")
_NO_ROW = (
    "the call was made outside of any row, as from a thread that does not know its row",
    "Start threads with asyncio.to_thread, or give them contextvars.copy_context().run to run",
)

_governing: ContextVar[_Governor] = ContextVar("lcbatch_governing")
"""Whose run this is."""


async def ask(request: Request) -> Answer:
    """The innermost step: what LangChain would have asked of the model's own code, for a whole reply."""
    asked: Asked = request.native
    model = whole_replies(asked.model)
    plainly: Callable[[Sequence[BaseMessage]], Awaitable[Answer] | None] | None = getattr(model, "plainly", None)
    if plainly is not None and not asked.stop and not asked.options and (answer := plainly(asked.messages)) is not None:
        return await answer
    manager = {"run_manager": asked.run_manager} if _takes_manager(type(model)) else {}
    token = in_a_call.set(True)
    try:
        step = model._agenerate  # noqa: SLF001 - the very step that the hooks are about
        result = await step(asked.messages, stop=asked.stop, **manager, **asked.options)
    finally:
        in_a_call.reset(token)
    return answer_of(message_of(result))


def _does_more(model: BaseChatModel, options: Mapping[str, Any]) -> bool:
    """Whether LangChain's own code around a model's step does more than to pass on what it is given."""
    more = model.output_version == "v1" or getattr(model, "streaming", False) or options.get("stream")
    several = options.get("n") or getattr(model, "n", None) or 1
    return bool(more or model.rate_limiter is not None or several != 1)


@lru_cache(maxsize=256)
def _takes_manager(kind: type[BaseChatModel]) -> bool:
    return "run_manager" in inspect.signature(kind._agenerate).parameters  # noqa: SLF001


@contextmanager
def governed(
    stack_of: StackOf,
    *,
    tell: Tell,
    quiet: Quiet = lambda model: model,
    patience_s: float = _PATIENCE_S,
    threads: int = MOST,
) -> Iterator[None]:
    """While inside, models that run in a row go through `stack_of(model)`: one stack for each account at a provider.

    `tell` hears, once for each reason and model, what could not be governed. `threads` bounds how many blocking steps run.
    """
    governor = _Governor(stack_of, quiet, tell, patience_s)
    with threads_for_calls(threads), hooked(governor):
        token = _governing.set(governor)
        try:
            yield
        finally:
            _governing.reset(token)
            governor.end()


@dataclass(frozen=True, slots=True)
class _Known:
    """A model that was seen before: its label and stack, and what a request to it says where the call gives no options."""

    model: weakref.ref[BaseChatModel]
    label: str
    stack: Call
    facts: Mapping[str, Json]


class _Governor:
    """hooks.Governor for one run. Lives on the loop on which it is made; called from any thread."""

    def __init__(self, stack_of: StackOf, quiet: Quiet, tell: Tell, patience_s: float) -> None:
        self._stack_of = stack_of
        self._quiet = quiet
        self._tell = tell
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stacks: dict[Hashable, Call] = {}
        self._known: dict[int, _Known] = {}
        self._told: set[tuple[str, str]] = set()
        self._from_threads: set[Future[AIMessage]] = set()
        self._ended = False

    def instead(self, model: BaseChatModel, options: dict[str, Any], *, blocking: bool) -> BaseChatModel | None:
        """A stand-in for a call in one of this run's rows; the model itself where it has to go past the stack."""
        if is_stand_in(model):
            return model
        if in_a_call.get():  # by another model, whose governed call it is a part of
            return self._quiet(model) if self._is_here() else model
        if current_row.get(None) is None:
            self._pass(model, _NO_ROW)
            return model
        if _governing.get(None) is not self or self._ended:
            return None
        several = options.get("n") or getattr(model, "n", None) or 1
        if isinstance(several, int) and several > 1:
            self._pass(model, _SEVERAL)
            return model
        if blocking and self._is_here():
            self._pass(model, _ON_THE_LOOP)
            return model
        return stand_in(model, self)

    def straight(
        self, model: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]
    ) -> Awaitable[AIMessage] | None:
        """The whole reply without LangChain's code around it: nobody listens, there is no cache, and it would not stream.

        None where it would do something for this call, and for all that `instead` has to look at.
        """
        if _governing.get(None) is not self or self._ended or current_row.get(None) is None or in_a_call.get():
            return None
        if _does_more(model, options) or is_stand_in(model) or not self._is_here():
            return None
        return self._named(Asked(model, messages, stop, None, options))

    async def _named(self, asked: Asked) -> AIMessage:
        """With the id that LangChain gives to messages which have none."""
        message = await self.reply(asked)
        if message.id is None:
            # Not uuid4: asking the system for chance lets go of the interpreter, and costs more than the rest of the id.
            message.id = f"{LC_ID_PREFIX}-{UUID(int=random.getrandbits(128), version=4)}-0"
        return message

    def passed(self, model: BaseLanguageModel[Any]) -> None:
        """A model that is no chat model is called."""
        if _governing.get(None) is self and current_row.get(None) is not None and not in_a_call.get():
            self._pass(model, _NO_CHAT_MODEL)

    async def reply(self, asked: Asked) -> AIMessage:
        """The whole reply. From another loop (`asyncio.run` in a thread) the call goes over to this one.

        Raises what the provider's client raised, CallFailed where that was nothing, and LoopWaits.
        """
        if not self._is_here():
            return await asyncio.to_thread(self.reply_to_thread, asked)
        try:
            known = self._of(asked.model)
            step = asked.step or current_step.get() or known.label
            reply = await known.stack(_request(asked, self._quiet(asked.model), known.facts, step))
        except CallFailed as error:
            failed = _as_the_chain_knows_it(error)
        else:
            return reply.native if isinstance(reply.native, AIMessage) else restored(reply)
        raise failed

    def reply_to_thread(self, asked: Asked) -> AIMessage:
        """The same for sync code in another thread, which is held up meanwhile. The thread's own context goes along."""
        if self._is_here():
            self._pass(asked.model, _ON_THE_LOOP)
            raise LoopWaits
        begun, taken = threading.Event(), threading.Lock()

        async def on_the_loop() -> AIMessage:
            if not taken.acquire(blocking=False):
                raise LoopWaits
            begun.set()
            return await self.reply(replace(asked, run_manager=None))

        crossing = asyncio.run_coroutine_threadsafe(on_the_loop(), self._loop)
        self._from_threads.add(crossing)
        try:
            while not begun.wait(self._patience_s) and not crossing.done():
                if self._waits_for_a_thread() and taken.acquire(blocking=False):
                    self._pass(asked.model, _LOOP_WAITS)
                    raise LoopWaits
            return crossing.result()
        finally:
            self._from_threads.discard(crossing)

    def end(self) -> None:
        """The run is over: calls of threads that outlived their rows are cut off."""
        self._ended = True
        for crossing in tuple(self._from_threads):
            crossing.cancel()

    def _of(self, model: BaseChatModel) -> _Known:
        """The model's stack, one for all models of an account: those built anew for every row must not each learn its limits."""
        known = self._known.get(id(model))
        if known is not None and known.model() is model:
            return known
        account = _account(model)
        if account not in self._stacks:
            self._stacks[account] = self._stack_of(model)
        key = id(model)
        gone = weakref.ref(model, lambda _: self._known.pop(key, None))
        known = self._known[key] = _Known(gone, label_of(model), self._stacks[account], _facts_of(model))
        return known

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _waits_for_a_thread(self) -> bool:
        """Whether the loop's thread hangs in a lock, a join or a future of another thread instead of running its loop."""
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the one way to look at another thread
        return frame is not None and frame.f_code.co_filename == threading.__file__

    def _pass(self, model: BaseLanguageModel[Any], reason: tuple[str, str]) -> None:
        why, remedy = reason
        told = (label_of(model), why)
        if told in self._told:
            return
        if not self._is_here():
            with suppress(RuntimeError):  # the loop is closed, and nobody listens any more
                self._loop.call_soon_threadsafe(self._pass, model, reason)
            return
        self._told.add(told)
        self._tell(
            f"{told[0]} is called past lcbatch (no retries, limits, budget or stored answers for such calls): "
            f"{why}. {remedy}."
        )


def _as_the_chain_knows_it(error: CallFailed) -> Exception:
    """What the provider's client raised, for what the chain has to catch it (`except BadRequestError`, fallbacks by type).

    Only where it says as much as the verdict: that the provider is given up, or the budget spent, it cannot say.
    """
    raised: BaseException = error
    while isinstance(raised, CallFailed) and raised.__cause__ is not None:
        raised = raised.__cause__
    failure = error.failure
    if failure.outage or failure.budget or not isinstance(raised, Exception):
        return error
    if not is_providers(raised) or failure_of(raised).kind is not failure.kind:
        return error
    scope = current_row.get()
    scope.account = replace(scope.account, attempts=scope.account.attempts + error.attempts)
    return raised


def label_of(model: BaseLanguageModel[Any]) -> str:
    """`provider:name`, as LangChain's own tracing calls it."""
    facts = model._get_ls_params()  # noqa: SLF001 - where every integration says its name
    return f"{facts.get('ls_provider', 'unknown')}:{facts.get('ls_model_name', type(model).__name__)}"


def address_of(model: BaseChatModel) -> str:
    """Where the model's requests go, "" for the provider's own address."""
    names = ("openai_api_base", "anthropic_api_url", "azure_endpoint", "base_url", "endpoint_url")
    return next((url for name in names if isinstance(url := getattr(model, name, None), str)), "")


def _account(model: BaseChatModel) -> Hashable:
    """What a provider's limits hold for: the model, where it is served, and whose key asks. Functions that give keys are told
    apart by their code, as they may be made anew for every row."""
    keys = [getattr(model, name, None) for name in sorted(model.lc_secrets)]
    known = tuple(getattr(key, "__code__", key) for key in keys if isinstance(key, Hashable))
    return label_of(model), address_of(model), known


def restored(reply: Reply) -> AIMessage:
    """The message that a stored reply was."""
    return AIMessage(**reply.message)


def _facts_of(model: BaseChatModel, stop: list[str] | None = None, **options: Any) -> Mapping[str, Json]:
    """What decides a model's replies besides the messages."""
    facts = model._get_ls_params(stop=stop, **options)  # noqa: SLF001
    own = {
        "provider": facts.get("ls_provider"),
        "model": facts.get("ls_model_name", type(model).__name__),
        "temperature": facts.get("ls_temperature"),
        "max_tokens": facts.get("ls_max_tokens"),
        "stop": stop,
    }
    params = {**{name: value for name, value in own.items() if value is not None}, **options}
    return {name: _plain(value) for name, value in params.items()}


def _request(asked: Asked, quiet: BaseChatModel, facts: Mapping[str, Json], step: str) -> Request:
    """What decides the reply, as plain JSON: never an id that LangChain makes up anew for each run. `quiet` is who is asked."""
    if asked.stop or asked.options:
        facts = _facts_of(asked.model, asked.stop, **asked.options)
    native = Asked(quiet, asked.messages, asked.stop, asked.run_manager, asked.options)
    return Request(messages=[_said(message) for message in asked.messages], params=facts, native=native, step=step)


def _said(message: BaseMessage) -> Json:
    said = {"type": message.type, "content": _plain(message.content)}
    fields = vars(message)  # asking a model of pydantic's for what it does not have costs as much as making it
    for name in ("tool_calls", "tool_call_id", "name"):
        if value := fields.get(name):
            said[name] = _plain(value)
    return said


def _plain(value: Any) -> Json:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        made_up = str(value.get("id")).startswith(_MADE_UP)
        return {str(name): _plain(inner) for name, inner in value.items() if not (made_up and name == "id")}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"


_MADE_UP = "lc_"
"""How LangChain begins the ids that it gives to blocks of content."""
