"""Who takes part, and how each is started. What it does stands in its file in clients/."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import environments
from bench.clients.common import MODEL, PROMPT
from bench.environments import Environment

Role = Literal["ours", "floor", "langchain", "script", "peer", "import"]
CHAIN = Path(__file__).with_name("clients") / "user_chain.py"
_LANGCHAIN = ("langchain-core", "langchain-openai", "openai")


@dataclass(frozen=True, slots=True)
class Errand:
    """What a contestant is to do, as its command line is told."""

    rows_file: Path
    out: Path
    concurrency: int
    base_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """`arguments` follow the interpreter. `slow` ones get fewer rows where latency is zero, since only a cost a row is read off
    there. `packages` are those whose versions say what was measured. `calls` and `writes`: what a good run has done.
    """

    name: str
    title: str
    role: Role
    arguments: Callable[[Errand], list[str]]
    packages: tuple[str, ...]
    environment: Environment | None = None
    slow: bool = False
    calls: bool = True
    writes: bool = True

    def python(self) -> Path:
        """Raises UnavailableError."""
        return self.environment.python() if self.environment else Path(sys.executable)


def _client(module: str, *more: str) -> Callable[[Errand], list[str]]:
    def arguments(errand: Errand) -> list[str]:
        given = [str(errand.rows_file), str(errand.out), str(errand.concurrency)]
        return ["-m", f"bench.clients.{module}", *given, *more]

    return arguments


def _lcbatch(errand: Errand) -> list[str]:
    return [*_lcbatch_run(errand), "-m", f"openai:{MODEL}", "-p", PROMPT, "--base-url", errand.base_url]


def _lcbatch_chain(errand: Errand) -> list[str]:
    return [*_lcbatch_run(errand), "--chain", f"{CHAIN}:chain"]


def _lcbatch_run(errand: Errand) -> list[str]:
    given = ["-j", str(errand.concurrency), "-o", str(errand.out)]
    return ["-m", "lcbatch", "run", str(errand.rows_file), *given]


def _batchllm(errand: Errand) -> list[str]:
    checkpoint = f"{errand.out}.checkpoint"
    given = ["-m", MODEL, "-t", PROMPT, "-c", str(errand.concurrency), "--base-url", errand.base_url]
    names = ["--input-column", "text", "-o", str(errand.out), "--checkpoint", checkpoint]
    return ["-m", "batchllm.cli", "run", str(errand.rows_file), *given, *names]


def _bare_import(_: Errand) -> list[str]:
    # Without the tear-down of the interpreter, which no run waits for.
    return ["-c", "import os, langchain_openai; os._exit(0)"]


IMPORT = "import"
CONTESTANTS = (
    Contestant(
        name="lcbatch",
        title="lcbatch run",
        role="ours",
        arguments=_lcbatch,
        packages=("lcbatch", *_LANGCHAIN),
    ),
    Contestant(
        name="lcbatch-chain",
        title="lcbatch run --chain",
        role="ours",
        arguments=_lcbatch_chain,
        packages=("lcbatch", *_LANGCHAIN),
    ),
    Contestant(
        name="raw-sockets",
        title="raw sockets",
        role="floor",
        arguments=_client("raw_sockets"),
        packages=("uvloop", "orjson"),
        writes=False,
    ),
    Contestant(
        name="aiohttp",
        title="aiohttp alone",
        role="floor",
        arguments=_client("raw_aiohttp"),
        packages=("aiohttp",),
        writes=False,
    ),
    Contestant(
        name="abatch",
        title="LangChain abatch",
        role="langchain",
        arguments=_client("langchain_batch", "abatch"),
        packages=_LANGCHAIN,
        slow=True,
    ),
    Contestant(
        name="as-completed",
        title="LangChain abatch_as_completed",
        role="langchain",
        arguments=_client("langchain_batch", "as-completed"),
        packages=_LANGCHAIN,
        slow=True,
    ),
    Contestant(
        name="gather",
        title="LangChain ainvoke, gathered",
        role="langchain",
        arguments=_client("langchain_batch", "gather"),
        packages=_LANGCHAIN,
        slow=True,
    ),
    Contestant(
        name="cookbook",
        title="script as in OpenAI's cookbook",
        role="script",
        arguments=_client("cookbook"),
        packages=("aiohttp",),
        slow=True,
    ),
    Contestant(
        name="litellm",
        title="litellm",
        role="peer",
        arguments=_client("litellm_gather"),
        packages=("litellm",),
        environment=environments.LITELLM,
        slow=True,
    ),
    Contestant(
        name="batchllm",
        title="batchllm-ai",
        role="peer",
        arguments=_batchllm,
        packages=("batchllm-ai", "openai"),
        environment=environments.BATCHLLM,
        slow=True,
    ),
    Contestant(
        name="flexllm",
        title="flexllm",
        role="peer",
        arguments=_client("flexllm_batch"),
        packages=("flexllm", "aiohttp"),
        environment=environments.FLEXLLM,
    ),
    Contestant(
        name="ondine",
        title="ondine",
        role="peer",
        arguments=_client("ondine_pipeline"),
        packages=("ondine", "litellm"),
        environment=environments.ONDINE,
        slow=True,
    ),
    Contestant(
        name="curator",
        title="bespokelabs-curator",
        role="peer",
        arguments=_client("curator_llm"),
        packages=("bespokelabs-curator", "litellm"),
        environment=environments.CURATOR,
        slow=True,
    ),
    Contestant(
        name=IMPORT,
        title="import langchain_openai",
        role="import",
        arguments=_bare_import,
        packages=("langchain-openai",),
        calls=False,
        writes=False,
    ),
)
BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
