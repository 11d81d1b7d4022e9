"""The data as attacker: it is never expanded, loaded, run or obeyed, and what is kept is kept from others."""

from __future__ import annotations

import ast
import csv
import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import lcbatch
from lcbatch.observers.format import clean_block, clean_text
from lcbatch.records import Json
from lcbatch.simulator.process import SimulatorProcess
from lcbatch.sinks.names import stem
from lcbatch.sinks.plain import harmless
from tests.cli.work import Work
from tests.e2e.support import MODEL, Shop, command, environment, started
from tests.torture.hostile import TEXTS, tries
from tests.torture.scale import cases

_TRAPS = (
    "{}",
    "{",
    "}",
    "{{",
    "}}",
    "{{x}}",
    "{x}",
    "{text}",
    "{0}",
    "{x.__class__}",
    "{x!r:>10}",
    "%s",
    "%(text)s",
    "${text}",
    "$HOME",
    "{% for x in y %}",
    "{{ 7*7 }}",
    "<script>",
    "`id`",
    "$(id)",
    "\\u007b",
    "'; DROP TABLE rows; --",
    "__import__('os').system('id')",
    '{"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "touch owned"}}',
    '{"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]}',
    "!!python/object/apply:os.system ['touch owned']",
    "gASVJwAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAx0b3VjaCBvd25lZJSFlFKULg==",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eevil",
    "\x9b31m",
)
"""Texts that some program somewhere would expand, load or obey."""


def _run(shop: Shop, *more: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    given = ["-m", MODEL, "--base-url", shop.provider.base_url, *more]
    return started("run", "in.jsonl", *given, cwd=shop.folder, **options)


@pytest.fixture
def provided(tmp_path: Path) -> Any:
    with SimulatorProcess() as provider:
        yield Shop(provider, tmp_path)


_TEMPLATE = 'T {x.__class__} {} {0} %s {{{{x}} {"lc":1} {text} {{text}} $HOME'


@pytest.mark.parametrize("system", [("--system", "{% %} %d {other} {text.x}"), ()][: cases(1, 2)])
def test_templates_and_data_arrive_as_they_are(provided: Shop, system: tuple[str, ...]) -> None:
    provided.write(
        "in.jsonl", [{"text": trap, "other": "{text}", "id": f"{number}"} for number, trap in enumerate(_TRAPS)]
    )

    done = _run(provided, "-p", _TEMPLATE, "-o", "out.jsonl", *system)

    assert done.returncode == 0, done.stderr
    around = _TEMPLATE.replace("{{text}}", "{text\0}").split("{text}")
    shown = [part.replace("{text\0}", "{text}").replace("{{{{x}}", "{{{x}") for part in around]
    expected = Counter(trap.join(shown) for trap in _TRAPS)
    said = Counter(_prompt(entry["prompt"]) for entry in provided.billed())
    assert said == expected
    assert [row["text"] for row in sorted(provided.output(), key=lambda row: int(row["id"]))] == list(_TRAPS)
    assert not (provided.folder / "owned").exists()


def _prompt(prompt: Any) -> str:
    """The user's part of what the ledger has, whose form depends on whether there is a system text."""
    return (
        str(prompt if isinstance(prompt, str) else prompt[-1]["content"])
        .removeprefix("{% %} %d {text} {text.x}")
        .lstrip("\n")
    )


def test_messages_of_a_row_are_messages_and_nothing_more(provided: Shop) -> None:
    rows = [{"messages": [{"role": "user", "content": trap, "lc": 1, "type": "constructor"}]} for trap in _TRAPS[:3]]
    rows += [{"messages": json.loads(_TRAPS[23])}, {"messages": [json.loads(_TRAPS[23])]}]
    provided.write("in.jsonl", rows)
    done = _run(provided, "-o", "out.jsonl", "--fail-on", "never")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(provided.output()) + len(provided.output("out.jsonl.errors.jsonl")) == len(rows)
    assert not (provided.folder / "owned").exists()


_WATCH = """
import os, sys
def hook(event, args):
    if event in {"pickle.find_class", "os.system"}:
        os.write(hook.log, f"{event} {args}\\n".encode())
hook.log = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(hook)
"""


def test_nothing_is_unpickled_by_a_run_a_rerun_or_a_look(provided: Shop) -> None:
    (provided.folder / "watch").mkdir()
    (provided.folder / "watch" / "sitecustomize.py").write_text(_WATCH)
    log = provided.folder / "watch.log"
    env = {"PYTHONPATH": str(provided.folder / "watch"), "WATCH_LOG": str(log)}
    provided.write("in.jsonl", [{"text": trap, "id": str(number)} for number, trap in enumerate(_TRAPS)])
    for _ in range(2):
        done = _run(provided, "-p", "{text}", "-o", "out.jsonl", env=env)
        assert done.returncode == 0, done.stderr
    assert started("export", "out.jsonl", "-o", "out.csv", cwd=provided.folder, env=env).returncode == 0
    assert log.read_text() == ""
    probe = [sys.executable, "-c", "import pickle; pickle.loads(pickle.dumps(print))"]
    subprocess.run(probe, env={**os.environ, **env}, check=True)
    assert "pickle.find_class" in log.read_text(), "the watch sees what it watches for"


_LOADERS = re.compile(
    r"^(pickle|cPickle|_pickle|dill|cloudpickle|marshal|shelve|yaml|joblib|langchain_core\.load)(\.|$)"
)


def test_no_module_of_ours_names_a_loader_of_objects() -> None:
    root = Path(lcbatch.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += (
                [f"{node.module}.{one.name}" for one in node.names]
                if isinstance(node, ast.ImportFrom) and node.module
                else []
            )
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names += [node.value]  # for importlib
            found += [
                f"{path.relative_to(root)}: {name}" for name in names if _LOADERS.match(name) and "\n" not in name
            ]
    assert found == []


def test_a_module_of_the_working_directory_is_not_imported_unasked(provided: Shop) -> None:
    """Nor does one there stand for a module that lcbatch itself imports."""
    for name in ("mine", "orjson", "aiofiles", "typing_extensions", "sitecustomize"):
        (provided.folder / f"{name}.py").write_text("open('owned', 'w')\ndef chain(fields): return 'x'\n")
    provided.write("in.jsonl", [{"text": "a"}])
    installed = Path(sys.executable).with_name("lcbatch")
    for program in ([sys.executable, "-P", "-m", "lcbatch"], [str(installed)]):
        run = [*program, "run", "in.jsonl", "--chain", "mine:chain", "-o", "own.jsonl"]
        done = subprocess.run(
            run, cwd=provided.folder, env=environment(provided.folder), capture_output=True, text=True, check=False
        )
        assert done.returncode == 78, done.stderr
        assert "--app-dir" in done.stderr
        assert not (provided.folder / "owned").exists()
    run = [str(installed), "run", "in.jsonl", "--chain", "./mine.py:chain", "-o", "own.jsonl"]
    subprocess.run(run, cwd=provided.folder, env=environment(provided.folder), capture_output=True, check=True)
    assert (provided.folder / "owned").exists(), "a file that is named is run"


_FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "=cmd|' /C calc'!A0",
    "-2+3",
    "+",
    "-",
    "=",
    "--5",
    "+cmd",
    "-1e",
    "1=1",
]
_NUMBERS = ["-5", "+5", "-5.25", "+1,000", "-1e9", "-.5", "-3 %", "7", "0.1"]
_CHAIN = "def answer(fields):\n    return {'said': fields['text'], 'n': -5, 'f': -0.5} if fields['text'] else ''\n"


@pytest.mark.parametrize("safe", [True, False])
def test_formulas_are_defused_in_tables_and_numbers_left_alone(tmp_path: Path, safe: bool) -> None:  # noqa: FBT001
    work = Work(tmp_path)
    (tmp_path / "chain.py").write_text(_CHAIN)
    work.write(*_FORMULAS, *_NUMBERS)
    assert work.run(output=str(tmp_path / "out.csv"), keep="none", csv_safe=safe).exit_code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    defused = [f"'{text}" if safe and text != "1=1" else text for text in _FORMULAS]
    assert [row["said"] for row in rows] == defused + _NUMBERS
    assert {(row["n"], row["f"]) for row in rows} == {("-5", "-0.5")}


_IDS = (
    "../up",
    "../../../../tmp/owned",
    "/etc/passwd",
    "a/../../up",
    "..",
    ".",
    "",
    "./x",
    "a//b",
    "~root",
    "-rf",
    "CON",
    "nul.txt",
    "aux",
    "COM1",
    "C:\\Windows",
    "..\\up",
    "x" * 5000,
    "é" * 300,
    "new\nline",
    "\x1b[2J",
    "a\0b",
    "\ud800",
    "link/x",
    "linkfile",
    ".hidden",
)


def test_ids_as_names_stay_in_the_folder(tmp_path: Path) -> None:
    work = Work(tmp_path)
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"id": name, "text": f"t{at}"}) + "\n" for at, name in enumerate(_IDS))
    )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "linkfile.md").symlink_to(tmp_path / "elsewhere" / "file")
    assert work.run(output=f"{tmp_path}/out/").exit_code == 0
    before = {"in.jsonl", "chain.py", "elsewhere", "out", "out.lcbatch", "out.lcbatch.lock", "__pycache__"}
    assert {path.name for path in tmp_path.iterdir()} <= before
    assert (tmp_path / "elsewhere" / "file").read_text() == "kept"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["file"]
    written = [path for path in (tmp_path / "out").rglob("*.md") if not path.is_symlink()]
    assert sorted(path.read_text().strip() for path in written) == sorted(f"T{at}" for at in range(len(_IDS)))


def test_a_link_in_the_output_folder_leads_nowhere(tmp_path: Path) -> None:
    work = Work(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"id": "link/x", "text": "a"}\n')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    report = work.run(output=f"{tmp_path}/out/")
    assert report.exit_code == 74
    assert list((tmp_path / "elsewhere").iterdir()) == []


@given(label=TEXTS)
@tries(150, 50_000)
def test_any_id_gives_a_name_inside(label: str) -> None:
    name = stem(label) + ".md"
    parts = name.split("/")
    assert not name.startswith("/")
    assert not {"", ".", ".."} & set(parts)
    assert all(len(os.fsencode(part)) <= 255 for part in parts)
    assert "\0" not in name
    assert Path(os.path.normpath(f"/out/{name}")).is_relative_to("/out")


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(text=TEXTS)
@tries(150, 50_000)
def test_what_is_shown_steers_no_terminal(text: str) -> None:
    for shown in (clean_text(text), clean_block(text), harmless(text)):
        assert not _CONTROLS.search(shown), repr(shown)
    assert "\n" not in clean_text(text)


_ESCAPES = "\x1b[2J\x1b]52;c;b3duZWQ=\x07\x1b]8;;http://evil\x1b\\ \x9b31m \u202eevil"
_ECHO = "def answer(fields):\n    if fields['n'] == 1: raise ValueError(fields['text'])\n    return fields['text']\n"


def test_escapes_in_answers_names_and_errors_are_kept_in_data_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "chain.py").write_text(_ECHO)
    name = f"in{_ESCAPES}.jsonl".replace("/", "-")
    rows = [{"id": f"id{_ESCAPES}", "n": number, "text": f"t{_ESCAPES}"} for number in range(3)]
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken \x1b[2J\n")
    to: tuple[list[str], ...] = (["-o", "out.jsonl"], [])
    shown = [_on_a_terminal("run", name, "--chain", "chain.py:answer", *stdout, cwd=tmp_path) for stdout in to]
    shown.append(_on_a_terminal("status", "out.jsonl", cwd=tmp_path))
    shown.append(_on_a_terminal("run", f"missing{name}", "--chain", "chain.py:answer", "-o", "o.jsonl", cwd=tmp_path))
    shown.append(
        _on_a_terminal("run", name, "--chain", "chain.py:answer", "-o", "out.jsonl", "--dry-run", cwd=tmp_path)
    )
    for text in shown:
        assert text.strip()
        for steering in ("\x1b[2J", "\x1b]52", "\x1b]8;;http://evil", "\x9b31m", "\u202e"):
            assert steering not in text, (steering, text)
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["output"] for row in out] == [f"t{_ESCAPES}"] * 2
    assert f"t{_ESCAPES}" in [row.get("text") for row in _errors(tmp_path)]


def _errors(folder: Path) -> list[dict[str, Json]]:
    return [json.loads(line) for line in (folder / "out.jsonl.errors.jsonl").read_text().splitlines()]


def _on_a_terminal(*arguments: str, cwd: Path) -> str:
    """All that a command shows on a terminal of its own."""
    leader, follower = pty.openpty()
    env = {**environment(cwd), "TERM": "xterm-256color"}
    process = subprocess.Popen(command(*arguments), cwd=cwd, env=env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    said = bytearray()
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # EIO: the last one who had it open has gone
            break
        if not piece:
            break
        said += piece
    os.close(leader)
    process.wait(timeout=60)
    return said.decode(errors="replace")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_store_and_errors_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    work = Work(tmp_path)
    work.write("a", "bad", "b")
    seen: dict[str, int] = {}

    def look() -> None:
        for path in tmp_path.iterdir():
            if path.name.startswith("out.jsonl."):
                seen[path.name.removeprefix("out.jsonl.")] = stat.S_IMODE(path.stat().st_mode)

    (tmp_path / "chain.py").write_text(
        (tmp_path / "chain.py").read_text() + "\nimport builtins\nlook = builtins.look\n"
        "plain = answer\ndef answer(fields):\n    look()\n    return plain(fields)\n"
    )
    import builtins  # noqa: PLC0415

    builtins.look = look  # type: ignore[attr-defined]
    before = os.umask(umask)
    try:
        assert work.run().exit_code == 3
        look()
    finally:
        os.umask(before)
        del builtins.look  # type: ignore[attr-defined]
    assert {"lcbatch", "lcbatch-wal", "lcbatch-shm", "lcbatch.lock", "lcbatch.reserve", "errors.jsonl"} <= seen.keys()
    assert set(seen.values()) == {0o600}, {name: oct(mode) for name, mode in seen.items()}
