"""What fits into a model's context, told from the size of the text: no tokenizer is at hand for most models."""

from __future__ import annotations

from dataclasses import dataclass

from lcbatch.records import Request

DEFAULT_CONTEXT_TOKENS = 8192
"""Where neither the user nor the model's profile says: what nearly every model served today has."""

BYTES_PER_TOKEN = 4
"""OpenAI's rule of thumb for English, over UTF-8: accented letters count half a token, other scripts three quarters."""

_MARGIN = 0.02
"""Of the context, left free. English prose has 4.3 to 4.7 bytes a token in today's tokenizers: its real margin is larger."""

_TOKENS_PER_WORD = 4 / 3
_OVERRUN = 1.5
"""Models write up to half as much again as they are asked for."""

_TOKENS_PER_MESSAGE = 8
_FEWEST_TOKENS = 128
"""A part of a document below that is no part worth a call."""


@dataclass(frozen=True, slots=True)
class Context:
    """A model's context: `tokens` for prompt and answer together; `answer_tokens` is the user's bound on an answer, if any."""

    tokens: int
    answer_tokens: int | None = None

    def room_bytes(self, frame: Request, words: int) -> int:
        """UTF-8 bytes of text that a request may carry beside its frame, when about `words` are asked for in answer."""
        answer = self.answer_tokens or round(words * _TOKENS_PER_WORD * _OVERRUN)
        taken = answer + request_tokens(frame) + round(self.tokens * _MARGIN)
        return max(0, self.tokens - taken) * BYTES_PER_TOKEN

    def holds_something(self, frame: Request, words: int) -> bool:
        """Whether what is left is worth a call."""
        return self.room_bytes(frame, words) >= _FEWEST_TOKENS * BYTES_PER_TOKEN


def request_tokens(request: Request) -> int:
    """Tokens of a request, estimated."""
    texts = [str(message.get("content", "")) for message in request.messages]
    return sum(-(-size_of(text) // BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE for text in texts)


def size_of(text: str) -> int:
    """Bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
