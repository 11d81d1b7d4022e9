"""A key that is given where none belongs is refused before anything is written, and never quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcbatch.cli.config import config_options
from lcbatch.errors import UsageError
from lcbatch.job import Job
from lcbatch.optionvalues import Endpoint
from tests.e2e.support import cli

_KEY = "kc4f1d7c2a9b8e6053Q"


@pytest.mark.parametrize(
    "argument",
    [
        f"api_key={_KEY}",
        f"anthropic_api_key={_KEY}",
        f"token={_KEY}",
        f"azure_ad_token={_KEY}",
        f'default_headers={{"Authorization":"Bearer {_KEY}"}}',
        f'default_headers={{"X-Title":"a","x-api-key":"{_KEY}"}}',
        f'default_headers={{"Ocp-Apim-Subscription-Key":"{_KEY}"}}',
        f'default_headers={{"X-Other":"Bearer {_KEY}"}}',
        f'default_headers={{"Authorization":"Bearer {_KEY}"',
        f'default_query={{"key":"{_KEY}"}}',
        f'extra_headers={{"api-key":"{_KEY}"}}',
        f'model_kwargs={{"extra_headers":{{"X-Auth":"{_KEY}"}}}}',
        f'extra_body={{"litellm":[{{"api_key":"{_KEY}"}}]}}',
        f"openai_proxy=http://user:{_KEY}@proxy.test",
        f"{_KEY}",
    ],
)
def test_a_model_argument_that_holds_a_key_is_refused_and_not_quoted(argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        Job.of(model_arg=[argument])
    assert "--model-arg" in raised.value.message
    assert raised.value.hint
    assert _KEY not in raised.value.message + raised.value.hint


@pytest.mark.parametrize(
    "argument",
    [
        "max_tokens=5",
        "max_completion_tokens=5",
        'stop=["token", "key"]',
        'logit_bias={"5": -100}',
        'default_headers={"X-Title":"mine","HTTP-Referer":"https://x.test"}',
        'default_query={"api-version":"2024-10-21"}',
        'metadata={"key":"a"}',
        'tools=[{"type":"function","function":{"name":"f","parameters":{"properties":{"api_key":{"type":"string"}}}}}]',
        "service_tier=flex",
        "stop=a=b",
    ],
)
def test_other_model_arguments_are_taken(argument: str) -> None:
    assert Job.of(model_arg=[argument]).model.model_arg == (argument,)


@pytest.mark.parametrize(
    "name",
    ["sk-proj-abc", _KEY + "\n", "gsk_1234567890abcdef", "AIzaSyD1234567890abcdefg", "a1b2c3" * 5, "A-B"],
)
def test_the_key_itself_is_no_name_of_a_variable(name: str) -> None:
    for options in ({"api_key_env": name}, {"endpoints": [{"base_url": "http://x", "api_key_env": name}]}):
        with pytest.raises(UsageError, match="is no name of an environment variable") as raised:
            Job.of(**options)
        assert name not in raised.value.message + raised.value.hint
    with pytest.raises(UsageError, match="is no name"):
        Job.of(endpoints=[Endpoint(base_url="http://x", api_key_env=name)])


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "my_key", "MY_COMPANYS_OPENAI_KEY_2024", "_K", "hf_token", ""])
def test_a_variable_is_named_as_variables_are(name: str) -> None:
    assert Job.of(api_key_env=name).model.api_key_env == name


@pytest.mark.parametrize(
    "text",
    [
        f'model_arg = {{api_key = "{_KEY}"}}',
        f'[model_arg]\napi_key = "{_KEY}"',
        f'model_arg = ["api_key={_KEY}"]',
        f'api_key_env = ["{_KEY}-"]',
        f'[[endpoints]]\nbase_url = "http://x"\napi_key_env = {{a = "{_KEY}"}}',
    ],
)
def test_a_config_file_s_key_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "lcbatch.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        config_options("run", None, tmp_path)
    assert "lcbatch.toml: " in raised.value.message
    assert _KEY not in raised.value.message + raised.value.hint


@pytest.mark.parametrize("model", ["openai:sim", "lcbatch:extractive"])
def test_nothing_is_written_of_a_key_in_the_options(tmp_path: Path, model: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    given = ["--model-arg", f'default_headers={{"Authorization":"Bearer {_KEY}"}}']
    for more in (given, ["--api-key-env", f"sk-{_KEY}"]):
        ended = cli("run", "in.jsonl", "-m", model, "-p", "{text}", "-o", "out.jsonl", *more, cwd=tmp_path)
        assert ended.returncode == 2
        assert _KEY not in ended.stderr + ended.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.jsonl"]
