"""What a built-in chain makes of a model's reply."""

from __future__ import annotations

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.records import Reply

_WITHHELD = frozenset({"content_filter", "safety", "prohibited_content", "blocklist", "spii"})
"""Finish reasons of an answer that a filter took away: OpenAI's and Azure's, then Gemini's."""


def answer_text(reply: Reply) -> str:
    """The reply's text. Raises CallFailed for a refusal, or an answer that the provider's filter took away."""
    if reply.text:
        return reply.text
    extra = reply.message.get("additional_kwargs") or {}
    refusal = extra.get("refusal") if isinstance(extra, dict) else None
    if refusal:
        raise CallFailed(Failure(Kind.REFUSAL, str(refusal)))
    reason = (reply.finish_reason or "").lower()
    if reason == "refusal":  # Anthropic's
        raise CallFailed(Failure(Kind.REFUSAL, "the model refused to answer"))
    if reason in _WITHHELD:
        raise CallFailed(Failure(Kind.CONTENT_FILTER, "the provider's content filter withheld the answer"))
    return reply.text
