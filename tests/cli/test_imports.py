"""A start is quick: what needs no model loads none of the heavy packages."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from lcbatch.store.opened import open_store

_HEAVY = ("langchain", "langsmith", "openai", "httpx", "httpx2", "aiohttp", "numpy", "pyarrow", "genai_prices")
"""pydantic is none of them: Typer loads it by itself (50 ms) as soon as a command's parameters are read."""

_LANGCHAIN = ("langchain", "langsmith", "openai", "httpx")

_SCRIPT = """
import json, sys
from lcbatch.__main__ import main
sys.argv = ["lcbatch", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code
heavy = json.loads({heavy!r})
found = sorted(name for name in sys.modules if name.partition(".")[0].startswith(tuple(heavy)))
sys.stderr.write(json.dumps([code, found]))
"""


def started(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, heavy: tuple[str, ...] = _HEAVY
) -> tuple[int, list[str], str]:
    """(exit code, heavy modules that were imported, stdout) of one start."""
    said = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(heavy=json.dumps(heavy)), *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **(env or {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    code, found = json.loads(said.stderr.splitlines()[-1])
    return code, found, said.stdout


_COMPLETING = {"_LCBATCH_COMPLETE": "complete_bash", "COMP_WORDS": "lcbatch ru", "COMP_CWORD": "1"}


@pytest.mark.parametrize(
    ("arguments", "env", "shown"),
    [
        (["run", "--help"], {}, "--max-output-tokens"),
        (
            ["--show-completion", "bash"],
            {"SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
            "complete",
        ),
        ([], _COMPLETING, "run"),
    ],
    ids=["run --help", "show-completion", "completion"],
)
def test_a_start_that_needs_no_model_loads_none(
    tmp_path: Path, arguments: list[str], env: dict[str, str], shown: str
) -> None:
    code, found, stdout = started(*arguments, cwd=tmp_path, env=env)

    assert (code, found) == (0, [])
    assert shown in stdout


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_quickest_starts_load_no_pydantic_either(tmp_path: Path, argument: str) -> None:
    code, found, _ = started(argument, cwd=tmp_path, heavy=(*_HEAVY, "pydantic"))

    assert (code, found) == (0, [])


def test_status_loads_no_model(tmp_path: Path) -> None:
    async def store() -> None:
        async with open_store(tmp_path / "out.jsonl.lcbatch"):
            pass

    asyncio.run(store())

    code, found, stdout = started("status", "out.jsonl", "--json", cwd=tmp_path)

    assert (code, found) == (0, [])
    assert json.loads(stdout)["rows"] == 0


def test_an_error_before_any_model_loads_none(tmp_path: Path) -> None:
    (tmp_path / "lcbatch.toml").write_text("modell = 1")

    code, found, _ = started("run", "in.jsonl", cwd=tmp_path)

    assert (code, found) == (2, [])


def test_a_model_that_was_set_up_before_is_asked_without_langchain(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    with SimulatorProcess() as provider:
        asked = ("run", "in.txt", "--input-format", "lines", "-m", "openai:sim", "--base-url", provider.base_url)
        starts = [
            started(*asked, "-p", "Say {text}", "-o", f"out{turn}.jsonl", "-q", cwd=tmp_path, heavy=_LANGCHAIN)
            for turn in range(2)
        ]

    assert [code for code, _, _ in starts] == [0, 0]
    assert "langchain_openai" in starts[0][1]
    assert starts[1][1] == []


def test_a_run_that_sends_nothing_loads_no_client(tmp_path: Path) -> None:
    (tmp_path / "doc.txt").write_text("The first sentence says it. The second says it again, and at more length.")

    code, found, _ = started(
        "summarize", "doc.txt", "-o", "out.jsonl", "-q", cwd=tmp_path, heavy=("aiohttp", "openai", "langchain_openai")
    )

    assert (code, found) == (0, [])


def test_the_package_itself_is_light(tmp_path: Path) -> None:
    code = (
        "import lcbatch, sys, json; lcbatch.Job.of('a');"
        f"print([name for name in sys.modules if name.startswith({_HEAVY!r})])"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert said.stdout == "[]\n"
