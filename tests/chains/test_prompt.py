"""The built-in chains of one call a row, and what they make of its reply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lcbatch.chains import load_templates
from lcbatch.errors import ConfigError, InputMissing, Kind
from lcbatch.job import RUN, ChainOptions, Job
from lcbatch.smallfiles import MOST_BYTES

from .support import Bench, reply


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def test_a_template_is_sent_with_the_row_s_fields() -> None:
    bench = Bench(RUN, prompt="Say {text}", system="For {who}")

    request = bench.sent(text="{who}", who="me", more=1)

    assert request.messages == [system("For me"), user("Say {who}")]
    assert request.params == {}
    assert bench.run(text="a", who="b") == "answer"


def test_only_the_fields_that_the_templates_name_decide_the_answer() -> None:
    chain = Bench(RUN, prompt="{a} {{b}}", system="{c}").chain

    assert chain.uses == frozenset({"a", "c"})
    assert chain.missing({"a": 1}) == "c"
    assert chain.missing({"c": 1}) == "a"
    assert chain.missing({"a": 1, "c": None}) is None


def test_the_identity_changes_with_prompt_system_and_model() -> None:
    asked: list[dict[str, Any]] = [
        {"prompt": "a"},
        {"prompt": "b"},
        {"prompt": "a", "system": "s"},
        {},
        {"system": "s"},
    ]
    identities = [Bench(RUN, **options).chain.identity for options in asked]

    assert all(identity["model"] == "test:m" for identity in identities)
    assert len({str(identity) for identity in identities}) == len(identities)
    assert Bench(RUN, prompt="a").chain.identity == Bench(RUN, prompt="a").chain.identity


def test_a_template_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"\xef\xbb\xbfSay {text}\n")

    bench = Bench(RUN, prompt=f"@{path}")

    assert bench.sent(text="x").messages == [user("Say x\n")]
    assert bench.chain.identity == Bench(RUN, prompt="Say {text}\n").chain.identity, "its text counts, not its name"


def test_a_template_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"cannot read the template .*nil\.txt: No such file"):
        Bench(RUN, prompt=f"@{tmp_path}/nil.txt")


def test_line_ends_of_a_template_file_are_one_character(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"Say\r\n{text}\r")

    assert Bench(RUN, prompt=f"@{path}").sent(text="x").messages == [user("Say\nx\n")]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"caf\xe9 {text}", "its byte 4 is no UTF-8"),
        ("Say {text}".encode("utf-16"), "its byte 1 is no UTF-8"),
        ("Say {text}".encode("utf-16-le"), "it has NUL characters"),
        (bytes(MOST_BYTES + 1), "it is larger than 16 MB"),
    ],
)
@pytest.mark.parametrize(("flag", "option"), [("-p", "prompt"), ("--system", "system"), ("--map-prompt", "map_prompt")])
def test_a_template_file_that_is_no_text_is_refused_by_option_and_name(
    tmp_path: Path, content: bytes, why: str, flag: str, option: str
) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"^{flag} @{path}: {why}"):
        load_templates(Job.of(**{option: f"@{path}"}).chain)


def test_what_never_ends_is_no_template_and_no_schema() -> None:
    for options in (ChainOptions(prompt="@/dev/zero"), ChainOptions(schema="@/dev/zero")):
        with pytest.raises(ConfigError, match="/dev/zero: it is larger than 16 MB"):
            load_templates(options)


BATCH = {
    "model": "gpt-5",
    "messages": [user("from the body")],
    "temperature": 0.5,
    "max_completion_tokens": 9,
    "stream": True,
    "n": 3,
}


@pytest.mark.parametrize(
    ("fields", "messages", "params"),
    [
        ({"prompt": "as {it} is"}, [user("as {it} is")], {}),
        ({"messages": [system("s"), user("u")]}, [system("s"), user("u")], {}),
        ({"messages": [], "prompt": "p"}, [user("p")], {}),
        ({"body": BATCH, "custom_id": "1"}, BATCH["messages"], {"temperature": 0.5, "max_completion_tokens": 9}),
        ({"body": "a column of that name", "prompt": "p"}, [user("p")], {}),
    ],
)
def test_rows_may_say_themselves_what_to_send(fields: dict[str, Any], messages: Any, params: Any) -> None:
    request = Bench(RUN).sent(**fields)

    assert request.messages == messages
    assert request.params == params


def test_a_system_text_goes_before_a_row_s_own_messages() -> None:
    bench = Bench(RUN, system="For {who}")

    assert bench.sent(messages=[user("u")], who="me").messages == [system("For me"), user("u")]
    assert bench.chain.missing({"prompt": "p"}) == "who"
    assert bench.chain.uses == frozenset({"prompt", "messages", "body", "who"})


def test_a_row_s_model_is_taken_only_where_the_job_names_none() -> None:
    assert Bench(RUN, row_models=True).sent(body=BATCH).params["model"] == "gpt-5"
    assert "model" not in Bench(RUN, row_models=False).sent(body=BATCH).params
    assert "model" not in Bench(RUN, row_models=True).sent(body={**BATCH, "model": None}).params


@pytest.mark.parametrize("fields", [{}, {"text": "x"}, {"prompt": ""}, {"messages": []}, {"body": "a text"}])
def test_rows_that_say_nothing_miss_a_prompt(fields: dict[str, Any]) -> None:
    assert Bench(RUN).chain.missing(fields) == "prompt"


@pytest.mark.parametrize(
    "fields",
    [{"messages": "hello"}, {"messages": ["hello"]}, {"messages": {"role": "user"}}, {"body": {}}, {"prompt": 5}],
)
def test_what_are_no_messages_is_the_row_s_own_fault(fields: dict[str, Any]) -> None:
    bench = Bench(RUN)

    assert bench.failure(**fields).kind is Kind.BAD_ROW
    assert bench.call.requests == []


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (reply(refusal="I cannot help with that"), Kind.REFUSAL, "I cannot help with that"),
        (reply(finish_reason="refusal"), Kind.REFUSAL, "the model refused"),
        (reply(finish_reason="content_filter"), Kind.CONTENT_FILTER, "withheld"),
        (reply(finish_reason="SAFETY"), Kind.CONTENT_FILTER, "withheld"),
    ],
)
def test_an_answer_that_was_withheld_is_a_failure(answer: Any, kind: Kind, said: str) -> None:
    failure = Bench(RUN, answer, prompt="x").failure()

    assert failure.kind is kind
    assert said in failure.message


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply("half", finish_reason="content_filter"), "half"),
        (reply("half", finish_reason="length"), "half"),
        (reply("yes", refusal=None), "yes"),
        (reply("", finish_reason="stop"), ""),
    ],
)
def test_an_answer_that_came_is_the_output(answer: Any, text: str) -> None:
    assert Bench(RUN, answer, prompt="x").run() == text
