"""The summarizer as a LangChain chat model."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel

from lcbatch.models.extractive import chat
from lcbatch.models.extractive.chat import ExtractiveChat
from lcbatch.models.extractive.language import count_words
from lcbatch.models.extractive.summarize import NoProseError, summarize_text

from . import texts


def test_it_answers_with_the_extract_of_the_last_human_message() -> None:
    messages = [
        SystemMessage("Be brief."),
        HumanMessage("Another text."),
        AIMessage("Yes."),
        HumanMessage(texts.ENGLISH),
    ]
    assert ExtractiveChat().invoke(messages, words=30).content == summarize_text(texts.ENGLISH, words=30)


def test_bound_arguments_reach_the_summary() -> None:
    bound = ExtractiveChat().bind(words=30, focus="bees at the school", language="en", temperature=0.2, stop=["x"])
    assert bound.invoke(texts.ENGLISH).content == summarize_text(
        texts.ENGLISH, words=30, focus="bees at the school", language="en"
    )


def test_content_blocks_are_read_and_pictures_left_out() -> None:
    blocks: list[str | dict[Any, Any]] = [
        {"type": "text", "text": texts.ENGLISH},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    assert ExtractiveChat().invoke([HumanMessage(blocks)], words=30).content == summarize_text(texts.ENGLISH, words=30)


def test_the_answer_names_the_model_and_estimates_usage() -> None:
    answer = ExtractiveChat().invoke(texts.ENGLISH, words=30)
    assert answer.response_metadata["model_name"] == "lcbatch:extractive"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == round(count_words(texts.ENGLISH) * 4 / 3)
    assert (
        answer.usage_metadata["total_tokens"]
        == answer.usage_metadata["input_tokens"] + answer.usage_metadata["output_tokens"]
    )


def test_it_works_in_a_chain_and_streams_one_piece() -> None:
    chain = (
        ChatPromptTemplate.from_messages([("human", "{text}")]) | ExtractiveChat().bind(words=30) | StrOutputParser()
    )
    expected = summarize_text(texts.ENGLISH, words=30)
    assert chain.invoke({"text": texts.ENGLISH}) == expected
    assert "".join(chain.stream({"text": texts.ENGLISH})) == expected


def test_async_gives_the_same_answer() -> None:
    async def ask() -> object:
        return (await ExtractiveChat().ainvoke(texts.ENGLISH, words=30)).content

    assert asyncio.run(ask()) == summarize_text(texts.ENGLISH, words=30)


@pytest.mark.parametrize(("repeats", "in_loop"), [(1, True), (10, False)])
def test_long_documents_leave_the_event_loop(monkeypatch: pytest.MonkeyPatch, repeats: int, *, in_loop: bool) -> None:
    threads: list[int] = []

    def watched(text: str, **wishes: Any) -> str:
        threads.append(threading.get_ident())
        return summarize_text(text, **wishes)

    async def ask() -> int:
        await ExtractiveChat().ainvoke(texts.ENGLISH * repeats, words=30)
        return threading.get_ident()

    monkeypatch.setattr(chat, "summarize_text", watched)
    loop_thread = asyncio.run(ask())
    assert (threads == [loop_thread]) is in_loop


@pytest.mark.parametrize(
    "messages", [[HumanMessage("")], [SystemMessage("Only a system message.")], [HumanMessage("```\nx. y.\n```")]]
)
def test_no_prose_is_an_error_that_says_so(messages: list[Any]) -> None:
    with pytest.raises(NoProseError, match="no prose to summarize"):
        ExtractiveChat().invoke(messages)


def test_structured_output_and_tools_are_refused() -> None:
    class Answer(BaseModel):
        text: str

    with pytest.raises(NotImplementedError):
        ExtractiveChat().with_structured_output(Answer)
    with pytest.raises(NotImplementedError):
        ExtractiveChat().bind_tools([Answer])
