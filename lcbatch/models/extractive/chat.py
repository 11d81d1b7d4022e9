"""The summarizer as a LangChain chat model: the document comes as a message, the wishes as bound arguments."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from .language import count_words
from .summarize import DEFAULT_WORDS, NoProseError, summarize_text

MODEL_NAME: Final = "lcbatch:extractive"

INLINE_CHARS: Final = 4_000
"""Up to this length a summary takes about 4 ms, less than a thread's round trip is worth; longer ones leave the event loop."""

TOKENS_PER_WORD: Final = 4 / 3
"""There is no tokenizer here: usage is the usual estimate of 100 tokens to 75 English words, for comparison only."""


class ExtractiveChat(BaseChatModel):
    """Answers with an extract of the last human message, which is the document alone: no prompt around it.

    `model.bind(words=80, focus="costs", language="de")` says what is wanted; other arguments, `stop` among them, have no
    meaning for an extract and are ignored. System messages are ignored too. Nothing is sent anywhere. Usage is estimated
    from words. Raises NoProseError, a ValueError, for a document without prose.
    """

    model: str = MODEL_NAME
    """Reported as `model_name`; a field, because LangChain's tracers read it."""

    @property
    def _llm_type(self) -> str:
        return "lcbatch-extractive"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - an extract has nothing to stop
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - there are no tokens to report
        *,
        words: int | None = None,
        language: str | None = None,
        focus: str | None = None,
        **kwargs: Any,  # noqa: ARG002 - sampling parameters that a chain binds for any model
    ) -> ChatResult:
        return self._answer(_document(messages), words=words, language=language, focus=focus)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - an extract has nothing to stop
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - there are no tokens to report
        *,
        words: int | None = None,
        language: str | None = None,
        focus: str | None = None,
        **kwargs: Any,  # noqa: ARG002 - sampling parameters that a chain binds for any model
    ) -> ChatResult:
        """Summarize without holding up the loop: long documents in a thread, which runs to its end when cancelled."""
        document = _document(messages)
        answer = partial(self._answer, document, words=words, language=language, focus=focus)
        return answer() if len(document) <= INLINE_CHARS else await asyncio.to_thread(answer)

    def _answer(self, document: str, *, words: int | None, language: str | None, focus: str | None) -> ChatResult:
        length = DEFAULT_WORDS if words is None else words
        summary = summarize_text(document, words=length, focus=focus, language=language)
        message = AIMessage(
            content=summary,
            response_metadata={"model_name": self.model, "finish_reason": "stop"},
            usage_metadata=_usage(document, summary),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _document(messages: list[BaseMessage]) -> str:
    """Return the text of the last human message; its blocks that are not text are left out.

    Raises NoProseError where there is no human message.
    """
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return str(message.text)
    raise NoProseError


def _usage(document: str, summary: str) -> UsageMetadata:
    asked, answered = (round(count_words(text) * TOKENS_PER_WORD) for text in (document, summary))
    return UsageMetadata(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)
