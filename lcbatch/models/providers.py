"""Models that somebody serves: `openai:` over the fast lane, any other `provider:name` through LangChain's init_chat_model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from lcbatch import jsontext
from lcbatch.credentials import check_model_argument
from lcbatch.errors import ConfigError, UsageError
from lcbatch.job import EXTRACTIVE, ModelOptions
from lcbatch.models import LoadedModel, Told, identity_of, nothing_to_close
from lcbatch.models.outline import Memory, memory_of
from lcbatch.models.prices import known_by, price_of
from lcbatch.models.proxies import is_loopback, proxy_variable, refuse_malformed, with_scheme
from lcbatch.models.shaping import as_openai_does, best_way, by_langchain

if TYPE_CHECKING:
    from lcbatch.models.lane import Lane
    from lcbatch.models.openai import FastChatOpenAI

NO_KEY = "none-needed"
"""Stands where a local server wants no key; the client refuses an empty one."""

_KEY_VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "azure_openai": "AZURE_OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google_genai": "GOOGLE_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "groq": "GROQ_API_KEY",
}

_THEIR_URLS = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "azure_openai": ("AZURE_OPENAI_ENDPOINT",),
    "anthropic": ("ANTHROPIC_API_URL", "ANTHROPIC_BASE_URL"),
    "mistralai": ("MISTRAL_BASE_URL",),
    "groq": ("GROQ_API_BASE",),
}
"""Where LangChain's classes look by themselves for an address, in this order. All but OpenAI's stays theirs to read; a key is not
to go there in the clear."""

_OWN_OPTIONS = {"model": "-m", "model_name": "-m", "base_url": "--base-url", "openai_api_base": "--base-url"}
_NOT_THE_ANSWERS = frozenset({"default_headers", "default_query", "extra_headers", "timeout", "request_timeout"})
"""Model arguments that decide no answer, and that may hold a secret: they stay out of the identity."""


def provider_model(
    options: ModelOptions, *, env: Mapping[str, str], connections: int, told: Told = None
) -> LoadedModel:
    """Build the model. Raises ConfigError (78) with what to install or to set; UsageError for a malformed option."""
    assert options.model is not None
    at = address_of(options, env)
    provider, name, base_url, key, local = at.provider, at.name, at.base_url, at.key, at.local
    arguments = arguments_of(options)
    loaded = partial(
        LoadedModel,
        label=options.model,
        identity=identity_of(options.model, deciding(arguments)),
        price=known_by(name, price_of(provider, local=local, given=options.price)),
        local=local,
        takes_document_alone=False,
    )
    if provider != "openai":
        chat = _by_langchain(provider, name, base_url, key, arguments)
        if told is not None:
            told(f"{options.model} goes LangChain's own way, which takes more CPU: the fast lane is OpenAI's")
        return loaded(
            chat=lambda: chat,
            aclose=nothing_to_close,
            max_output_tokens=longest_answer(chat),
            shape=by_langchain(chat, options.schema_method),
            max_input_tokens=_context_of(chat),
        )
    setup = {"model": name, "base_url": base_url, "key": key or NO_KEY, "connections": connections, "told": told}
    # Arguments may hold secrets, which must not get into a file.
    lane = _lane(setup, arguments, None if options.model_arg else memory_of(env), env)
    return loaded(
        chat=lane.chat,
        aclose=lane.aclose,
        listen=lane.listen,
        max_output_tokens=lane.longest,
        max_input_tokens=lane.context,
        shortcut=None if _is_traced(env) else lane.shortcut,
        shape=as_openai_does(lane.objects if options.schema_method == "auto" else options.schema_method),
    )


def _lane(
    setup: Mapping[str, Any], arguments: Mapping[str, Any], memory: Memory | None, env: Mapping[str, str]
) -> Lane:
    """Over what is remembered of the model, else over what LangChain makes of it now."""
    from lcbatch.models.lane import Lane  # noqa: PLC0415 - aiohttp takes 80 ms, which only who sends something pays
    from lcbatch.models.straight import refuse_unsendable  # noqa: PLC0415
    from lcbatch.models.wire import Wire  # noqa: PLC0415

    build: Callable[[], FastChatOpenAI] = partial(_openai, **setup, arguments=arguments)
    # LangChain asks whose a server is, but not at which port it listens: a local one is often at another.
    known = {"model": setup["model"], "at": _host(setup["base_url"]), "arguments": dict(arguments)}
    outline = memory.recall(known, setup["base_url"], setup["key"]) if memory is not None else None
    if outline is None:
        chat = build()
        outline, build = replace(chat.outline(longest_answer(chat)), objects=best_way(chat)), lambda: chat
        if memory is not None:
            memory.keep(known, setup["key"], outline)
    refuse_unsendable({**outline.headers, **outline.frame.headers}, env)
    return Lane(outline, build, Wire(outline.address, outline.headers, connections=setup["connections"]))


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Which model, and where it is: `key` is None for providers that want none, or find theirs by themselves."""

    provider: str
    name: str
    base_url: str | None
    key: str | None
    local: bool


def address_of(options: ModelOptions, env: Mapping[str, str]) -> Address:
    """Where the options and the environment say that the model is. Raises ConfigError, naming what to set."""
    assert options.model is not None
    provider, name = _provider_and_name(options.model)
    refuse_malformed(env)
    given = _given_addresses(options, env, provider)
    base_url = next(iter(given.values()), None) if options.base_url or provider == "openai" else None
    local = _is_local(base_url, provider, env)
    key = _key(options, provider, env, local=local)
    has_key = key not in {None, NO_KEY}
    for source, url in given.items():
        _refuse_open_wire(source, url, has_key=has_key, insecure_http=options.insecure_http)
        if provider == "openai" and has_key and not options.insecure_http:
            _refuse_open_proxy(url, arguments_of(options).get("openai_proxy") or env.get("OPENAI_PROXY"))
        if provider != "openai":
            _refuse_proxied_loopback(url, env)
    return Address(provider, name, base_url, key, local)


def deciding(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a model's arguments that decide its answers."""
    return {name: value for name, value in arguments.items() if name not in _NOT_THE_ANSWERS}


def _is_traced(env: Mapping[str, str]) -> bool:
    """Whether somebody wants to see every call as LangChain makes it."""
    return any(env.get(name, "").lower() in {"true", "1"} for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"))


def longest_answer(chat: Any) -> int | None:
    """Tokens that an answer of this chat model can have at most: as it is set up, else as its profile says."""
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(value := getattr(chat, name, None), int):
            return value
    profile = getattr(chat, "profile", None) or {}
    value = profile.get("max_output_tokens")
    return value if isinstance(value, int) else None


def _host(base_url: str | None) -> str | None:
    parts = _split(base_url) if base_url is not None else None
    return parts.hostname if parts is not None else None


def _context_of(chat: Any) -> int | None:
    """Tokens that the model's profile says it takes in; LangChain knows them of the better known models."""
    value = (getattr(chat, "profile", None) or {}).get("max_input_tokens")
    return value if isinstance(value, int) else None


def _provider_and_name(model: str) -> tuple[str, str]:
    provider, colon, name = model.partition(":")
    if not provider or not colon:
        hint = f"did you mean openai:{provider or name}?"
        raise ConfigError(f"a model is named provider:name, {model!r} has no provider", hint=hint)
    if not name:
        raise ConfigError(f"a model is named provider:name, {model!r} has no name", hint="as in openai:gpt-5-mini")
    if provider == EXTRACTIVE.partition(":")[0]:
        raise ConfigError(f"there is no model {model!r}", hint=f"did you mean {EXTRACTIVE}?")
    return provider, name


def _openai(
    *, model: str, base_url: str | None, key: str, connections: int, told: Told, arguments: Mapping[str, Any]
) -> FastChatOpenAI:
    from pydantic import SecretStr  # noqa: PLC0415 - LangChain loads late, and pydantic with it

    from lcbatch.models.openai import FastChatOpenAI  # noqa: PLC0415

    try:
        return FastChatOpenAI(
            model=model,
            base_url=base_url,
            api_key=SecretStr(key),
            max_retries=0,
            connections=connections,
            told=told,
            **arguments,
        )
    except Exception as error:  # whatever the constructor dislikes, what it was given is at fault
        raise ConfigError(f"openai:{model} cannot be set up: {error}", hint="look at --model-arg") from error


def _by_langchain(provider: str, name: str, base_url: str | None, key: str | None, arguments: Mapping[str, Any]) -> Any:
    try:
        from langchain.chat_models import init_chat_model  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            f"{provider}: needs the package langchain", hint="pip install 'lcbatch[providers]'"
        ) from error
    given = {**arguments, "max_retries": 0}
    given |= {"base_url": base_url} if base_url else {}
    given |= {"api_key": key} if key else {}
    try:
        return init_chat_model(name, model_provider=provider, **given)
    except Exception as error:  # each integration has exceptions of its own for settings that it dislikes
        raise cannot_be_set_up(provider, name, error) from error


def cannot_be_set_up(provider: str, name: str, error: Exception) -> ConfigError:
    """What LangChain's factories say of a provider that they do not know, or that lacks its package, or of its settings."""
    if isinstance(error, ImportError):
        package = re.search(r"pip install (?:-U )?([\w-]+)", str(error))
        if package is None:
            return ConfigError(f"{provider}: {error}", hint="look at what is installed with it")
        return ConfigError(f"{provider}: needs its LangChain package", hint=f"pip install {package[1]}")
    listed = re.search(r"Supported model providers are: (.+)", str(error))
    known = listed[1].split(", ") if listed else re.findall(r"^ +- (\w+):", str(error), re.MULTILINE)
    if not known:
        return ConfigError(f"{provider}:{name} cannot be set up: {error}", hint="look at -m, --model-arg")
    near = difflib.get_close_matches(provider, known, n=1)
    hint = f"did you mean {near[0]}:{name}?" if near else f"one of {', '.join(known)}"
    return ConfigError(f"there is no provider {provider!r} here", hint=hint)


def arguments_of(options: ModelOptions) -> dict[str, Any]:
    """Model arguments that decide the answers, by LangChain's names."""
    named = {
        "temperature": options.temperature,
        "max_tokens": options.max_output_tokens,
        "reasoning_effort": options.reasoning_effort,
    }
    arguments = {name: value for name, value in named.items() if value is not None}
    for text in options.model_arg:
        check_model_argument(text)
        name, _, value = text.partition("=")
        if name in _OWN_OPTIONS:
            raise UsageError(f"--model-arg {name} has an option of its own", hint=f"see {_OWN_OPTIONS[name]}")
        try:
            arguments[name] = jsontext.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments


def _key(options: ModelOptions, provider: str, env: Mapping[str, str], *, local: bool) -> str | None:
    """The key, from the environment only. Raises ConfigError naming the variable that is missing."""
    variable = options.api_key_env or _KEY_VARIABLES.get(provider)
    key = env.get(variable) if variable else None
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in {variable} has a character that no request can carry",
            hint="look for a line break at its end, or for signs that an editor put into it",
        )
    if key or variable is None:
        return key
    if local:
        return NO_KEY
    raise ConfigError(
        f"{options.model} needs a key, and {variable} is not set",
        hint=f"export {variable}=..., or name another variable with --api-key-env",
    )


def _given_addresses(options: ModelOptions, env: Mapping[str, str], provider: str) -> dict[str, str]:
    """Addresses by what gives them: --base-url, else the variables in which the client looks by itself."""
    if options.base_url:
        return {"--base-url": options.base_url}
    return {name: env[name] for name in _THEIR_URLS.get(provider, ()) if env.get(name)}


def _refuse_open_wire(source: str, url: str, *, has_key: bool, insecure_http: bool) -> None:
    """Raise ConfigError for an address that is none, or over which a key would be read by others. `source` gave it."""
    parts = _split(url)
    scheme, host = (parts.scheme, parts.hostname) if parts is not None else ("", None)
    if scheme == "http" and host and has_key and not insecure_http and not is_loopback(host):
        raise ConfigError(
            f"a key would travel unencrypted to {host}", hint="use https, or allow it with --insecure-http"
        )
    if "@" in (parts.netloc if parts is not None else url):
        raise ConfigError(
            f"{source} has a user or a password in it, which no model provider takes there",
            hint="leave out all that stands before the @; the key comes from the environment (--api-key-env)",
        )
    if scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{source} {url!r} is no http(s) URL", hint="write it like http://127.0.0.1:8000/v1")


def _refuse_open_proxy(url: str, proxy: object) -> None:
    """Raise ConfigError where the proxy that the client was given would read a key that is sent over plain http."""
    parts = _split(with_scheme(str(proxy))) if proxy else None
    host = parts.hostname if parts is not None else None
    if host and not is_loopback(host) and urlsplit(url).scheme == "http":
        raise ConfigError(
            f"a key would travel unencrypted to the proxy at {host}",
            hint="leave out openai_proxy (OPENAI_PROXY), or allow it with --insecure-http",
        )


def _refuse_proxied_loopback(url: str, env: Mapping[str, str]) -> None:
    """Raise ConfigError where a client that is not ours to make would ask a proxy for the proxy's own localhost."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    variable = proxy_variable(parts.scheme, host, env) if parts.scheme == "http" and is_loopback(host) else None
    if variable is not None:
        raise ConfigError(
            f"the requests to {host} would go to the proxy that {variable} names", hint=f"add {host} to NO_PROXY"
        )


def _split(url: str) -> SplitResult | None:
    """The URL's parts; None where it has a host or a port that can be none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_local(base_url: str | None, provider: str, env: Mapping[str, str]) -> bool:
    if base_url is None:
        return provider == "ollama" and not env.get("OLLAMA_HOST")
    parts = _split(base_url)
    return parts is not None and is_loopback(parts.hostname or "")
