"""What the tests of the network share: a run whose time and memory are measured, and a search for a key in all that it leaves."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.support import MODEL, Shop, command, environment
from tests.torture.memory import high_water_mb

KEY = "sk-canary-4f1d7c2a9b8e6053"
"""Looked for wherever a run could leave it."""

_MOST_S = 180
_LOOK_S = 0.02

OWN_CHAIN = """
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


class Own(ChatOpenAI):
    '''A subclass is asked as it is, by the SDK.'''


def chain(base_url):
    return ChatPromptTemplate.from_template("Say {text}") | Own(model="sim", base_url=base_url)
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended. `at_s` is on the monotonic clock, `rss_mb` the most memory that it held."""

    code: int
    out: str
    said: str
    at_s: float
    rss_mb: float


def measured(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run lcbatch to its end, or for three minutes."""
    with (cwd / ".out").open("w+b") as out, (cwd / ".said").open("w+b") as said:
        process = subprocess.Popen(
            command(*arguments), cwd=cwd, env=environment(cwd, **(env or {})), stdin=subprocess.DEVNULL, stdout=out,
            stderr=said,
        )  # fmt: skip
        most_mb, deadline_s = 0.0, time.monotonic() + _MOST_S
        try:
            while process.poll() is None and time.monotonic() < deadline_s:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)
                most_mb = max(most_mb, high_water_mb(process.pid))
        finally:
            process.kill()
            process.wait()
        at_s = time.monotonic()
    printed, told = ((cwd / name).read_text(errors="replace") for name in (".out", ".said"))
    return Ended(process.returncode, printed, told, at_s, most_mb)


def way(name: str, shop: Shop, base_url: str | None = None) -> list[str]:
    """Options for `lane`, the built-in chain over the fast lane, or `own`, a model of the user's own over the SDK."""
    url = base_url or shop.provider.base_url
    if name == "lane":
        return ["-m", MODEL, "--base-url", url, "-p", "Say {text}", *(["--insecure-http"] if base_url else [])]
    (shop.folder / "own.py").write_text(OWN_CHAIN)
    return ["--chain", "./own.py:chain", "--chain-arg", f"base_url={url}"]


def files_with(word: str, *folders: Path) -> list[str]:
    """Files below these folders that hold the word, in whatever encoding keeps its bytes; names count too."""
    return sorted(str(path) for folder in folders for path in _files(folder) if _holds(path, word))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _holds(path: Path, word: str) -> bool:
    return word in path.name or word.encode() in path.read_bytes()
