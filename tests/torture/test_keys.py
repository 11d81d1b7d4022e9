"""A key goes to its provider and nowhere else: not into a file, not onto a screen, not into the list of processes."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, command, environment, look_again
from tests.torture.network import KEY, files_with, measured, way
from tests.torture.scale import WHOLE, note

_SEEN = hashlib.sha256(f"Bearer {KEY}".encode()).hexdigest()[:16]
"""As the simulator remembers whom it has met."""
_OPENAI = {"OPENAI_API_KEY": KEY}


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@dataclass(frozen=True)
class _Path:
    """A command and how it ends. URL stands for the provider's address."""

    arguments: tuple[str, ...]
    code: int
    env: Mapping[str, str] = field(default_factory=lambda: _OPENAI)
    texts: tuple[str, ...] = ("a", "b")
    files: Mapping[str, str] = field(default_factory=dict)
    asks: bool = True


def _run(*more: str) -> tuple[str, ...]:
    return ("run", "in.jsonl", "-m", MODEL, "-p", "Say {text}", "-o", "out.jsonl", "--debug", *more)


_HERE = ("--base-url", "URL")
_ENDPOINTS = '[[endpoints]]\nbase_url = "URL"\napi_key_env = "EU_TOKEN"\n'
_ECHOES = ("a", "[[fault:echo-400]]", "[[fault:echo-html]]", "[[fault:errbody:1]]", "[[fault:badjson]]")

_PATHS = {
    "all is well": _Path(_run(*_HERE, "--meta", "--progress", "json", "--summary-json", "figures.json"), 0),
    "rows whose refusal quotes it": _Path(_run(*_HERE, "-j", "1"), 3, texts=_ECHOES),
    "a refusal that quotes it": _Path(_run(*_HERE), 77, texts=("[[fault:echo]]",)),
    "a page that quotes it": _Path(_run(*_HERE), 3, texts=("[[fault:echo-html]]",)),
    "pages that quote it": _Path(_run(*_HERE), 78, texts=("[[fault:echo-html]]", "[[fault:echo-html]] b")),
    "a key by another name": _Path(_run(*_HERE, "--api-key-env", "MY_OWN"), 77, {"MY_OWN": KEY}, ("[[fault:echo]]",)),
    "endpoints": _Path(_run(), 77, {"EU_TOKEN": KEY}, texts=("[[fault:echo]]",), files={"lcbatch.toml": _ENDPOINTS}),
    "embeddings": _Path(
        ("embed", "in.jsonl", "-m", MODEL, *_HERE, "-p", "{text}", "-o", "v.jsonl", "--debug"),
        77,
        texts=("[[fault:echo]]",),
    ),
    "nobody there": _Path(_run("--base-url", "http://127.0.0.1:9/v1"), 69, asks=False),
    "in the clear": _Path(_run("--base-url", "http://192.0.2.1/v1"), 78, asks=False),
    "no URL": _Path(_run("--base-url", "ftp://127.0.0.1/v1"), 78, asks=False),
    "a line break in it": _Path(_run(*_HERE), 78, {"OPENAI_API_KEY": f"{KEY}\n"}, asks=False),
    "a sign in it that no header takes": _Path(_run(*_HERE), 78, {"OPENAI_API_KEY": f"{KEY}\u2026"}, asks=False),
    "a dry run": _Path(_run(*_HERE, "--dry-run"), 0, asks=False),
    "the doctor": _Path(("doctor", "-m", MODEL, *_HERE), 0, asks=False),
    "a field that no row has": _Path(_run(*_HERE, "--system", "{nothing}"), 78, asks=False),
}
_PART = ("rows whose refusal quotes it", "a line break in it", "endpoints")


@pytest.mark.parametrize("name", sorted(_PATHS) if WHOLE else _PART)
def test_the_key_is_left_nowhere(provider: SimulatorProcess, tmp_path: Path, name: str) -> None:
    path, url = _PATHS[name], provider.base_url
    shop = Shop(provider, tmp_path / "run")
    shop.folder.mkdir()
    shop.write("in.jsonl", [{"text": text} for text in path.texts])
    for file, text in path.files.items():
        (shop.folder / file).write_text(text.replace("URL", url))
    before = provider.stats()["requests"]
    arguments = [url if one == "URL" else one for one in path.arguments]
    ended = measured(*arguments, cwd=shop.folder, env=path.env)
    assert ended.code == path.code, ended.said
    _assert_nowhere(tmp_path, ended.said + ended.out)
    assert (provider.stats()["requests"] > before) == path.asks
    assert not path.asks or _SEEN in provider.stats()["authorization_sha256"]
    for later in (["status", "out.jsonl"], ["export", "out.jsonl", "-o", "again.csv"]) if path.code == 3 else ():
        again = measured(*later, cwd=shop.folder, env=path.env)
        assert again.code == 0, again.said
        _assert_nowhere(tmp_path, again.said + again.out)
    note(f"the key: {name}", "in no file, on no screen, in no traceback", "nowhere")


def test_the_key_is_left_nowhere_by_a_chain_of_ones_own(provider: SimulatorProcess, tmp_path: Path) -> None:
    shop = Shop(provider, tmp_path / "run")
    shop.folder.mkdir()
    for fault, code in (("echo", 77), ("echo-400", 3)) if WHOLE else (("echo", 77),):
        shop.write("in.jsonl", [{"text": f"[[fault:{fault}]]"}])
        ended = measured(
            "run", "in.jsonl", *way("own", shop), "-o", f"{fault}.jsonl", "--debug", cwd=shop.folder, env=_OPENAI
        )
        assert ended.code == code, ended.said
        assert "[the key]" in ended.said
        _assert_nowhere(tmp_path, ended.said + ended.out)


def test_the_key_is_in_no_list_of_processes(provider: SimulatorProcess, tmp_path: Path) -> None:
    """While a call hangs; the readers of documents are processes of their own."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("needs /proc")
    shop = Shop(provider, tmp_path)
    (tmp_path / "docs").mkdir()
    for index in range(4):
        (tmp_path / "docs" / f"{index}.html").write_text("<p>[[fault:hang]] It says this, and more of it.</p>")
    before = provider.stats()["requests"]
    run = subprocess.Popen(
        command("summarize", "docs", "-m", MODEL, "--base-url", provider.base_url, "-o", "s.jsonl"),
        cwd=shop.folder, env=environment(shop.folder, **_OPENAI), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        while run.poll() is None and provider.stats()["requests"] == before:
            look_again()
        lines = _command_lines(run.pid)
    finally:
        run.kill()
        run.wait()
    assert any(b"summarize" in line for line in lines), lines
    assert not any(KEY.encode() in line for line in lines)


def _command_lines(session: int) -> list[bytes]:
    """Of all processes of a session."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                found.append((process / "cmdline").read_bytes())
        except (OSError, ValueError):
            continue  # it ended meanwhile
    return found


def _assert_nowhere(folder: Path, said: str) -> None:
    """In nothing that was said, and in no file: output, store, its log, errors, figures, caches."""
    assert KEY not in said
    assert files_with(KEY, folder) == []
    assert files_with("in.jsonl", folder), "it looks into files"
