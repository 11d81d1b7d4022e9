"""What doctor finds, what it advises, and with which code it leaves."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lcbatch.cli.commands import app

SAMPLES = Path(__file__).parents[2] / "samples"
KEY = "sk-canary-123"


class Doctor:
    """The command in a folder, with an environment of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = monkeypatch
        monkeypatch.chdir(folder)
        for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LCBATCH_MODEL", "OPENAI_BASE_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def says(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["doctor", *arguments], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        assert result.return_value == code, result.output
        assert KEY not in result.output
        return result.output


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    return Doctor(tmp_path, monkeypatch)


def test_a_sound_machine(doctor: Doctor) -> None:
    text = doctor.says()

    assert "BAD" not in text
    for found in ("lcbatch 0.", "Python 3.", "langchain-core 1.", "openai 3.", "open files: ", "TLS certificates: "):
        assert f"ok   {found}" in text or found in text
    assert "keys in the environment: " in text
    assert "OPENAI_API_KEY" in text
    assert f"{doctor.folder} can hold a run store" in text
    assert "model:" not in text


def test_few_open_files_and_no_certificates_are_bad(doctor: Doctor) -> None:
    doctor.patch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    doctor.patch.setenv("SSL_CERT_FILE", str(doctor.folder / "nil.pem"))
    doctor.patch.setattr("ssl.get_default_verify_paths", lambda: type("Paths", (), {"cafile": None, "capath": None}))

    text = doctor.says()

    assert "BAD  open files: 256 at most\n       one call in flight takes one: raise it with ulimit -n 4096" in text
    assert "BAD  TLS certificates: " in text
    assert "point SSL_CERT_FILE at a bundle" in text


def test_extras_that_are_not_installed_are_no_fault(doctor: Doctor) -> None:
    doctor.patch.setattr("importlib.util.find_spec", lambda name: None if name in {"pyarrow", "zstandard"} else name)

    assert "ok   extras not installed: parquet, zstd\n       pip install 'lcbatch[parquet,zstd]'" in doctor.says()


def test_tracing_is_pointed_out(doctor: Doctor) -> None:
    assert "LangSmith" not in doctor.says()
    doctor.patch.setenv("LANGSMITH_TRACING", "true")
    assert "LANGSMITH_TRACING is set: custom chains send their inputs and outputs to LangSmith" in doctor.says()


def test_a_config_file_is_read(doctor: Doctor) -> None:
    (doctor.folder / "lcbatch.toml").write_text("model = 'openai:m'\nlimit = 5")
    assert "ok   config file: limit, model" in doctor.says()
    (doctor.folder / "lcbatch.toml").write_text("modell = 'openai:m'")
    text = doctor.says(code=2)
    assert "modell is no option\n       did you mean 'model'?" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-m", "openai:gpt-5-mini"], 0, "ok   model: openai:gpt-5-mini"),
        (["-m", "lcbatch:extractive"], 0, "ok   model: lcbatch:extractive"),
        (["-m", "openai:m", "--api-key-env", "NO_SUCH_KEY"], 78, "NO_SUCH_KEY is not set\n       export NO_SUCH_KEY="),
        (["-m", "openai:m", "--base-url", "http://10.0.0.1/v1"], 78, "BAD  a key would travel unencrypted to 10.0.0.1"),
        (["-m", "gpt-5"], 78, "did you mean openai:gpt-5?"),
        (["--chain", f"{SAMPLES}/chains.py:shout"], 0, "ok   chain: "),
        (["--chain", f"{SAMPLES}/chains.py:shoot"], 78, "did you mean 'shout'?"),
    ],
)
def test_the_model_and_the_chain_of_a_run(doctor: Doctor, arguments: list[str], code: int, said: str) -> None:
    assert said in doctor.says(*arguments, code=code)


def test_the_model_may_be_named_as_for_a_run(doctor: Doctor) -> None:
    doctor.patch.setenv("LCBATCH_MODEL", "openai:m")

    assert "ok   model: openai:m" in doctor.says()
