"""A built-in chain whose answers are objects of a schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from lcbatch.chains.replies import answer_text
from lcbatch.chains.schemas import AnswerSchema, Misfit
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.messages import raw_answer
from lcbatch.ports import Call
from lcbatch.records import Fields, Json, Reply, Request

_CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
"""Finish reasons of an answer that reached its longest: OpenAI's and Google's (in lower case), Anthropic's, Mistral's."""

SCHEMA_PARTS = frozenset({"schema", "schema_model", "schema_version"})
"""What a schema adds to the identity of the chain that asks."""

_CORRECT = (
    "That does not fit what was asked for: {fault}\n"
    "Answer again with the whole JSON object, put right, and with nothing besides it."
)


class Asking(Protocol):
    """A chain of one call a row, which says what it would ask."""

    @property
    def uses(self) -> frozenset[str] | None: ...

    @property
    def identity(self) -> Mapping[str, Json]: ...

    def missing(self, fields: Fields) -> str | None: ...

    def request(self, fields: Fields) -> Request: ...


@dataclass(frozen=True)
class StructuredChain:
    """Asks as another chain does, for an object of a schema. An answer that does not fit goes back to the model.

    It goes back `parse_retries` times, as a further turn that says what is wrong; then the row has failed, kind `parse`.
    """

    asking: Asking
    call: Call
    schema: AnswerSchema
    parse_retries: int
    takes_any: bool = False

    def rehearsed(self) -> StructuredChain:
        """The same, content with whatever comes back: for answers that are made up."""
        return replace(self, takes_any=True)

    @property
    def uses(self) -> frozenset[str] | None:
        """As the chain that asks."""
        return self.asking.uses

    @property
    def identity(self) -> Mapping[str, Json]:
        """What decides the answers."""
        return {**self.asking.identity, **self.schema.identity}

    def missing(self, fields: Fields) -> str | None:
        """As the chain that asks."""
        return self.asking.missing(fields)

    async def __call__(self, fields: Fields) -> Json:
        asked = self.asking.request(fields)
        request = replace(asked, params={**asked.params, "response_format": self.schema.response_format}, step="answer")
        for left in range(self.parse_retries, -1, -1):
            reply = await self.call(request)
            if self.takes_any:
                return reply.text
            try:
                return parsed(reply, self.schema)
            except Misfit as misfit:
                if not left or is_cut_off(reply):
                    raise CallFailed(parse_failure(reply, misfit), attempts=0) from misfit
                request = _corrected(request, reply, misfit)
        raise AssertionError("the last turn returns or raises")


def parsed(reply: Reply, schema: AnswerSchema) -> dict[str, Json]:
    """The object in a reply. Raises Misfit, and CallFailed for a refusal."""
    return schema.read(_said(reply))


def is_cut_off(reply: Reply) -> bool:
    """Whether the answer ended because it was as long as it may be: another one would end there too."""
    return (reply.finish_reason or "").lower() in _CUT_OFF


def parse_failure(reply: Reply, misfit: Misfit) -> Failure:
    """The verdict on a row whose last answer does not fit."""
    if is_cut_off(reply):
        return Failure(Kind.PARSE, f"the answer was cut off at its longest (--max-output-tokens): {misfit}")
    return Failure(Kind.PARSE, f"the answer does not fit the schema: {misfit}")


def _said(reply: Reply) -> str:
    return raw_answer(reply.text, reply.message) or answer_text(reply)


def _corrected(request: Request, reply: Reply, misfit: Misfit) -> Request:
    """The same conversation, with the answer and what is wrong with it. An empty turn is refused by some providers."""
    said = _said(reply)
    answered = [{"role": "assistant", "content": said}] if said.strip() else []
    complaint = {"role": "user", "content": _CORRECT.format(fault=misfit)}
    return replace(request, messages=[*request.messages, *answered, complaint], step="correction")
