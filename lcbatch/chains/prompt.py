"""Built-in chains of one call a row: a template, or rows that are requests themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lcbatch.chains.replies import answer_text
from lcbatch.chains.template import Template
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.ports import Call
from lcbatch.records import Fields, Json, Request


@dataclass(frozen=True)
class PromptChain:
    """A template (and system text) filled with a row's fields, answered by one call."""

    call: Call
    prompt: Template
    system: Template | None
    model_identity: Mapping[str, Json]

    @cached_property
    def uses(self) -> frozenset[str] | None:
        """The fields that the templates name."""
        return self.prompt.names | (self.system.names if self.system else frozenset())

    @property
    def identity(self) -> Mapping[str, Json]:
        """What decides the answers."""
        system = self.system.text if self.system else None
        return {"chain": "prompt", "prompt": self.prompt.text, "system": system, **self.model_identity}

    def missing(self, fields: Fields) -> str | None:
        """The first field that the templates need and the row lacks."""
        return self.prompt.missing(fields) or (self.system.missing(fields) if self.system else None)

    def render(self, fields: Fields) -> list[Json]:
        """The messages for one row."""
        messages = [{"role": "user", "content": self.prompt.render(fields)}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system.render(fields)})
        return messages

    def request(self, fields: Fields) -> Request:
        """The one call for a row."""
        return Request(self.render(fields))

    async def __call__(self, fields: Fields) -> Json:
        return answer_text(await self.call(self.request(fields)))


_REQUEST_FIELDS = ("body", "messages", "prompt")
_SENT_BY_US = frozenset({"messages", "model", "stream", "stream_options", "n"})
"""Of an OpenAI Batch body: what is not passed on as a call's parameter."""


_OF_THE_CLIENT = frozenset({"extra_headers", "extra_query", "extra_body"})
"""What the SDK takes for itself: data must not set headers."""

_FORMS: Mapping[str, Any] = {
    "tools": list,
    "tool_choice": str | dict,
    "response_format": dict,
    "stop": str | list,
    "metadata": dict,
    "max_tokens": int,
    "max_completion_tokens": int,
}
"""What LangChain looks into before anything is sent, and breaks on where it is something else."""


@dataclass(frozen=True)
class RequestChain:
    """Rows that say themselves what to send: `prompt`, `messages`, or `body` of an OpenAI Batch request."""

    call: Call
    system: Template | None
    model_identity: Mapping[str, Json]
    row_models: bool

    @cached_property
    def uses(self) -> frozenset[str] | None:
        """Whichever of the three a row has, and what the system text names."""
        return frozenset(_REQUEST_FIELDS) | (self.system.names if self.system else frozenset())

    @property
    def identity(self) -> Mapping[str, Json]:
        """What decides the answers, besides the rows."""
        system = self.system.text if self.system else None
        return {"chain": "request", "system": system, "row_models": self.row_models, **self.model_identity}

    def missing(self, fields: Fields) -> str | None:
        """`prompt` when the row has none of the three."""
        if not (isinstance(fields.get("body"), dict) or fields.get("messages") or fields.get("prompt")):
            return "prompt"  # a `body` that is no object is a column of that name, and no Batch request
        return self.system.missing(fields) if self.system else None

    def request(self, fields: Fields) -> Request:
        """The one call for a row. Raises CallFailed for a row that is no request."""
        body = fields.get("body")
        messages = body.get("messages") if isinstance(body, dict) else fields.get("messages")
        if not messages and isinstance(fields.get("prompt"), str):
            messages = [{"role": "user", "content": fields["prompt"]}]
        if not messages or not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise CallFailed(Failure(Kind.BAD_ROW, "`messages` is no list of messages with a role and a content"))
        if not all(map(_has_named_parts, messages)):
            raise CallFailed(
                Failure(Kind.BAD_ROW, "a part of a message's `content` has a `type` or `source_type` that is no text")
            )
        if self.system is not None:
            messages = [{"role": "system", "content": self.system.render(fields)}, *messages]
        return Request(messages, self._parameters(body))

    async def __call__(self, fields: Fields) -> Json:
        return answer_text(await self.call(self.request(fields)))

    def _parameters(self, body: Json) -> Mapping[str, Json]:
        if not isinstance(body, dict):
            return {}
        if of_client := sorted(_OF_THE_CLIENT & body.keys()):
            raise CallFailed(Failure(Kind.BAD_ROW, f"`{of_client[0]}` in its `body` is no parameter of OpenAI's API"))
        parameters = {name: value for name, value in body.items() if name not in _SENT_BY_US}
        for name, forms in _FORMS.items():
            if not isinstance(parameters.get(name), forms | None):
                raise CallFailed(
                    Failure(Kind.BAD_ROW, f"`{name}` in its `body` is not of the form that OpenAI's API takes")
                )
        if not all(isinstance(tool, dict) for tool in parameters.get("tools") or ()):
            raise CallFailed(Failure(Kind.BAD_ROW, "`tools` in its `body` is no list of objects"))
        if self.row_models and body.get("model"):
            parameters["model"] = body["model"]
        return parameters


def _has_named_parts(message: Mapping[str, Json]) -> bool:
    """Whether LangChain, which looks a part's type up, can tell what its content is made of."""
    content = message.get("content")
    if not isinstance(content, list):
        return True
    parts = [part for part in content if isinstance(part, dict)]
    return all(isinstance(part.get(name), str | None) for part in parts for name in ("type", "source_type"))
