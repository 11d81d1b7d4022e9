"""How runs end: the exit code of the table, and a message that says how to go on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, cli, command, environment, look_again, rows_of


@contextmanager
def started(shop: Shop, *arguments: str, stdin: int | None = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """A run in the background; it is over when the block is."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=shop.folder,
        env=environment(shop.folder),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_called(provider: SimulatorProcess, calls: int) -> None:
    """Return when the provider has got so many requests."""
    while provider.stats()["requests"] < calls:
        look_again()


def call_arguments(shop: Shop, *more: str) -> list[str]:
    return ["-m", MODEL, "--base-url", shop.provider.base_url, "-p", "Say {text}", *more]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_drains_and_the_same_command_continues(tmp_path: Path, number: int, code: int) -> None:
    with SimulatorProcess(latency_s=0.05) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(400))))
        arguments = ["run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl", "-j", "8")]
        with started(shop, *arguments) as process:
            until_called(provider, 24)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        assert process.returncode == code, said
        assert "run the same command again to continue" in said
        stopped = len(provider.ledger())
        assert 0 < len(shop.output()) == stopped < 400
        provider.control(latency_s=0.0)
        again = cli(*arguments, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert len(shop.output()) == len(provider.ledger()) == 400


def test_a_second_signal_cuts_off(tmp_path: Path) -> None:
    with SimulatorProcess(faults={"hang": 1.0}) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of("a"))
        with started(shop, "run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl")) as process:
            until_called(provider, 1)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while "SIGINT" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130


def test_sigterm_while_waiting_on_an_idle_pipe(shop: Shop) -> None:
    with started(shop, "run", *call_arguments(shop, "-o", "out.jsonl"), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write('{"text": "one"}\n')
        process.stdin.flush()
        before = len(shop.billed())
        while len(shop.billed()) == before:
            look_again()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
        assert [row["text"] for row in shop.output()] == ["one"]


def test_head_ends_the_run(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(3000))))
    line = shlex.join(command("run", "in.jsonl", *call_arguments(shop, "-j", "4")))
    script = f"{line} | head -3; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=shop.folder, env=environment(shop.folder), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 141, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "Traceback" not in done.stderr
    assert len(shop.billed()) < 3000


def test_a_full_device_is_74(shop: Shop) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    shop.write("in.jsonl", rows_of("a", "b"))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("run", "in.jsonl", *call_arguments(shop)),
            cwd=shop.folder, env=environment(shop.folder), stdin=subprocess.DEVNULL, stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 74
    assert "No space left" in done.stderr


def test_a_missing_key_is_78_and_names_its_variable(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    done = cli("run", "in.jsonl", "-m", "openai:gpt-5-mini", "-p", "{text}", "-o", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 78
    assert "OPENAI_API_KEY" in done.stderr
    assert "hint:" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"], "nothing was made"


def test_an_unknown_column_is_78_with_a_suggestion_and_no_call(shop: Shop) -> None:
    before = len(shop.billed())
    shop.write("in.jsonl", rows_of("a", "b"))
    done = cli(
        "run",
        "in.jsonl",
        "-m",
        MODEL,
        "--base-url",
        shop.provider.base_url,
        "-p",
        "{txt}",
        "-o",
        "o.jsonl",
        cwd=shop.folder,
    )
    assert done.returncode == 78
    assert "'txt'" in done.stderr
    assert "'text'" in done.stderr
    assert len(shop.billed()) == before


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet", "out/"])
def test_a_run_that_comes_to_nothing_leaves_no_output(shop: Shop, output: str) -> None:
    shop.write("in.jsonl", [{"id": "a", "text": "a"}])
    ran = cli("run", "in.jsonl", *call_arguments(shop, "-p", "{txet}", "-o", output), cwd=shop.folder)
    assert ran.returncode == 78
    assert not (shop.folder / output).exists()


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("run", ("--key", "id", "--chain-arg", "a=1"), "not used without --chain: --chain-arg, --key"),
        (
            "run",
            ("--parse-retries", "3", "--schema-method", "tool"),
            "not used without --schema: --parse-retries, --schema-method",
        ),
        (
            "summarize",
            ("--strategy", "stuff", "--context-tokens", "5000"),
            "not used, as documents are taken whole: --context-tokens",
        ),
    ],
)
def test_options_that_decide_nothing_are_said(shop: Shop, task: str, options: tuple[str, ...], said: str) -> None:
    shop.write("in.jsonl", [{"id": "a", "text": "a"}])
    ran = cli(task, "in.jsonl", *call_arguments(shop, "-o", "out.jsonl", *options), cwd=shop.folder)
    assert ran.returncode == 0, ran.stderr
    assert said in ran.stderr


def test_an_empty_input_is_0_with_a_warning(shop: Shop) -> None:
    (shop.folder / "in.jsonl").write_text("")
    done = cli("run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl"), cwd=shop.folder)
    assert done.returncode == 0
    assert "no rows" in done.stderr
    assert (shop.folder / "out.jsonl").read_text() == ""


def test_a_folder_without_documents_is_66(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "picture.png").write_bytes(b"\x89PNG")
    done = cli("summarize", "docs", cwd=tmp_path)
    assert done.returncode == 66
    assert "docs" in done.stderr
    assert cli("summarize", "nowhere", cwd=tmp_path).returncode == 66


def test_run_without_a_model_is_2(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    done = cli("run", "in.jsonl", "-p", "{text}", cwd=tmp_path)
    assert done.returncode == 2
    assert "-m" in done.stderr
    assert cli("run", "in.jsonl", "--no-such-option", cwd=tmp_path).returncode == 2


def test_a_clash_of_field_names_is_2(shop: Shop) -> None:
    shop.write("in.jsonl", [{"text": "a", "output": "mine"}])
    done = cli("run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl"), cwd=shop.folder)
    assert done.returncode == 2
    assert "--output-field" in done.stderr


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("auth", 77, "--api-key-env"), ("forbidden", 77, "key"), ("notfound", 78, "-m"), ("quota", 8, "credit")],
)
def test_what_stops_a_run_at_once(tmp_path: Path, fault: str, code: int, said: str) -> None:
    with SimulatorProcess(faults={fault: 1.0}) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(200))))
        arguments = ["run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl", "-j", "4")]
        done = cli(*arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert provider.stats()["requests"] <= 8
        provider.control(faults={})
        assert cli(*arguments, cwd=tmp_path).returncode == 0, "it is resumable"
        assert len(shop.output()) == 200


def test_nobody_there_is_69(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
        url = f"http://127.0.0.1:{port}/v1"
        done = cli("run", "in.jsonl", "-m", MODEL, "--base-url", url, "-p", "{text}", "-o", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 69
    assert "--base-url" in done.stderr


def test_some_failed_rows_are_3_and_retry_mends_them(tmp_path: Path) -> None:
    with SimulatorProcess(faults={}) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of("good", "bad [[fault:context:1]]", "better"))
        arguments = ["run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl")]
        done = cli(*arguments, cwd=tmp_path)
        assert done.returncode == 3
        assert "lcbatch retry out.jsonl" in done.stderr
        errors = [json.loads(line) for line in (tmp_path / "out.jsonl.errors.jsonl").read_text().splitlines()]
        assert [row["_lcbatch_error"]["kind"] for row in errors] == ["context_length"]
        assert cli(*arguments, cwd=tmp_path).returncode == 3, "a final failure is not called again by itself"
        assert len(provider.ledger()) == 2
        assert cli(*arguments, "--fail-on", "new", cwd=tmp_path).returncode == 0
        (tmp_path / "in.jsonl").unlink()
        again = cli("retry", "out.jsonl", "--kind", "context_length", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert len(shop.output()) == 3
        assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


def test_retry_with_another_model_leaves_answered_rows(tmp_path: Path) -> None:
    with SimulatorProcess() as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of("good", "bad [[fault:filter]]"))
        arguments = ["run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl", "--meta")]
        assert cli(*arguments, cwd=tmp_path).returncode == 3
        provider.control(models=["sim", "other"])
        shop.write("in.jsonl", rows_of("good", "bad [[fault:filter]]"))
        assert cli("retry", "out.jsonl", "-m", "openai:other", cwd=tmp_path).returncode == 3
        assert {row["meta"]["model"] for row in shop.output()} == {"sim"}


def test_a_second_run_is_75_and_touches_nothing_while_others_look_on(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=0.2) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(600))))
        arguments = ["run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl", "-j", "4")]
        with started(shop, *arguments) as process:
            until_called(provider, 8)
            second = cli(*arguments, cwd=tmp_path)
            assert second.returncode == 75
            assert str(process.pid) in second.stderr
            assert cli(*arguments, "--if-locked", "skip", cwd=tmp_path).returncode == 0
            status = cli("status", "out.jsonl", "--json", cwd=tmp_path)
            figures = json.loads(status.stdout)
            assert figures["running"]
            assert figures["pid"] == process.pid
            exported = cli("export", "out.jsonl", cwd=tmp_path)
            assert exported.returncode == 0
            assert all(json.loads(line)["output"] for line in exported.stdout.splitlines())
            provider.control(latency_s=0.0)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert len(shop.output()) == len(provider.ledger()) == 600


def test_stop_drains_a_running_run(tmp_path: Path) -> None:
    with SimulatorProcess(latency_s=0.1) as provider:
        shop = Shop(provider, tmp_path)
        shop.write("in.jsonl", rows_of(*(f"row {index}" for index in range(500))))
        with started(shop, "run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl", "-j", "4")) as process:
            until_called(provider, 8)
            assert cli("stop", "out.jsonl", cwd=tmp_path).returncode == 0
            assert process.wait(timeout=30) == 143
        assert len(shop.output()) == len(provider.ledger())
        assert cli("stop", "out.jsonl", cwd=tmp_path).returncode == 0


def test_a_good_pipe_leaves_no_store_and_a_bad_one_names_it(shop: Shop) -> None:
    good = cli("run", *call_arguments(shop), cwd=shop.folder, stdin='{"text": "a"}\n{"text": "b"}\n')
    assert good.returncode == 0
    assert sorted(json.loads(line)["text"] for line in good.stdout.splitlines()) == ["a", "b"]
    state = shop.folder / "state" / "lcbatch"
    assert [path.name for path in state.iterdir() if not path.name.endswith(".lock")] == []
    bad = cli("run", *call_arguments(shop), cwd=shop.folder, stdin='{"text": "a [[fault:context]]"}\n{"text": "b"}\n')
    assert bad.returncode == 3
    stores = [path for path in state.iterdir() if path.name.endswith(".lcbatch")]
    assert len(stores) == 1
    assert str(stores[0]) in bad.stderr


def test_no_traceback_and_no_key_in_any_message(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    key = "sk-canary-0123456789"
    url = "http://127.0.0.1:9/v1"
    done = cli(
        "run", "in.jsonl", "-m", MODEL, "--base-url", url, "-p", "{text}", cwd=tmp_path, env={"OPENAI_API_KEY": key}
    )
    assert done.returncode == 69
    assert "Traceback" not in done.stderr
    for path in [*tmp_path.rglob("*")]:
        assert path.is_dir() or key.encode() not in path.read_bytes()
    assert key not in done.stderr + done.stdout
    assert os.fspath(sys.executable) not in done.stderr


def test_retry_of_an_ordered_output_with_a_gap_loses_no_row(tmp_path: Path) -> None:
    with SimulatorProcess() as provider:
        shop = Shop(provider, tmp_path)
        marks = {3: " [[fault:hang]]", 5: " [[fault:context:1]]"}
        rows = rows_of(*(f"row {index}{marks.get(index, '')}" for index in range(8)))
        shop.write("in.jsonl", rows)
        arguments = [
            "run",
            "in.jsonl",
            *call_arguments(shop, "-o", "out.jsonl", "-j", "4", "--ordered", "--timeout", "2s"),
        ]
        with started(shop, *arguments, "--drain-timeout", "0") as process:
            while len(provider.ledger()) < 6:
                look_again()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 143
        assert cli("retry", "out.jsonl", cwd=tmp_path).returncode == 0
        with SimulatorProcess(port=0) as other:
            shop.write("in.jsonl", rows)
            again = cli(*arguments, "--base-url", other.base_url, "--fail-on", "never", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert [row["text"] for row in shop.output()] == [row["text"] for row in rows if "hang" not in row["text"]]


def test_two_fresh_starts_within_a_second_keep_both_outputs(shop: Shop) -> None:
    shop.write("in.jsonl", rows_of("a"))
    for _ in range(3):
        assert (
            cli("run", "in.jsonl", *call_arguments(shop, "-o", "out.jsonl", "--fresh"), cwd=shop.folder).returncode == 0
        )
    assert len(list(shop.folder.glob("out.jsonl.old-*"))) == 2
