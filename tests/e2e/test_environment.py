"""What stands in the environment beside the key: proxies, and what cannot be sent as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, cli, rows_of
from tests.torture.network import KEY, way

_STOCK = ["--model-arg", "include_response_headers=true"]


@pytest.fixture(scope="module")
def proxy() -> Iterator[SimulatorProcess]:
    """It stands in for a proxy, which must not be asked."""
    with SimulatorProcess() as running:
        yield running


@pytest.mark.parametrize("by", ["lane", "stock", "own", "embed"])
def test_what_is_on_loopback_is_asked_past_any_proxy(
    provider: SimulatorProcess, proxy: SimulatorProcess, tmp_path: Path, by: str
) -> None:
    """A proxy's localhost is another machine, and plain http would show it the key."""
    shop = Shop(provider, tmp_path)
    shop.write("in.jsonl", rows_of("a"))
    model = way("own" if by == "own" else "lane", shop, provider.base_url)
    command = ["embed", "in.jsonl", "-m", MODEL, "--base-url", provider.base_url, "-p", "{text}"]
    if by != "embed":
        command = ["run", "in.jsonl", *model, *(_STOCK if by == "stock" else [])]
    before = proxy.stats()["connections"]
    at = f"http://127.0.0.1:{proxy.port}"
    ended = cli(
        *command, "-o", "out.jsonl", cwd=tmp_path, env={"OPENAI_API_KEY": KEY, "http_proxy": at, "HTTP_PROXY": at}
    )
    assert ended.returncode == 0, ended.stderr
    assert proxy.stats()["connections"] - before == 1, "which is this question"


@pytest.mark.parametrize("env", [{"http_proxy": "::x::"}, {"OPENAI_ORG_ID": "a\nb"}], ids=["proxy", "header"])
def test_what_cannot_be_used_is_no_row_s_failure(
    provider: SimulatorProcess, tmp_path: Path, env: dict[str, str]
) -> None:
    shop = Shop(provider, tmp_path)
    shop.write("in.jsonl", rows_of("a"))
    ended = cli(*shop.words("in.jsonl"), cwd=tmp_path, env={"OPENAI_API_KEY": KEY, **env})
    assert ended.returncode == 78, ended.stderr
    assert f"error: {next(iter(env))} " in ended.stderr
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
