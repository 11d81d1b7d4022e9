"""What a built-in chain makes of a model's reply."""

from __future__ import annotations

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.records import Reply


def answer_text(reply: Reply) -> str:
    """The reply's text. Raises CallFailed for a refusal, or an answer that the provider's filter took away."""
    extra = reply.message.get("additional_kwargs") or {}
    refusal = extra.get("refusal") if isinstance(extra, dict) else None
    if refusal and not reply.text:
        raise CallFailed(Failure(Kind.REFUSAL, str(refusal)))
    if reply.finish_reason == "content_filter" and not reply.text:
        raise CallFailed(Failure(Kind.CONTENT_FILTER, "the provider's content filter withheld the answer"))
    return reply.text
