"""Models that a user's chain built itself, made fit for a run: no retries of their own, connections that somebody closes, and
response headers that somebody hears.

Setting `max_retries` on a built ChatOpenAI leaves its client at 2, and LangChain's HTTP client is shared by all models of the
process and never closed; so the SDK client is made anew over an HTTP client of the run's own. The user's model is not touched:
what is asked is a copy of it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lcbatch.messages import shallow_copy
from lcbatch.models.completions import read_completion
from lcbatch.models.proxies import around_proxies
from lcbatch.models.received import read_within_bounds

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from lcbatch.models.openai import FastChatOpenAI

_KEEPALIVE_S = 60.0

Heard = Callable[[Mapping[str, str]], None]
"""Is told the headers of a response."""

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")
_Ask = Callable[[_Request], Awaitable[_Answer]]

_hears: ContextVar[Heard] = ContextVar("lcbatch_hears")
"""Who hears the headers of the call that is being made. Several models may share one HTTP client, and their limits differ."""


def overheard(ask: _Ask[_Request, _Answer]) -> tuple[_Ask[_Request, _Answer], Callable[[Heard], None]]:
    """The same `ask`, and what takes who wants to hear the headers of every response to it, errors included."""
    ears: list[Heard] = []

    def tell(headers: Mapping[str, str]) -> None:
        for heard in ears:
            heard(headers)

    async def asking(request: _Request) -> _Answer:
        token = _hears.set(tell)
        try:
            return await ask(request)
        finally:
            _hears.reset(token)

    return asking, ears.append


async def _on_response(response: Any) -> None:
    _tell_who_hears(response.headers)


def _tell_who_hears(headers: Mapping[str, str]) -> None:
    heard = _hears.get(None)
    if heard is not None:
        heard(headers)


class QuietClients:
    """Makes models quiet, and closes what it opened for them."""

    def __init__(self, connections: int, *, told: Callable[[str], None] | None = None) -> None:
        self._connections = connections
        self._told = told
        self._said: set[str] = set()
        self._quiet: dict[int, tuple[weakref.ref[Any], Any]] = {}
        self._lanes: dict[int, tuple[weakref.ref[Any], FastChatOpenAI]] = {}
        self._twins: dict[int, _Twin] = {}
        self._own: dict[tuple[str, ...], Any] = {}
        self._users: list[Any] = []

    def quiet(self, model: BaseChatModel) -> BaseChatModel:
        """The model to ask in this one's place: a copy whose async SDK client makes no retries.

        Knows models of OpenAI's make (with what is built on it, such as Azure's) and of Anthropic's; another comes back as it is.
        ChatOpenAI itself comes back as its fast twin, where that does all that this one would.
        """
        known = self._twins.get(id(model))
        if known is not None and known.is_of(model):
            return known.fast
        sdk = getattr(model, "root_async_client", None)
        if _is_sdk(sdk) and (twin := self._fast(model, sdk)) is not None:
            return twin
        if _is_sdk(sdk):
            quiet = self._quieted(sdk, own_http=getattr(model, "http_async_client", None) is None)
            return shallow_copy(model, root_async_client=quiet, async_client=quiet.chat.completions)
        sdk = getattr(model, "_async_client", None)
        if _is_sdk(sdk):
            return shallow_copy(
                model, _async_client=self._quieted(sdk, own_http=not getattr(model, "anthropic_proxy", None))
            )
        return model

    def _fast(self, model: BaseChatModel, sdk: Any) -> BaseChatModel | None:
        """The same model over the fast lane; one lane for each SDK client. None where the model's own way is another."""
        from lcbatch.models.openai import lane_for, twin_of  # noqa: PLC0415 - a model of OpenAI's make is there: so is its package

        key = id(sdk)
        known = self._lanes.get(key)
        if known is None or known[0]() is not sdk:
            lane = lane_for(model, connections=self._connections, heard=_tell_who_hears, told=self._tell)
            if lane is None:
                return None
            known = self._lanes[key] = (weakref.ref(sdk), lane)
        twin = twin_of(model, known[1])
        if id(model) in self._twins:  # asked again, and not one that is built anew for every row
            twin.frame = twin.framed()
        self._note(model, twin)
        return twin

    def _note(self, model: BaseChatModel, twin: FastChatOpenAI) -> None:
        key = id(model)
        gone = weakref.ref(model, lambda _: self._twins.pop(key, None))
        # One without a frame is none to keep: the next call is to get one with it.
        self._twins[key] = _Twin(gone, _state_of(model) if twin.frame is not None else {}, twin)

    def _tell(self, text: str) -> None:
        if self._told is not None and text not in self._said:
            self._said.add(text)
            self._told(text)

    async def aclose(self) -> None:
        """Close the connections, and leave the users' own HTTP clients as they were."""
        for _, lane in self._lanes.values():
            await lane.aclose()
        for client in self._users:
            client.event_hooks["response"].remove(_on_response)
        for client in self._own.values():
            await client.aclose()

    def _quieted(self, sdk: Any, *, own_http: bool) -> Any:
        """One for each SDK client, for as long as that lives: a chain may build its models anew for every row."""
        key = id(sdk)
        known = self._quiet.get(key)
        if known is not None and known[0]() is sdk:
            return known[1]
        if own_http:
            quiet = sdk.with_options(max_retries=0, http_client=self._http_client(sdk))
        else:
            quiet = sdk.with_options(max_retries=0)
            self._listen(sdk._client)  # noqa: SLF001 - the HTTP client that the user gave, and that is kept
        self._quiet[key] = (weakref.ref(sdk, lambda _: self._quiet.pop(key, None)), quiet)
        return quiet

    def _http_client(self, sdk: Any) -> Any:
        name = type(sdk).__module__.partition(".")[0]
        straight = around_proxies(sdk.base_url.host)
        key = (name, *straight)
        if key not in self._own:
            package: Any = sys.modules[name]
            limits = type(package.DEFAULT_CONNECTION_LIMITS)(
                max_connections=self._connections, keepalive_expiry=_KEEPALIVE_S
            )
            hooks = {"response": [_on_response, read_within_bounds, read_completion]}
            self._own[key] = package.DefaultAsyncHttpxClient(
                limits=limits, follow_redirects=False, event_hooks=hooks, mounts=straight
            )
        return self._own[key]

    def _listen(self, client: Any) -> None:
        if all(client is not known for known in self._users):
            self._users.append(client)
            client.event_hooks["response"].append(_on_response)


@dataclass(frozen=True, slots=True)
class _Twin:
    """A model's fast twin, which is the model's for as long as that is what it was."""

    model: weakref.ref[BaseChatModel]
    state: Mapping[str, Any]
    fast: FastChatOpenAI

    def is_of(self, model: BaseChatModel) -> bool:
        return self.model() is model and self.state == model.__dict__


def _state_of(model: BaseChatModel) -> Mapping[str, Any]:
    """A model's fields. Of its dicts, which can be changed in place, as they are now."""
    return {name: dict(value) if type(value) is dict else value for name, value in model.__dict__.items()}


def _is_sdk(client: Any) -> bool:
    """Whether this is a client of the kind that OpenAI's and Anthropic's SDKs share."""
    return hasattr(client, "with_options") and hasattr(client, "max_retries")
