"""The extractive summarizer as a LangChain chat model."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from lcbatch.models.extractive.summarize import summarize_text

_THREAD_ABOVE_CHARS = 20_000
"""A longer document takes more than a few milliseconds, which the event loop should not wait for."""


class ExtractiveChat(BaseChatModel):
    """Summarizes the last human message; words, language and focus are call arguments (`model.bind(words=80)`).

    Tokens in the usage are words counted, as nothing is tokenized here. Raises NoProseError.
    """

    @property
    def _llm_type(self) -> str:
        return "lcbatch-extractive"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _answer(_document(messages), kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        document = _document(messages)
        if len(document) <= _THREAD_ABOVE_CHARS:
            return _answer(document, kwargs)
        return await asyncio.to_thread(_answer, document, kwargs)


def _document(messages: list[BaseMessage]) -> str:
    asked = [message for message in messages if isinstance(message, HumanMessage)]
    return str(asked[-1].text) if asked else ""


def _answer(document: str, given: dict[str, Any]) -> ChatResult:
    options = {name: given[name] for name in ("words", "language", "focus") if given.get(name) is not None}
    summary = summarize_text(document, **options)
    read, written = len(document.split()), len(summary.split())
    message = AIMessage(
        content=summary,
        usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
        response_metadata={"model_name": "lcbatch:extractive", "finish_reason": "stop"},
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
