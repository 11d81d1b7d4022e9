"""Compiling as users meet it: `--chain` with and without it, and what doctor says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lcbatch.chains.custom import CustomChain, load_custom
from lcbatch.cli.commands import app
from lcbatch.job import ChainOptions

SOURCE = """
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

def _said():
    while True:
        yield "hello"

prompt = ChatPromptTemplate.from_template("{text}")
chain = prompt | GenericFakeChatModel(messages=_said()) | StrOutputParser() | RunnableLambda(lambda said: said + "!")
lone = RunnableLambda(lambda row: row["text"] + "?")

def function(row):
    return row["text"].upper()

class Duck:
    async def ainvoke(self, row):
        return "quack"

duck = Duck()
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(SOURCE)
    return path


def load(source: Path, name: str, **options: Any) -> CustomChain:
    return load_custom(ChainOptions(chain=f"{source}:{name}", **options), None)


@pytest.mark.parametrize(
    ("name", "output", "compiled"),
    [("chain", "hello!", 3), ("lone", "x?", 0), ("function", "X", 0), ("duck", "quack", 0)],
)
def test_a_chain_gives_the_same_compiled_or_not(source: Path, name: str, output: str, compiled: int) -> None:
    by_default, not_compiled = load(source, name), load(source, name, compile=False)

    assert asyncio.run(by_default({"text": "x"})) == asyncio.run(not_compiled({"text": "x"})) == output
    assert sum(part.why is None for part in by_default.parts) == compiled
    assert not_compiled.parts == ()
    assert by_default.identity == not_compiled.identity


def says(source: Path, name: str) -> list[str]:
    result = CliRunner().invoke(app, ["doctor", "--chain", f"{source}:{name}"], standalone_mode=False)
    assert result.exception is None, result.output
    lines = result.output.splitlines()
    return lines[next(number for number, line in enumerate(lines) if line.startswith("ok   chain: ")) + 1 :]


def test_doctor_tells_how_each_part_is_run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)

    assert says(source, "chain") == [
        "ok     part 1 ChatPromptTemplate, as plain calls",
        "ok     part 2 GenericFakeChatModel, as plain calls",
        "ok     part 3 StrOutputParser, as plain calls",
        "ok     part 4 RunnableLambda, as itself: a function of your own",
    ]
    assert says(source, "lone") == ["ok     part RunnableLambda, as itself: a function of your own"]
    assert says(source, "function") == []
