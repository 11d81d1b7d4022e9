from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from lcbatch.simulator.answers import (
    Answer,
    answer_for,
    choice_for,
    digest_of_choice,
    last_user_text,
    prompt_tokens,
    request_digest,
    text_tokens,
)

from .wire import chat


def function(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [function("weather", city={"type": "string"}), function("clock")]


def say(body: dict[str, Any]) -> Answer:
    return choice_for(body, request_digest(body), 16, 0.0)


def turn(name: str) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "x"}]


def test_an_answer_echoes_the_hash_of_model_and_messages() -> None:
    body = chat("größe")
    plain = json.dumps(
        {"model": "sim", "messages": body["messages"]}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert answer_for(body).startswith(f"echo {hashlib.sha256(plain.encode()).hexdigest()[:16]} ")


def test_only_model_and_messages_change_an_answer() -> None:
    assert answer_for(chat(temperature=1, seed=7)) == answer_for(chat())
    assert answer_for(chat("other")) != answer_for(chat())


def test_a_tool_calls_id_comes_from_the_request() -> None:
    first, other = say(chat(tools=TOOLS)), say(chat("other", tools=TOOLS))
    assert first.call_id == say(chat(tools=TOOLS)).call_id
    assert first.call_id.startswith("call_")
    assert first.call_id != other.call_id


def test_the_order_of_keys_does_not_matter() -> None:
    swapped = {"messages": [{"content": "hello", "role": "user"}], "model": "sim"}
    assert answer_for(swapped) == answer_for(chat())


def test_an_answer_has_as_many_words_as_asked_and_about_as_many_tokens() -> None:
    for words in (0, 1, 16, 500):
        text = answer_for(chat(), words)
        assert len(text.split()) == words + 2
        assert text_tokens(text) == pytest.approx(words + 6, abs=1)


def test_lognormal_lengths_differ_by_request_and_keep_their_mean() -> None:
    lengths = [len(answer_for(chat(str(number)), 50, 0.5).split()) - 2 for number in range(500)]
    assert len(set(lengths)) > 30
    assert sum(lengths) / len(lengths) == pytest.approx(50, rel=0.1)


def test_a_lone_surrogate_in_a_prompt_is_answered_too() -> None:
    assert answer_for(chat("a\ud83d")) != answer_for(chat("a"))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_the_tokens_allowed(name: str) -> None:
    cut = say({**chat(), name: 5})
    assert (cut.text, cut.finish_reason) == (answer_for(chat())[:20], "length")
    assert say({**chat(), name: 500}).finish_reason == "stop"


def test_choices_differ_and_the_first_is_the_plain_answer() -> None:
    digest = request_digest(chat())
    texts = {choice_for(chat(), digest_of_choice(digest, index), 16, 0.0).text for index in range(3)}
    assert len(texts) == 3
    assert answer_for(chat()) in texts


def test_tokens_of_a_prompt() -> None:
    parts = [{"type": "text", "text": "12345678"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert prompt_tokens(chat("12345")) == 3 + 4 + 2
    assert (
        prompt_tokens({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]})
        > 3 + 8
    )
    assert prompt_tokens(chat("12345", tools=TOOLS)) > prompt_tokens(chat("12345"))


def test_the_last_user_message_is_what_was_asked() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}]
    assert last_user_text({"messages": [*messages, {"role": "assistant", "content": "c"}]}) == "b"
    assert last_user_text({"messages": [{"role": "system", "content": "a"}]}) == ""


def test_json_mode_answers_with_an_object() -> None:
    value = json.loads(answer_for(chat(response_format={"type": "json_object"})))
    assert value["echo"] == request_digest(chat()).hex()[:16]


def test_a_json_schema_is_followed() -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(answer_for(chat(response_format=form)))["mood"] in {"good", "bad"}


def test_auto_calls_each_tool_once_and_then_speaks() -> None:
    body = chat(tools=TOOLS)
    assert (say(body).tool, say(body).finish_reason) == ("weather", "tool_calls")
    assert set(json.loads(say(body).text)) == {"city"}
    body["messages"] += turn("weather")
    assert say(body).tool == "clock"
    body["messages"] += turn("clock")
    assert (say(body).tool, say(body).finish_reason) == (None, "stop")
    assert say(body).text.startswith("echo ")


def test_required_calls_a_tool_even_when_all_were_called() -> None:
    body = chat(tools=TOOLS, tool_choice="required")
    body["messages"] += turn("weather") + turn("clock")
    assert say(body).tool == "weather"


def test_a_tool_forced_by_name_is_called() -> None:
    forced = say(chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "clock"}}))
    assert (forced.tool, forced.text) == ("clock", "{}")


def test_none_calls_no_tool() -> None:
    assert say(chat(tools=TOOLS, tool_choice="none")).tool is None
