"""Chat models by name: `load_model("openai:gpt-5-mini", ...)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lcbatch.job import EXTRACTIVE, ModelOptions
from lcbatch.ports import Ask, Price
from lcbatch.records import Json

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


Told: TypeAlias = Callable[[str], None] | None
"""Who is told what is decided underneath, None where nobody wants to know."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, ready to be called.

    `identity` is what decides its answers (never a key, a URL or a version); `local` says that it runs on this machine and
    costs nothing; `takes_document_alone` that it wants the bare document, with words, language and focus as arguments.
    `listen` takes who wants the headers of every response, None where they cannot be had. `max_output_tokens` bounds an answer
    (None: nothing does, as far as is known). `shortcut` wraps LangChain's way to the model in a shorter one for what is plain,
    where there is such a way. `shape` wraps it for requests for an object, which come in OpenAI's words, where this model is
    asked otherwise. `chat` gives LangChain's model, and may load it for that; an embedding model has none, and is asked by `ask`.
    `max_input_tokens` is the model's context, where that is known.
    """

    chat: Callable[[], BaseChatModel]
    label: str
    identity: Mapping[str, Json]
    price: Price
    local: bool
    takes_document_alone: bool
    aclose: Callable[[], Awaitable[None]]
    listen: Callable[[Callable[[Mapping[str, str]], None]], None] | None = None
    max_output_tokens: int | None = None
    shortcut: Callable[[Ask], Ask] | None = None
    ask: Ask | None = None
    shape: Callable[[Ask], Ask] | None = None
    max_input_tokens: int | None = None


def load_model(options: ModelOptions, *, env: Mapping[str, str], connections: int, told: Told = None) -> LoadedModel:
    """Build the model that `options.model` names; `connections` is the most calls in flight.

    Raises ConfigError for an unknown provider, a missing package or a missing key.
    """
    if options.model == EXTRACTIVE:
        from lcbatch.models.embedded import embedded_model  # noqa: PLC0415 - only what is asked for is loaded

        return embedded_model()
    from lcbatch.models.providers import provider_model  # noqa: PLC0415

    return provider_model(options, env=env, connections=connections, told=told)


async def nothing_to_close() -> None:
    """For models that hold no connections."""


def identity_of(label: str, arguments: Mapping[str, Any]) -> Mapping[str, Json]:
    """What decides a model's answers."""
    return {"model": label, "arguments": dict(arguments)}
