"""Embedding models by name: `openai:` over a fast lane, any other `provider:name` through LangChain's init_embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, cast

from lcbatch.errors import CallFailed, ConfigError, Failure, Kind
from lcbatch.job import EXTRACTIVE, ModelOptions
from lcbatch.models import LoadedModel, Told, identity_of, nothing_to_close
from lcbatch.models.prices import known_by, price_of
from lcbatch.models.providers import NO_KEY, Address, address_of, arguments_of, cannot_be_set_up, deciding
from lcbatch.ports import Ask, Price
from lcbatch.records import Answer, Request, Usage
from lcbatch.vectors import packed

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel

MOST_INPUTS = 2048
"""OpenAI's limit on the inputs of one request; nobody is known to take more."""


def load_embedder(options: ModelOptions, *, env: Mapping[str, str], connections: int, told: Told = None) -> LoadedModel:
    """Build the embedding model that `options.model` names; `connections` is the most requests in flight.

    It is asked with requests whose messages are texts, and answers with `vectors` in the message, packed as `lcbatch.vectors`
    does, one for each text. Raises ConfigError for an unknown provider, a missing package or a missing key; UsageError.
    """
    assert options.model is not None
    if options.model == EXTRACTIVE:
        raise ConfigError(f"{EXTRACTIVE} makes no vectors", hint="name one that does, as openai:text-embedding-3-small")
    at = address_of(options, env)
    arguments = arguments_of(options) | ({"dimensions": options.dimensions} if options.dimensions else {})
    price = known_by(at.name, price_of(at.provider, local=at.local, given=_whole_price(options.price)))
    if at.provider == "openai":
        from lcbatch.models.openai_embeddings import OpenAILane  # noqa: PLC0415 - loads LangChain and the SDK

        lane = OpenAILane(_openai(at, arguments), connections, env)
        return LoadedModel(
            chat=_no_chat,
            label=options.model,
            identity=identity_of(options.model, deciding(arguments)),
            price=price,
            local=at.local,
            takes_document_alone=False,
            aclose=lane.aclose,
            listen=lane.listen,
            max_output_tokens=0,
            ask=lane.ask,
        )
    if told is not None:
        told(f"{options.model} goes LangChain's own way, which takes more CPU: the fast lane is OpenAI's")
    return LoadedModel(
        chat=_no_chat,
        label=options.model,
        identity=identity_of(options.model, deciding(arguments)),
        price=price if at.local else _of_what_is_counted(price),
        local=at.local,
        takes_document_alone=False,
        aclose=nothing_to_close,
        max_output_tokens=0,
        ask=embedding(_by_langchain(at, arguments)),
    )


def embedding(embedder: Embeddings) -> Ask:
    """Ask a model through LangChain's own `aembed_documents`, which tells vectors and nothing else: no tokens, no headers."""

    async def asked(texts: list[str]) -> Answer:
        vectors = await embedder.aembed_documents(texts)
        return vectors_answer([packed(vector) for vector in vectors], texts, "", Usage())

    def ask(request: Request) -> Awaitable[Answer]:
        return asked(list(request.messages))

    return ask


def vectors_answer(vectors: list[str], texts: list[str], model: str, usage: Usage) -> Answer:
    """The vectors as an Answer. Raises CallFailed where they are not one for each text."""
    if len(vectors) != len(texts):
        message = f"{len(vectors)} vectors for {len(texts)} texts"
        raise CallFailed(Failure(Kind.BAD_BODY, message, maybe_paid=True))
    return Answer(text="", message={"vectors": vectors}, model=model, finish_reason=None, usage=usage)


def _no_chat() -> BaseChatModel:
    raise AssertionError("an embedding model does not chat")


def _whole_price(given: str | None) -> str | None:
    """`in=0.02` says all that there is to say: vectors are no tokens."""
    return f"{given},out=0" if given is not None and "," not in given else given


def _of_what_is_counted(price: Price) -> Price:
    """Where nobody counts the tokens, what they cost is unknown, and not zero."""
    return lambda model, usage: price(model, usage) if usage.prompt_tokens else None


def _openai(at: Address, arguments: Mapping[str, Any]) -> Any:
    from langchain_openai import OpenAIEmbeddings  # noqa: PLC0415 - LangChain loads late
    from pydantic import SecretStr  # noqa: PLC0415

    if "openai_proxy" in arguments:
        raise ConfigError("--model-arg openai_proxy is not for embeddings", hint="set HTTPS_PROXY in the environment")
    known = {name: value for name, value in arguments.items() if name in _fields_of(OpenAIEmbeddings)}
    others = {name: value for name, value in arguments.items() if name not in known}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return OpenAIEmbeddings(
                model=at.name,
                base_url=at.base_url,
                api_key=SecretStr(at.key or NO_KEY),
                max_retries=0,
                check_embedding_ctx_length=False,
                **{**known, "model_kwargs": {**known.get("model_kwargs", {}), **others}},
            )
    except Exception as error:  # whatever the constructor dislikes, what it was given is at fault
        raise ConfigError(f"openai:{at.name} cannot be set up: {error}", hint="look at --model-arg") from error


def _fields_of(kind: Any) -> set[str]:
    fields = kind.model_fields
    return set(fields) | {field.alias for field in fields.values() if field.alias}


def _by_langchain(at: Address, arguments: Mapping[str, Any]) -> Embeddings:
    try:
        from langchain.embeddings import init_embeddings  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            f"{at.provider}: needs the package langchain", hint="pip install 'lcbatch[providers]'"
        ) from error
    given = dict(arguments)
    given |= {"base_url": at.base_url} if at.base_url else {}
    given |= {"api_key": at.key} if at.key else {}
    try:
        embedder: Any = _without_retries(lambda more: init_embeddings(at.name, provider=at.provider, **given, **more))
    except Exception as error:  # each integration has exceptions of its own for settings that it dislikes
        raise cannot_be_set_up(at.provider, at.name, error) from error
    # OpenAI's relatives would fetch a tokenizer's tables, and cut our batches into their own.
    for name, value in (("check_embedding_ctx_length", False), ("chunk_size", MOST_INPUTS)):
        if hasattr(embedder, name):
            setattr(embedder, name, value)
    return cast("Embeddings", embedder)


def _without_retries(build: Any) -> Any:
    """Built with retries off, where the integration knows the word: the one retry loop is ours."""
    try:
        return build({"max_retries": 0})
    except ImportError:
        raise
    except Exception:  # noqa: BLE001 - if it was not that word, the second try says what it was
        return build({})
