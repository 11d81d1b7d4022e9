"""Models by name: what is missing is said with its remedy, no key travels in the open, and none is in the identity."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from lcbatch.errors import ConfigError, UsageError
from lcbatch.job import ModelOptions
from lcbatch.models import LoadedModel, load_model
from lcbatch.models.embedders import load_embedder
from lcbatch.models.openai import FastChatOpenAI
from lcbatch.models.prices import price_of
from lcbatch.models.providers import address_of
from lcbatch.records import Usage

KEY = "sk-canary-123"
HERE = "http://127.0.0.1:8099/v1"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is an argument; the integrations' own look-ups find nothing."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def load(model: str = "openai:m", env: Mapping[str, str] | None = None, **options: Any) -> LoadedModel:
    return load_model(
        ModelOptions(model=model, **options), env={"OPENAI_API_KEY": KEY} if env is None else env, connections=7
    )


def refusal(model: str = "openai:m", env: Mapping[str, str] | None = None, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load(model, env, **options)
    assert raised.value.exit_code == 78
    return raised.value


def close(loaded: LoadedModel) -> None:
    async def closing() -> None:
        await loaded.aclose()

    asyncio.run(closing())


def chat_of(loaded: LoadedModel) -> FastChatOpenAI:
    chat = loaded.chat()
    assert isinstance(chat, FastChatOpenAI)
    return chat


def test_an_openai_model_goes_over_the_fast_lane_and_retries_nothing_itself() -> None:
    loaded = load("openai:gpt-4.1-mini", temperature=0.5, max_output_tokens=9)
    chat = chat_of(loaded)

    assert (chat.model_name, chat.temperature, chat.max_tokens, chat.connections) == ("gpt-4.1-mini", 0.5, 9, 7)
    assert chat.root_async_client.max_retries == chat.max_retries == 0
    assert (loaded.label, loaded.local, loaded.takes_document_alone) == ("openai:gpt-4.1-mini", False, False)
    close(loaded)


@pytest.mark.parametrize(
    ("model", "said", "hint"),
    [
        ("gpt-5", "has no provider", "did you mean openai:gpt-5?"),
        ("openai:", "has no name", "as in openai:gpt-5-mini"),
        (":gpt-5", "has no provider", "did you mean openai:gpt-5?"),
        ("lcbatch:abstractive", "there is no model", "did you mean lcbatch:extractive?"),
        ("antropic:m", "there is no provider 'antropic' here", "did you mean anthropic:m?"),
        ("zzz:m", "there is no provider 'zzz' here", "one of anthropic, "),
        ("a.b:m", "there is no provider 'a.b' here", "one of anthropic, "),
        ("cohere:m", "cohere: needs its LangChain package", "pip install langchain-cohere"),
        ("bedrock_converse:m", "bedrock_converse: needs its LangChain package", "pip install langchain-aws"),
    ],
)
def test_a_model_that_cannot_be_is_said_with_its_remedy(model: str, said: str, hint: str) -> None:
    error = refusal(model)

    assert said in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai:m", "OPENAI_API_KEY"),
        ("anthropic:m", "ANTHROPIC_API_KEY"),
        ("google_genai:m", "GOOGLE_API_KEY"),
        ("azure_openai:m", "AZURE_OPENAI_API_KEY"),
    ],
)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_is_named_by_its_variable(model: str, variable: str, value: str | None) -> None:
    error = refusal(model, {} if value is None else {variable: value})

    assert f"{variable} is not set" in error.message
    assert f"export {variable}=" in error.hint
    assert "--api-key-env" in error.hint


def test_the_key_comes_from_the_variable_that_is_named() -> None:
    assert "MY_KEY is not set" in refusal(env={"OPENAI_API_KEY": KEY}, api_key_env="MY_KEY").message
    key = chat_of(load(env={"MY_KEY": KEY}, api_key_env="MY_KEY")).openai_api_key
    assert isinstance(key, SecretStr)
    assert key.get_secret_value() == KEY


@pytest.mark.parametrize(
    "url", [HERE, "http://localhost:1/v1", "http://[::1]:1/v1", "http://a.localhost/v1", "https://127.0.0.2/"]
)
def test_on_this_machine_no_key_is_needed_and_nothing_costs(url: str) -> None:
    loaded = load(env={"OPENAI_API_KEY": ""}, base_url=url)

    assert loaded.local
    assert loaded.price("gpt-5", Usage(10**6, 10**6)) == 0.0


def test_the_address_may_stand_in_the_environment() -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        assert str(chat_of(load(env={name: HERE})).openai_api_base) == HERE
    both = load(env={"OPENAI_BASE_URL": "https://elsewhere.test/v1"}, base_url=HERE)
    assert chat_of(both).openai_api_base == HERE
    assert not load(env={"OPENAI_BASE_URL": "", "OPENAI_API_KEY": KEY}).local, "empty is as good as not set"


@pytest.mark.parametrize("sign", ["\n", "\u2026", "\x00"])
def test_a_key_that_no_request_can_carry_is_refused_and_not_quoted(sign: str) -> None:
    error = refusal(env={"OPENAI_API_KEY": KEY + sign})
    assert "OPENAI_API_KEY" in error.message
    assert KEY not in error.message + error.hint


def test_an_address_that_langchain_finds_by_itself_is_judged_too() -> None:
    env = {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": "http://10.0.0.5", "OPENAI_API_VERSION": "1"}
    with pytest.raises(ConfigError, match=r"a key would travel unencrypted to 10\.0\.0\.5"):
        address_of(ModelOptions(model="azure_openai:m"), env)
    assert address_of(ModelOptions(model="azure_openai:m", insecure_http=True), env).base_url is None
    safe = {**env, "AZURE_OPENAI_ENDPOINT": "https://x.test"}
    assert address_of(ModelOptions(model="azure_openai:m"), safe).base_url is None


@pytest.mark.parametrize(
    "url", ["http://10.0.0.5:8000/v1", "http://api.provider.test/v1", "http://127.0.0.1.evil.test/v1"]
)
def test_a_key_does_not_travel_in_the_open(url: str) -> None:
    for error in (refusal(base_url=url), refusal(env={"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY})):
        assert "a key would travel unencrypted" in error.message
        assert "--insecure-http" in error.hint
        assert KEY not in error.message + error.hint
    assert load(base_url=url, insecure_http=True).chat()
    assert load(base_url=url.replace("http:", "https:")).chat()


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", ["::x::", "http://", "http://h:port", "http://user:secret-1@"])
def test_a_variable_that_names_no_proxy_is_said_without_its_value(name: str, value: str) -> None:
    error = refusal(env={"OPENAI_API_KEY": KEY, name: value}, base_url=HERE)
    assert name in error.message
    assert "secret-1" not in error.message + error.hint
    for usable in ("http://h:3128", "h:3128", "http://user:word@h:1", ""):
        assert address_of(ModelOptions(model="openai:m"), {"OPENAI_API_KEY": KEY, name: usable})


def test_a_password_in_an_address_is_refused_and_not_quoted() -> None:
    for url in ("http://user:secret-1@127.0.0.1:1/v1", "https://user@x.test/v1", "http://user:secret-1/2@127.0.0.1/v1"):
        error = refusal(base_url=url)
        assert error.message.startswith("--base-url has a user or a password in it")
        assert "secret-1" not in error.message + error.hint
        assert "OPENAI_BASE_URL has" in refusal(env={"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY}).message


def test_a_header_that_no_request_can_carry_is_named_by_what_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "a\nb")
    env = {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": "a\nb"}
    assert "OPENAI_ORG_ID has a character that no request can carry" in refusal(env=env).message
    with pytest.raises(ConfigError, match="OPENAI_ORG_ID has a character"):
        load_embedder(ModelOptions(model="openai:m"), env=env, connections=1)
    monkeypatch.delenv("OPENAI_ORG_ID")
    given = 'default_headers={"X-Title": "a\\nb"}'
    assert "the header 'X-Title'" in refusal(model_arg=(given,)).message


def test_a_proxy_that_the_client_is_given_does_not_read_the_key() -> None:
    for variable, arguments in (("OTHER", ("openai_proxy=http://192.0.2.1:1",)), ("OPENAI_PROXY", ())):
        given = {"OPENAI_API_KEY": KEY, variable: "http://192.0.2.1:1"}
        error = refusal(env=given, base_url=HERE, model_arg=arguments)
        assert "unencrypted to the proxy at 192.0.2.1" in error.message
        allowed = ModelOptions(model="openai:m", base_url=HERE, insecure_http=True)
        assert address_of(allowed, given)
        assert address_of(ModelOptions(model="openai:m"), given), "over https it sees nothing"


def test_a_client_that_is_not_ours_is_kept_from_a_proxys_localhost() -> None:
    there = ModelOptions(model="anthropic:m", base_url="http://127.0.0.1:1")
    env = {"ANTHROPIC_API_KEY": KEY, "HTTP_PROXY": "http://192.0.2.1:1"}
    with pytest.raises(ConfigError, match="the proxy that HTTP_PROXY names") as raised:
        address_of(there, env)
    assert "add 127.0.0.1 to NO_PROXY" in raised.value.hint
    assert address_of(there, {**env, "no_proxy": "127.0.0.1"})


@pytest.mark.parametrize(
    "url", ["api.provider.test/v1", "ftp://x/v1", "http://", "http://[::1/v1", "http://x:port/v1", "http://x:99999"]
)
def test_what_is_no_url_is_said(url: str) -> None:
    error = refusal(base_url=url)

    assert f"--base-url {url!r} is no http(s) URL" in error.message
    assert "http://127.0.0.1:8000/v1" in error.hint


def test_model_arguments_are_json_or_text() -> None:
    chat = chat_of(load(model_arg=("top_p=0.9", 'stop=["END"]', "service_tier=flex", "seed=7")))

    assert (chat.top_p, chat.stop, chat.service_tier, chat.seed) == (0.9, ["END"], "flex", 7)


@pytest.mark.parametrize("argument", ["api_key=sk-1", "openai_api_key=sk-1", "base_url=http://x", "model=y", "top_p"])
def test_model_arguments_that_cannot_be(argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        load(model_arg=(argument,))

    assert raised.value.hint
    assert "sk-1" not in raised.value.message + raised.value.hint


def test_an_argument_that_the_model_dislikes_is_the_user_s_mistake() -> None:
    assert "openai:m cannot be set up" in refusal(model_arg=("temperature=hot",)).message
    assert "look at --model-arg" in refusal(model_arg=("max_retries=3",)).hint


def test_the_identity_is_the_model_and_what_decides_its_answers() -> None:
    plain = load().identity
    asked = load(temperature=0.5, model_arg=("top_p=0.9",)).identity

    assert plain == {"model": "openai:m", "arguments": {}}
    assert asked == {"model": "openai:m", "arguments": {"temperature": 0.5, "top_p": 0.9}}
    assert load(base_url=HERE, timeout=5.0, env={}).identity == plain, "where it is served is no part of it"


def test_no_secret_is_in_the_identity_or_in_what_is_shown() -> None:
    headers = json.dumps({"X-Title": "canary-header"})

    loaded = load(base_url=HERE, model_arg=(f"default_headers={headers}",))

    assert loaded.identity == {"model": "openai:m", "arguments": {}}
    assert KEY not in repr(loaded) + repr(loaded.chat())


def test_a_known_model_has_a_price_a_dated_one_too() -> None:
    price = price_of("openai", local=False)

    assert price("gpt-5-mini", Usage(10**6, 0)) == pytest.approx(0.25, rel=0.9)
    assert price("gpt-5-mini-2025-08-07", Usage(1000, 10)) == price("gpt-5-mini", Usage(1000, 10))
    assert price("gpt-5-mini", Usage()) == 0.0


def test_an_unknown_price_is_unknown_and_never_zero() -> None:
    price = price_of("openai", local=False)

    assert [price("no-such-model", Usage(5, 5)) for _ in range(2)] == [None, None]
    assert price("gpt-5-mini", Usage(-1, 5)) is None, "an answer is not lost over a count that makes no sense"
    assert price_of("nobody", local=False)("no-such-model", Usage(5, 5)) is None


def test_the_embedded_model_needs_nothing() -> None:
    loaded = load("lcbatch:extractive", env={})

    assert (loaded.local, loaded.takes_document_alone) == (True, True)
    assert loaded.price("lcbatch:extractive", Usage(5, 5)) == 0.0
    close(loaded)
