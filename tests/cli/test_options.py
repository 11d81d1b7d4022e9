"""Options on the command line: all that are declared, and all that the design promises."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from lcbatch.cli.commands import app
from lcbatch.job import RUN, SUMMARIZE, Job, declared_options

_PROMISED = """
--base-url --api-key-env --temperature --max-output-tokens --reasoning-effort --model-arg --timeout --insecure-http
--input-format --delimiter --encoding --include --exclude --loader --on-removed --on-change --limit --fresh --if-locked
--output-field --keep --meta --ordered --failed-rows --errors --store --no-flatten --no-csv-safe --fail-on --max-failures
--max-time --max-wait --drain-timeout --progress --quiet --summary-json --debug --config --system
"""
"""The design's command line: it may not change without being asked for."""

_OF_RUN = "--chain --chain-arg --chain-version --app-dir --key"
_OF_SUMMARIZE = "--words --language --focus"
_SHORT = "-m -o -p -j -q -h"


def help_of(command: str) -> set[str]:
    """The names that a command's help shows."""
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", result.output))


@pytest.mark.parametrize(
    ("task", "own", "others"), [(RUN, _OF_RUN, _OF_SUMMARIZE), (SUMMARIZE, _OF_SUMMARIZE, _OF_RUN)]
)
def test_help_shows_every_option_and_no_other_command_s(task: str, own: str, others: str) -> None:
    shown = help_of(task)

    declared = {
        "--" + spec.name.replace("_", "-")
        for _, spec in declared_options()
        if task in spec.metadata["tasks"] and spec.metadata["flag"] != ""
    }
    assert declared <= shown
    assert {*_PROMISED.split(), *own.split(), *_SHORT.split()} <= shown
    assert not shown & set(others.split())


def test_help_stands_in_panels_with_defaults_and_choices() -> None:
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output

    for panel in ("Input", "Chain", "Model", "Output", "Running", "Display"):
        assert f"─ {panel} ─" in text
    assert "(default: 600s)" in text
    assert "(default: 64m)" in text
    assert "One of refuse, redo, keep." in text
    assert "(default: auto)" in text


def test_every_command_explains_itself() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output

    for command in ("run", "summarize", "status", "retry", "export", "stop", "simulate", "doctor"):
        assert f" {command} " in shown


def test_each_group_is_a_panel_of_its_own() -> None:
    groups = {group for group, _ in declared_options()}

    assert len({type(getattr(Job(), group)).__doc__ for group in groups}) == len(groups)


@pytest.mark.parametrize(
    "arguments",
    [["run", "a", "--words", "5"], ["run", "a", "--limit", "x"], ["run", "a", "--modell", "x"], ["rnu", "a"]],
)
def test_what_the_command_line_does_not_know_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
