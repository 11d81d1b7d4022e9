"""Options: what they parse to, what they refuse, and that a job can be rebuilt from what it says of itself."""

from __future__ import annotations

import json
from dataclasses import Field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.errors import UsageError
from lcbatch.job import ALL_TASKS, SUMMARIZE, Job, declared_options
from lcbatch.optionvalues import Endpoint, parse_bytes, parse_duration

_TEXT = st.text(max_size=20)
_VARIABLE = st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True)
_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "api_key_env": st.none() | _VARIABLE,
    "model_arg": st.lists(st.integers().map("seed={}".format), max_size=3).map(tuple),
}
_BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "str": _TEXT,
    "int": st.integers(0, 2**40),
    "float": st.floats(0, 1e9),
    "bool": st.booleans(),
    "tuple[str, ...]": st.lists(_TEXT, max_size=3).map(tuple),
    "tuple[Endpoint, ...]": st.lists(
        st.builds(Endpoint, base_url=_TEXT, api_key_env=st.none() | _VARIABLE, rpm=st.none() | st.floats(0, 1e9)),
        max_size=3,
    ).map(tuple),
}


def values_of(spec: Field[Any]) -> st.SearchStrategy[Any]:
    if spec.name in _BY_NAME:
        return _BY_NAME[spec.name]
    if spec.metadata["choices"]:
        return st.sampled_from(spec.metadata["choices"])
    kind, _, optional = str(spec.type).partition(" | ")
    values = st.integers(1, 2**40) if spec.metadata["parse"] == "count" else _BY_TYPE[kind]
    return st.none() | values if optional else values


@given(
    st.fixed_dictionaries({}, optional={spec.name: values_of(spec) for _, spec in declared_options()}), st.lists(_TEXT)
)
def test_a_job_is_rebuilt_from_its_options(options: dict[str, Any], inputs: list[str]) -> None:
    job = Job.of(*inputs, task=SUMMARIZE, **options)

    kept = json.loads(json.dumps(job.options()))  # as the store keeps them

    assert Job.of(*job.inputs, task=job.task, **kept) == job
    assert Job.of(**kept).options() == job.options()


def test_only_what_differs_from_its_default_is_an_option_of_the_job() -> None:
    assert Job.of("a", concurrency="auto", words=120, temperature=0.0).options() == {"temperature": 0.0}


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"modell": "x"}, "unknown option 'modell'", "did you mean 'model'?"),
        ({"zzzzzz": 1}, "unknown option 'zzzzzz'", "known: api_key_env,"),
        ({"task": "runn"}, "unknown task 'runn'", "one of run, summarize, embed"),
        ({"on_change": "no"}, "--on-change cannot be 'no'", "one of refuse, redo, keep"),
        ({"timeout": "soon"}, "--timeout cannot be 'soon'", "write it like 90s"),
        ({"max_row_bytes": "big"}, "--max-row-bytes cannot be 'big'", "write it like 500k"),
        ({"words": "many"}, "--words cannot be 'many'", "a whole number"),
        ({"words": True}, "--words cannot be True", "a whole number"),
        ({"words": None}, "--words cannot be None", "a whole number"),
        ({"limit": -1}, "--limit cannot be -1", "0 or more"),
        ({"words": 0}, "--words cannot be 0", "1 or more"),
        ({"max_time": float("inf")}, "--max-time cannot be inf", "0 or more"),
        ({"temperature": "hot"}, "--temperature cannot be 'hot'", "a number"),
        ({"meta": "yes"}, "--meta cannot be 'yes'", "true or false"),
        ({"model": ["a"]}, "--model cannot be ['a']", "a text"),
        ({"include": 5}, "--include cannot be 5", "a text, or a list of texts"),
        ({"include": ["*", 5]}, "--include cannot be", "a text, or a list of texts"),
    ],
)
def test_what_cannot_be_is_said_with_a_way_out(options: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        Job.of(**options)

    assert raised.value.message.startswith(said)
    assert raised.value.hint.startswith(hint)


def test_values_may_come_as_a_config_file_has_them() -> None:
    job = Job.of(concurrency=8, max_failures=50, include="*.md", timeout=120, max_row_bytes="2m")

    assert (job.run.concurrency, job.run.max_failures) == ("8", "50")
    assert job.input.include == ("*.md",)
    assert job.model.timeout == 120.0
    assert job.input.max_row_bytes == 2 * 1024**2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("90s", 90),
        ("15m", 900),
        ("8h", 28800),
        ("1h30m", 5400),
        (" 2D ", 172800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 s", "1x", "1h and 5m", "1e3", "inf", "nan"])
def test_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        parse_duration(text, "--timeout")


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("500k", 512_000), ("64M", 64 * 2**20), ("2 GiB", 2**31), ("3kb", 3072)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5m", "1t", "k"])
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        parse_bytes(text)


@given(_TEXT)
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (parse_duration, parse_bytes):
        try:
            assert parse(text) >= 0
        except UsageError as error:
            assert error.hint  # noqa: PT017 - one of the two has to hold


def test_every_option_says_what_it_is_and_where_it_belongs() -> None:
    specs = [spec for _, spec in declared_options()]

    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        assert spec.metadata["help"].endswith("."), spec.name
        assert set(spec.metadata["tasks"]) <= set(ALL_TASKS)
