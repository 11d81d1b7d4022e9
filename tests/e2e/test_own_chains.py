"""A user's own chain: the samples as LangChain runs them, steps by name, inputs checked, nothing paid twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import Shop, cli, command, environment, look_again, rows_of

_HERE = Path(__file__).parent
_CHAINS = _HERE / "own_chains.py"
_SAMPLES = _HERE.parents[1] / "samples"
SAMPLES = {
    "agent.py:agent": "tickets.csv",
    "retriever.py:handbook": "questions.jsonl",
    "three_steps.py:report": "prompts.jsonl",
}

_BY_LANGCHAIN = """
import asyncio, json, runpy, sys
file, name = sys.argv[1].split(":")
chain = runpy.run_path(file)[name]()
async def main():
    return [await chain.ainvoke(row) for row in json.load(sys.stdin)]
print(json.dumps(asyncio.run(main())))
"""


@pytest.fixture
def env(provider: SimulatorProcess) -> dict[str, str]:
    return {"OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "none-needed"}


def summary(shop: Shop, env: dict[str, str], chain: str, *options: str) -> dict[str, Any]:
    ran = cli(
        "run", "in.jsonl", "--chain", chain, "-o", "out.jsonl", "--fresh", "--summary-json", "s.json", *options,
        cwd=shop.folder, env=env,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    figures: dict[str, Any] = json.loads((shop.folder / "s.json").read_text())
    figures["said"] = ran.stderr
    return figures


def test_options_for_a_model_and_a_prompt_are_said_not_to_be_used(shop: Shop, env: dict[str, str]) -> None:
    """No key is asked for, and nobody takes `-m` for what answers: the model is the one in the chain's own code."""
    shop.write("in.jsonl", rows_of("a"))
    options = ("-m", "openai:cheap", "--api-key-env", "NO_SUCH_KEY", "-p", "Say {text}")
    found = summary(shop, env, f"{_SAMPLES}/three_steps.py:report", *options)
    assert "not used, as --chain asks models of its own: --prompt, --model, --api-key-env" in found["said"]
    assert "cheap" not in found["model"]


@pytest.mark.parametrize("chain", sorted(SAMPLES))
def test_a_sample_gives_what_langchain_alone_gives(shop: Shop, env: dict[str, str], chain: str) -> None:
    rows = _SAMPLES / SAMPLES[chain]
    ran = cli("run", rows, "--chain", f"{_SAMPLES}/{chain}", "-o", "out.jsonl", "--ordered", cwd=shop.folder, env=env)
    assert ran.returncode == 0, ran.stderr
    ours = shop.output()
    asked = [{name: value for name, value in row.items() if name != "output"} for row in ours]
    by_hand = subprocess.run(
        [sys.executable, "-c", _BY_LANGCHAIN, f"{_SAMPLES}/{chain}"],
        env=environment(shop.folder, **env), input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert by_hand.returncode == 0, by_hand.stderr
    assert [row["output"] for row in ours] == json.loads(by_hand.stdout)
    assert len(ours) > 5


def test_the_agent_calls_both_its_tools(shop: Shop, env: dict[str, str]) -> None:
    before = len(shop.billed())
    shop.write("in.jsonl", [{"customer": "Ada", "subject": "Help", "body": "It broke.", "created": "2026-01-02"}])
    assert summary(shop, env, f"{_SAMPLES}/agent.py:agent")["calls"]["answered"] == 3
    said = [call["answer"] for call in shop.billed()[before:]]
    assert '"name"' in said[0]
    assert '"priority"' in said[1]
    assert said[2].startswith("echo ")


@pytest.mark.parametrize(
    ("chain", "options"),
    [
        ("by_run_name", ()), ("by_run_name", ("--no-compile",)), ("by_key", ()), ("by_key", ("--no-compile",)),
        ("by_assigned_key", ()), ("by_assigned_key", ("--no-compile",)), ("by_models_own_name", ()),
        ("by_models_own_name", ("--no-compile",)), ("in_a_function", ()), ("in_a_thread", ()), ("in_a_part", ()), ("graph", ()),
    ],
)  # fmt: skip
def test_calls_are_told_by_the_name_of_their_step(
    shop: Shop, env: dict[str, str], chain: str, options: tuple[str, ...]
) -> None:
    shop.write("in.jsonl", rows_of("one", "two"))
    figures = summary(shop, env, f"{_CHAINS}:{chain}", *options)
    assert {name: step["answered"] for name, step in figures["steps"].items()} == {"draft": 2, "polish": 2}
    for part in ("prompt", "completion"):
        assert sum(step["tokens"][part] for step in figures["steps"].values()) == figures["tokens"][part]
    # In the order of their first answers, which no one decides where steps run side by side.
    assert re.search(r"^by step   (draft|polish): 2 calls, p50 ", figures["said"], re.MULTILINE)
    assert re.search(r"^ +(draft|polish): 2 calls, p50 ", figures["said"], re.MULTILINE)


def test_steps_without_names_go_by_their_models(shop: Shop, env: dict[str, str]) -> None:
    shop.write("in.jsonl", rows_of("one"))
    assert set(summary(shop, env, f"{_CHAINS}:by_label")["steps"]) == {"openai:draft", "openai:polish"}


def test_one_step_is_not_told_apart(shop: Shop, env: dict[str, str]) -> None:
    shop.write("in.jsonl", rows_of("one"))
    figures = summary(shop, env, f"{_CHAINS}:draft")
    assert figures["steps"] == {}
    assert "by step" not in figures["said"]


@pytest.mark.parametrize("options", [(), ("--no-compile",)])
def test_a_rows_config_says_whose_it_is(shop: Shop, env: dict[str, str], options: tuple[str, ...]) -> None:
    path = shop.write("in.jsonl", [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}])
    summary(shop, env, f"{_CHAINS}:listened", "--ordered", *options)
    for number, row in enumerate(shop.output()):
        told = {"lcbatch_row_id": row["id"], "lcbatch_ordinal": number, "lcbatch_place": f"{path.name}:{number + 1}"}
        heard = row["output"]["heard"]
        assert (heard["name"], heard["tags"]) == ("listened", ["lcbatch"])
        assert heard["metadata"].items() >= told.items()
        assert row["output"]["read"].items() >= told.items()


@pytest.mark.parametrize(
    ("chain", "row", "field", "hint"),
    [
        (
            "agent.py:agent",
            {"customer": "x", "subjct": "y", "body": "z", "created": ""},
            "subject",
            "did you mean 'subjct'?",
        ),
        ("retriever.py:handbook", {"questions": "x"}, "question", "did you mean 'questions'?"),
        ("three_steps.py:report", {"body": "x"}, "text", "known: body"),
    ],
)
def test_a_field_that_is_not_there_is_named_before_any_call(
    shop: Shop, env: dict[str, str], chain: str, row: dict[str, str], field: str, hint: str
) -> None:
    shop.write("in.jsonl", [row, row])
    before = len(shop.billed())
    ran = cli("run", "in.jsonl", "--chain", f"{_SAMPLES}/{chain}", "-o", "out.jsonl", cwd=shop.folder, env=env)
    assert ran.returncode == 78
    assert ran.stderr.splitlines()[-2:] == [f"error: none of the rows has a field {field!r}", f"hint: {hint}"]
    assert len(shop.billed()) == before
    assert not (shop.folder / "out.jsonl").exists()


def test_kill_9_in_the_third_step_repays_no_earlier_call(shop: Shop, env: dict[str, str]) -> None:
    rows = rows_of(*(f"killed {number}" for number in range(4)))
    shop.write("in.jsonl", rows)
    before, asked = len(shop.billed()), shop.provider.stats()["requests"]
    arguments = ("run", "in.jsonl", "--chain", f"{_CHAINS}:stuck_at_the_third", "-o", "out.jsonl")
    run = subprocess.Popen(command(*arguments), cwd=shop.folder, env=environment(shop.folder, **env))
    while shop.provider.stats()["requests"] < asked + 3 * len(rows):
        assert run.poll() is None, "it ended before it could be killed"
        look_again()
    run.kill()
    run.communicate()
    paid = [call["prompt"] for call in shop.billed()[before:]]
    assert sorted(prompt.split()[0] for prompt in paid) == ["Draft"] * 4 + ["Polish"] * 4
    again = cli(*arguments, cwd=shop.folder, env=env)
    assert again.returncode == 0, again.stderr
    billed = [call["prompt"] for call in shop.billed()[before:]]
    assert billed[: len(paid)] == paid
    assert [prompt.split()[0] for prompt in billed[len(paid) :]] == ["Check"] * 4


@pytest.mark.parametrize("name", ["LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2"])
def test_where_traces_are_sent_to_is_said_to_quiet_runs_too_and_nothing_else(shop: Shop, name: str) -> None:
    shop.write("in.jsonl", rows_of("a"))
    env = {name: "true", "LANGSMITH_API_KEY": "none-needed", "LANGSMITH_ENDPOINT": "http://127.0.0.1:9"}

    ended = cli(*shop.words("in.jsonl"), "-q", cwd=shop.folder, env=env)

    assert ended.returncode == 0
    assert (
        ended.stderr == "lcbatch: tracing to LangSmith at 127.0.0.1:9: inputs and outputs of all steps are sent there\n"
    )
