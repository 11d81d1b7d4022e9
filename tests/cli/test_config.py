"""The config file, and which of flag, environment and file wins."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lcbatch.cli.commands import app
from lcbatch.cli.config import config_options
from lcbatch.errors import InputMissing, LcbatchError, UsageError
from lcbatch.job import EMBED, RUN, SUMMARIZE, Job

SAMPLE = Path(__file__).parents[2] / "samples" / "lcbatch.toml"


class Cli:
    """The command line in a folder, up to the job that it would start."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.jobs: list[Job] = []
        monkeypatch.chdir(folder)
        monkeypatch.setitem(sys.modules, "lcbatch.cli.start", SimpleNamespace(start=self._start))

    def _start(self, job: Job) -> int:
        self.jobs.append(job)
        return 0

    def write(self, text: str, name: str = "lcbatch.toml") -> None:
        (self.folder / name).write_text(text)

    def job(self, *arguments: str, **env: str) -> Job:
        result = CliRunner().invoke(app, list(arguments), env=env)
        if isinstance(result.exception, LcbatchError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return self.jobs.pop()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    return Cli(tmp_path, monkeypatch)


def test_flag_over_environment_over_file_over_default(cli: Cli) -> None:
    def words(*flags: str, **env: str) -> int:
        return cli.job("summarize", "a", *flags, **env).chain.words

    assert words() == 120
    cli.write("words = 50\n[summarize]\nwords = 60")
    assert words() == 60, "a command's own table wins over the file's top"
    assert words(LCBATCH_WORDS="70") == 70
    assert words("--words", "80", LCBATCH_WORDS="70") == 80


@pytest.mark.parametrize(
    ("file", "env", "flags", "expected"),
    [
        ('model = "a:b"', {}, [], {"model": "a:b"}),
        ('model = "a:b"', {"LCBATCH_MODEL": "c:d"}, [], {"model": "c:d"}),
        ('model = "a:b"', {"LCBATCH_MODEL": ""}, [], {"model": "a:b"}),
        ('model = "a:b"', {"LCBATCH_MODEL": "c:d"}, ["-m", "e:f"], {"model": "e:f"}),
        ('include = ["*.md"]', {}, [], {"include": ("*.md",)}),
        ('include = ["*.md"]', {"LCBATCH_INCLUDE": "*.txt *.rst"}, [], {"include": ("*.txt", "*.rst")}),
        ('include = ["*.md"]', {}, ["--include", "*.py"], {"include": ("*.py",)}),
        ("flatten = false", {}, [], {"flatten": False}),
        ("flatten = false", {}, ["--flatten"], {}),
        ("meta = true", {"LCBATCH_ORDERED": "0"}, [], {"meta": True, "ordered": False}),
        ('timeout = "2m"\nconcurrency = 8', {}, [], {"timeout": 120.0, "concurrency": "8"}),
        ("max-output-tokens = 5", {}, [], {"max_output_tokens": 5}),
        ("words = 5\n[embed]\nmodel = 'x:y'", {}, [], {}),
    ],
)
def test_each_kind_of_option_from_each_place(
    cli: Cli, file: str, env: dict[str, str], flags: list[str], expected: dict[str, Any]
) -> None:
    cli.write(file)

    assert cli.job("run", "a", *flags, **env).options() == expected


def test_inputs_and_task_are_what_the_command_says(cli: Cli) -> None:
    job = cli.job("run", "a", "b/*.csv", "--store", "s")

    assert (job.task, job.inputs) == ("run", ("a", "b/*.csv"))
    assert cli.job("summarize", "a").task == "summarize"


def test_another_file_may_be_named_and_the_folder_s_own_is_then_not_read(cli: Cli) -> None:
    cli.write("limit = 1\nmeta = true")
    cli.write("limit = 2", "other.toml")

    assert cli.job("run", "a", "--config", "other.toml").options() == {"limit": 2}
    assert cli.job("run", "a", LCBATCH_CONFIG="other.toml").options() == {"limit": 2}


def test_pyproject_is_read_where_there_is_no_file_of_our_own(cli: Cli) -> None:
    cli.write("[tool.lcbatch]\nlimit = 3\n[tool.lcbatch.run]\nmeta = true", "pyproject.toml")
    assert cli.job("run", "a").options() == {"limit": 3, "meta": True}
    cli.write("limit = 4")
    assert cli.job("run", "a").options() == {"limit": 4}


def test_a_pyproject_of_others_is_none_of_our_business(cli: Cli) -> None:
    cli.write("[tool.ruff]\nline-length = 120", "pyproject.toml")

    assert cli.job("run", "a").options() == {}


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("modell = 'a:b'", "lcbatch.toml: modell is no option", "did you mean 'model'?"),
        ("[run]\nwords = 5", "lcbatch.toml: [run] words is no option", "known: "),
        ("[summarize]\nwordz = 5", "lcbatch.toml: [summarize] wordz is no option", "did you mean 'words'?"),
        ("run = 5", "lcbatch.toml: [run] is no table", ""),
        ("words = 'many'", "lcbatch.toml: --words cannot be 'many'", "a whole number"),
        ("[run]\non_change = 'maybe'", "lcbatch.toml: --on-change cannot be 'maybe'", "one of refuse, redo, keep"),
        ("timeout = 'soon'", "lcbatch.toml: --timeout cannot be 'soon'", "90s"),
        ("model = ", "lcbatch.toml: Invalid value", "the file is TOML"),
        ("api_key = 'sk-1'", "lcbatch.toml: api_key is no option", "did you mean 'api_key_env'?"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(cli: Cli, text: str, said: str, hint: str) -> None:
    cli.write(text)

    with pytest.raises(UsageError) as raised:
        cli.job("run", "a")

    assert said in raised.value.message
    assert hint in raised.value.hint
    assert "sk-1" not in raised.value.message


def test_the_other_command_s_table_is_checked_too(cli: Cli) -> None:
    cli.write("[run]\nmodell = 'a:b'")

    with pytest.raises(UsageError, match=r"\[run\] modell is no option"):
        cli.job("summarize", "a")


@pytest.mark.parametrize("text", ["tool = 5", "[tool]\nlcbatch = 5"])
def test_a_pyproject_that_is_no_pyproject(cli: Cli, text: str) -> None:
    cli.write(text, "pyproject.toml")

    with pytest.raises(UsageError, match="is no table"):
        cli.job("run", "a")


def test_a_file_that_is_not_there_or_is_no_text(cli: Cli) -> None:
    with pytest.raises(InputMissing, match=r"cannot read the config file nil\.toml: No such file"):
        cli.job("run", "a", "--config", "nil.toml")
    (cli.folder / "bytes.toml").write_bytes(b"model = '\xff'")
    with pytest.raises(UsageError, match=r"bytes\.toml"):
        cli.job("run", "a", "--config", "bytes.toml")


@pytest.mark.parametrize("task", [RUN, SUMMARIZE, EMBED])
def test_the_sample_is_a_config_file(task: str) -> None:
    options = config_options(task, str(SAMPLE), SAMPLE.parent)

    job = Job.of(task=task, **options)

    assert job.model.model == "openai:gpt-5-mini"
    assert job.run.concurrency == "8"
    assert job.output.meta is (task == RUN)
    assert job.chain.language == ("English" if task == SUMMARIZE else None)


def test_a_config_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="/dev/zero: it is larger than 16 MB"):
        config_options(RUN, "/dev/zero", tmp_path)
