"""A user's own chain: where it may come from, what it may be, and what is said when it is not there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcbatch.chains.custom import CustomChain, load_custom
from lcbatch.errors import ConfigError, LcbatchError, UsageError
from lcbatch.job import ChainOptions

SAMPLES = Path(__file__).parents[2] / "samples" / "chains.py"

SOURCE = """
import asyncio, functools, threading
from langchain_core.runnables import RunnableLambda

runnable = RunnableLambda(lambda fields: fields["a"] * 2)
number = 5

class space:
    @staticmethod
    def inner(fields):
        return "inner"

def sync(fields):
    return threading.current_thread().name

async def with_await(fields):
    await asyncio.sleep(0)
    return threading.current_thread().name

class Caller:
    async def __call__(self, fields):
        return fields

caller = Caller()

def mutates(fields):
    fields["a"] = "changed"
    return fields

def factory(times=3, suffix=""):
    return RunnableLambda(lambda fields: fields["a"] * times + suffix)

def makes_function(word):
    def function(fields):
        return word
    return function

async def async_factory():
    return runnable

def makes_nothing():
    return None

def fails():
    raise ValueError("no such thing")

class Plain:
    def __init__(self, word="w"):
        self.word = word
    def __call__(self, fields):
        return self.word

def stops(fields):
    return next(iter([]))
"""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "own_chains.py"
    path.write_text(SOURCE)
    modules, search = set(sys.modules), list(sys.path)
    yield path
    sys.path[:] = search
    for name in set(sys.modules) - modules:
        if name.startswith(("lcbatch_chain_", "own_")):
            del sys.modules[name]


def load(chain: str, *arguments: str, key: str | None = None, **options: Any) -> CustomChain:
    return load_custom(ChainOptions(chain=chain, chain_arg=arguments, **options), key)


def output(chain: CustomChain, **fields: Any) -> Any:
    async def call() -> Any:
        async with asyncio.timeout(10):
            return await chain(fields)

    return asyncio.run(call())


@pytest.mark.parametrize(
    ("attribute", "arguments", "expected"),
    [
        ("runnable", (), "xx"),
        ("space.inner", (), "inner"),
        ("caller", (), {"a": "x"}),
        ("factory", (), "xxx"),
        ("factory", ("times=2", "suffix=!"), "xx!"),
        ("factory", ("times=2", 'suffix="4"'), "xx4"),
        ("makes_function", ("word=w",), "w"),
        ("makes_function", ("word=[1, 2]",), [1, 2]),
        ("Plain", (), "w"),
        ("Plain", ("word=v",), "v"),
    ],
)
def test_runnables_factories_and_functions(source: Path, attribute: str, arguments: Any, expected: Any) -> None:
    assert output(load(f"{source}:{attribute}", *arguments), a="x") == expected


def test_a_sync_function_runs_in_a_thread_and_an_async_one_in_the_loop(source: Path) -> None:
    here = threading.current_thread().name

    assert output(load(f"{source}:with_await")) == here
    assert output(load(f"{source}:sync")) != here


def test_a_function_gets_fields_of_its_own(source: Path) -> None:
    chain, fields = load(f"{source}:mutates"), {"a": "x"}

    assert asyncio.run(_call(chain, fields)) == {"a": "changed"}
    assert fields == {"a": "x"}


async def _call(chain: CustomChain, fields: dict[str, Any]) -> Any:
    return await chain(fields)


def test_stop_iteration_does_not_hang_the_row(source: Path) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        output(load(f"{source}:stops"))


def test_a_module_is_found_in_the_app_dir(source: Path) -> None:
    chain = load("own_chains:runnable", app_dir=str(source.parent))

    assert output(chain, a="y") == "yy"
    assert sys.path[-1] == str(source.parent), "last, so that it shadows nothing"


def test_a_file_may_import_its_neighbour_from_the_app_dir(source: Path) -> None:
    (source.parent / "own_helpers.py").write_text("word = 'helped'")
    user = source.parent / "own_user.py"
    user.write_text("import own_helpers\ndef run(fields):\n    return own_helpers.word\n")

    assert output(load(f"{user}:run", app_dir=str(source.parent))) == "helped"


def test_a_file_named_like_a_package_does_not_stand_for_it(source: Path) -> None:
    path = source.with_name("wave.py")
    path.write_text("def run(fields):\n    return 'mine'\n")

    assert output(load(f"{path}:run")) == "mine"
    import wave  # noqa: PLC0415 - only now, after the user's file

    assert hasattr(wave, "open")


def test_nothing_is_imported_from_the_working_directory_unasked(source: Path) -> None:
    code = (
        "from lcbatch.chains.custom import load_custom; from lcbatch.job import ChainOptions\n"
        "try: load_custom(ChainOptions(chain='own_chains:runnable'), None)\n"
        "except Exception as error: print(error, '|', error.hint)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=source.parent, capture_output=True, text=True, check=True)

    assert said.stdout == (
        "--chain: there is no module 'own_chains' | name the file (./file.py:attr), or its folder with --app-dir\n"
    )


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        ("{file}", "names no attribute", "./file.py:chain"),
        ("{file}:", "names no attribute", "./file.py:chain"),
        (":x", "names no attribute", "./file.py:chain"),
        ("{file}:runable", "there is no 'runable' in it", "did you mean 'runnable'?"),
        ("{file}:number", "names a value of type int", "name a Runnable, a factory or a function"),
        ("{file}:space.outer", "there is no 'outer' in it", "inner"),
        ("{folder}/nil.py:x", "there is no file", "./file.py:attr"),
        ("{folder}/data.txt:x", "is no Python file", "end in .py"),
        ("no_such_module:x", "there is no module 'no_such_module'", "--app-dir"),
        ("json.nothing:x", "there is no module 'json.nothing'", "--app-dir"),
        ("{folder}/own_needs.py:x", "it imports own_nothing, which is not installed", "pip install own_nothing"),
        ("{folder}/own_broken.py:x", "importing it failed: SyntaxError", "mend that"),
        ("{folder}/own_exits.py:x", "importing it failed: ZeroDivisionError", "mend that"),
        ("{file}:fails", "the factory failed: ValueError: no such thing", "--chain-arg"),
        ("{file}:makes_nothing", "the factory returned a NoneType", "return a Runnable"),
        ("{file}:async_factory", "the factory returned a coroutine", "plain function"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(source: Path, spec: str, said: str, hint: str) -> None:
    folder = source.parent
    (folder / "data.txt").write_text("x = 1")
    (folder / "own_needs.py").write_text("import own_nothing.deep")
    (folder / "own_broken.py").write_text("def (")
    (folder / "own_exits.py").write_text("1 / 0")

    with pytest.raises(LcbatchError) as raised:
        load(spec.format(file=source, folder=folder))

    assert raised.value.exit_code == (2 if "names no attribute" in said else 78)
    assert said in raised.value.message
    assert hint in raised.value.hint


def test_arguments_that_nobody_takes_are_refused(source: Path) -> None:
    with pytest.raises(ConfigError, match="takes no --chain-arg"):
        load(f"{source}:runnable", "a=1")
    with pytest.raises(ConfigError, match="the factory failed: TypeError"):
        load(f"{source}:factory", "nothing=1")
    with pytest.raises(UsageError, match="has no '='"):
        load(f"{source}:factory", "times")


def test_an_app_dir_that_is_not_there_is_named(source: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        load(f"{source}:runnable", app_dir=str(source.parent / "nil"))


def test_the_identity_is_spec_arguments_and_the_file_s_bytes(source: Path) -> None:
    def identity(*arguments: str, **options: Any) -> Any:
        return load(f"{source}:factory", *arguments, **options).identity

    before, versioned = identity("times=2"), identity("times=2", chain_version="1")
    assert before == identity("times=2")
    assert before != identity("times=3")
    assert versioned != identity("times=2", chain_version="2")

    source.write_text(SOURCE + "# changed\n")

    assert identity("times=2") != before
    assert identity("times=2", chain_version="1") == versioned


def test_a_changed_file_is_run_as_it_is_now(source: Path) -> None:
    assert output(load(f"{source}:factory"), a="x") == "xxx"
    source.write_text(SOURCE.replace("times=3", "times=4"))
    assert output(load(f"{source}:factory"), a="x") == "xxxx"


def test_all_fields_count_unless_key_names_some(source: Path) -> None:
    spec = f"{source}:runnable"

    assert load(spec).uses is None
    assert load(spec).missing({}) is None
    assert load(spec, key="a, b,").uses == frozenset({"a", "b"})
    assert load(spec, key="a,b").missing({"a": 1}) == "b"


def test_the_samples_do_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output(load(f"{SAMPLES}:shout"), text="hello") == "HELLO"
    assert output(load(f"{SAMPLES}:word_count"), text="two words") == {"words": 2, "characters": 9}

    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    triage = load(f"{SAMPLES}:triage", "model=gpt-5", "base_url=http://127.0.0.1:9/v1")
    assert triage.identity["arguments"] == {"model": "gpt-5", "base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(Exception, match="Connection error"):
        output(triage, subject="s", body="b")
