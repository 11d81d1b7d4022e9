"""Chains whose answers are objects of a schema: what is asked, what fits, and what goes back to the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcbatch.chains import load_chain, load_templates
from lcbatch.chains.schemas import AnswerSchema, Misfit, load_schema
from lcbatch.chains.strictform import strict_form
from lcbatch.errors import ConfigError, InputMissing, Kind
from lcbatch.job import RUN, ChainOptions
from lcbatch.records import Reply
from lcbatch.testing import ScriptedCall
from tests.chains.support import Bench, reply

SCHEMA = "category billing|bug|other, n? int"
GOOD = '{"category": "bug", "n": 1}'

MODEL = """
from pydantic import BaseModel, field_validator

class Ticket(BaseModel):
    category: str
    n: int = 0

    @field_validator("category")
    @classmethod
    def known(cls, value: str) -> str:
        if value == "boom":
            raise KeyError(value)
        if value not in {"bug", "other"}:
            raise ValueError("no such category")
        return value.upper()

DICT = {"type": "object", "properties": {"category": {"type": "string"}}}
LIST = list[int]
NOTHING = 3
"""


def bench(*answers: Any, **options: Any) -> Bench:
    made = Bench(RUN, GOOD, **{"prompt": "Classify {text}", "schema": SCHEMA, **options})
    made.call.script = answers
    return made


def test_the_answer_is_asked_for_in_the_schemas_form_and_comes_as_an_object() -> None:
    chain = bench()

    assert chain.run(text="x") == {"category": "bug", "n": 1}
    form = chain.call.requests[0].params["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)


def test_rows_that_are_requests_are_asked_in_the_schemas_form_too() -> None:
    sent = bench(prompt=None).sent(
        body={"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "text"}}
    )

    assert sent.params["response_format"]["type"] == "json_schema"


def test_every_row_has_every_field_in_the_schemas_order() -> None:
    assert list(bench('{"n": null, "category": "bug", "more": 1}').run(text="x").items()) == [
        ("category", "bug"),
        ("n", None),
    ]


def test_an_answer_that_does_not_fit_goes_back_with_what_is_wrong() -> None:
    chain = bench('{"category": "invoice", "n": 1}')

    assert chain.run(text="x") == {"category": "bug", "n": 1}
    first, second = chain.call.requests
    assert second.messages[:-2] == first.messages
    assert second.messages[-2] == {"role": "assistant", "content": '{"category": "invoice", "n": 1}'}
    assert "'invoice' is not one of ['billing', 'bug', 'other']" in second.messages[-1]["content"]
    assert (first.step, second.step) == ("answer", "correction")


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (2, 3)])
def test_a_row_fails_when_the_retries_are_used_up(retries: int, calls: int) -> None:
    chain = bench("no", "no", "no", parse_retries=retries)

    failure = chain.failure(text="x")

    assert (failure.kind, len(chain.call.requests)) == (Kind.PARSE, calls)
    assert failure.message == "the answer does not fit the schema: there is no whole JSON object in it"


def test_an_answer_that_was_cut_off_at_its_longest_is_not_asked_again() -> None:
    chain = bench(reply('{"category": "b', finish_reason="length"))

    assert "cut off at its longest (--max-output-tokens)" in chain.failure(text="x").message
    assert len(chain.call.requests) == 1


def test_a_refusal_is_a_refusal() -> None:
    assert bench(reply(refusal="I will not")).failure(text="x").kind is Kind.REFUSAL


def test_a_tool_calls_arguments_are_the_answer() -> None:
    called = Reply("", {"content": "", "tool_calls": [{"name": "answer", "args": json.loads(GOOD)}]}, "m")

    assert bench(called).run(text="x") == json.loads(GOOD)


def test_an_empty_answer_is_no_turn_of_the_conversation() -> None:
    chain = bench("")
    chain.run(text="x")

    assert [message["role"] for message in chain.call.requests[1].messages] == ["user", "user"]


def test_the_schema_is_part_of_what_the_chain_is_and_the_number_of_retries_is_not() -> None:
    def identity(**options: Any) -> Any:
        given = ChainOptions(prompt="x", **options)
        rest: Any = {"model_identity": {"model": "m"}, "document_alone": False, "row_models": False}
        return load_chain(RUN, given, load_templates(given), ScriptedCall(), **rest).identity

    plain = identity()
    assert identity(schema="a") == {**plain, "schema": identity(schema="a")["schema"]}
    assert identity(schema="a") == identity(schema=" a  str ", parse_retries=7) != identity(schema="b")


@given(st.text() | st.text(st.sampled_from('{}[]",:ab1 \n')))
def test_garbage_fails_the_row_and_nothing_else(text: str) -> None:
    schema: AnswerSchema = load_schema(SCHEMA)
    try:
        found = schema.read(text)
    except Misfit:
        return
    assert found["category"] in {"billing", "bug", "other"}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"due": "next week", "at": None}, "due: 'next week' is not a 'date'"),
        ({"due": "2026-02-30", "at": None}, "due: '2026-02-30' is not a 'date'"),
        ({"due": "2026-02-28", "at": "noon"}, "at: 'noon' is not a 'date-time'"),
        ({"due": "2026-02-28", "at": "2026-02-28T12:00:00Z"}, None),
        ({"due": "2026-02-28", "at": None}, None),
    ],
)
def test_dates_of_the_short_form_are_dates(answer: dict[str, str | None], fault: str | None) -> None:
    schema = load_schema("due date, at? datetime")
    if fault is None:
        assert schema.check(answer) == answer
    else:
        with pytest.raises(Misfit, match=fault):
            schema.check(answer)


def test_a_pydantic_model_reads_and_writes_the_answer(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODEL)
    schema = load_schema(f"{tmp_path}/m.py:Ticket")

    assert schema.read('{"category": "bug", "n": "3"}') == {"category": "BUG", "n": 3}
    assert schema.names == ("category", "n")
    for text, said in (
        ('{"category": "x"}', "category: Value error, no such category"),
        ('{"category": "boom"}', "KeyError"),
    ):
        with pytest.raises(Misfit, match=said):
            schema.read(text)
    assert load_schema(f"{tmp_path}/m.py:DICT").read('{"category": "x"}') == {"category": "x"}


def test_a_models_code_is_part_of_what_the_chain_is(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(MODEL)
    before = load_schema(f"{path}:Ticket").identity
    path.write_text(MODEL.replace('"other"', '"others"'))

    assert load_schema(f"{path}:Ticket").identity != before
    assert load_schema(f"{path}:Ticket", version="1").identity == {**before, "schema_version": "1"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON"),
        ("[]", "a schema is an object"),
        ('{"type": "array"}', "an answer has to be an object"),
        ('{"type": "object", "properties": {"a": {"type": "text"}}}', "at properties/a/type: 'text' is not valid"),
        ('{"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}', "refers to '#/$defs/b', which is not there"),
        ('{"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/b"}}}', "outside itself"),
    ],
)
def test_a_wrong_schema_is_said_with_file_and_place(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "answer.json"
    path.write_text(content)

    with pytest.raises(ConfigError) as raised:
        load_schema(str(path))

    assert str(path) in raised.value.message
    assert said in raised.value.message


@pytest.mark.parametrize("attribute", ["LIST", "NOTHING", "Tickets"])
def test_a_wrong_model_is_a_wrong_chain(tmp_path: Path, attribute: str) -> None:
    (tmp_path / "m.py").write_text(MODEL)

    with pytest.raises(ConfigError):
        load_schema(f"{tmp_path}/m.py:{attribute}")


def test_a_schema_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        load_schema(str(tmp_path / "none.json"))


def test_the_strict_form_closes_objects_and_leaves_out_what_only_narrows() -> None:
    schema = {
        "title": "T",
        "type": "object",
        "properties": {
            "a": {"type": "string", "minLength": 2, "default": "x"},
            "b": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            "c": {"$ref": "#/$defs/C", "description": "one"},
        },
        "required": ["a", "c"],
        "$defs": {"C": {"type": "object", "properties": {"d": {"type": "boolean"}}, "required": ["d"]}},
    }

    assert strict_form(schema) == {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "c": {"$ref": "#/$defs/C"},
        },
        "required": ["a", "b", "c"],
        "additionalProperties": False,
        "$defs": {
            "C": {
                "type": "object",
                "properties": {"d": {"type": "boolean"}},
                "required": ["d"],
                "additionalProperties": False,
            }
        },
    }


@pytest.mark.parametrize(
    "inner",
    [
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"allOf": [{"type": "string"}]},
        {"type": "array"},
        {"type": "object", "properties": {"x": {"type": "string"}}},
    ],
)
def test_what_strict_cannot_say_is_asked_for_without_it(inner: Any) -> None:
    assert strict_form({"type": "object", "properties": {"a": inner}, "required": ["a"]}) is None
