"""How each kind of model is asked for an object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from lcbatch.chains.schemas import load_schema
from lcbatch.models.shaping import as_openai_does, best_way, by_langchain
from lcbatch.ports import Ask
from lcbatch.records import Answer, Request

FORM = load_schema("category billing|bug").response_format
SCHEMA = FORM["json_schema"]["schema"]


class Binds(GenericFakeChatModel):
    """A model of some provider that knows tools; LangChain's own default makes structured output of them."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[getattr(tool, "name", None) or tool for tool in tools], **kwargs)


def asked(shape: Callable[[Ask], Ask] | None, **params: Any) -> Request:
    """What such a model is sent in the end."""
    sent = []

    async def way(request: Request) -> Answer:
        sent.append(request)
        raise ConnectionError

    async def ask() -> None:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
        request = Request(messages, {"response_format": FORM, **params})
        try:
            await (way if shape is None else shape(way))(request)
        except ConnectionError:
            return

    asyncio.run(ask())
    return sent[0]


def test_openais_words_are_sent_as_they_are() -> None:
    assert as_openai_does("native") is None


def test_a_tool_that_has_to_be_called() -> None:
    params = asked(as_openai_does("tool"), temperature=0).params

    assert params["tools"][0]["function"] == {"name": "answer", "parameters": SCHEMA, "strict": True}
    assert params["tool_choice"] == {"type": "function", "function": {"name": "answer"}}
    assert params["temperature"] == 0
    assert "response_format" not in params


def test_json_mode_tells_the_schema_in_words() -> None:
    sent = asked(as_openai_does("json"))

    assert sent.params == {"response_format": {"type": "json_object"}}
    assert sent.messages[0]["content"].startswith("Be brief.\n\nAnswer with one JSON object")
    assert '"enum":["billing","bug"]' in sent.messages[0]["content"]


def test_another_providers_integration_says_itself_what_it_binds() -> None:
    chat = Binds(messages=iter(()))

    params = asked(by_langchain(chat, "auto")).params

    assert params["tool_choice"] == "any"
    assert params["tools"][0]["title"] == "answer"
    assert params == asked(by_langchain(chat, "tool")).params


def test_a_model_that_knows_neither_is_asked_in_words() -> None:
    for method in ("auto", "tool", "json"):
        sent = asked(by_langchain(GenericFakeChatModel(messages=iter(())), method))

        assert sent.params == {}
        assert "JSON schema" in sent.messages[0]["content"]


def test_what_is_known_of_a_model_decides() -> None:
    class Known:
        profile = {"structured_output": False, "tool_calling": True}  # noqa: RUF012 - read only

    class Old:
        profile = {"structured_output": False}  # noqa: RUF012 - read only

    assert [best_way(model) for model in (object(), Known(), Old())] == ["native", "tool", "json"]
