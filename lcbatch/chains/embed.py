"""One vector a row: the row's text, or a template filled with its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lcbatch.chains.template import Template, as_text
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.ports import Call
from lcbatch.records import Fields, Json, Request

_TEXT_FIELDS = ("text", "prompt")
"""Where the text stands without a template, in the order in which they are looked for."""


@dataclass(frozen=True)
class EmbedChain:
    """Asks for the vector of a row's text. Its output is the vector packed into text (`lcbatch.vectors`), as it was stored."""

    call: Call
    prompt: Template | None
    model_identity: Mapping[str, Json]

    @cached_property
    def uses(self) -> frozenset[str] | None:
        """The fields that the template names, else those that may hold the text."""
        return frozenset(_TEXT_FIELDS) if self.prompt is None else self.prompt.names

    @property
    def identity(self) -> Mapping[str, Json]:
        """What decides the vectors."""
        return {"chain": "embed", "prompt": self.prompt.text if self.prompt else None, **self.model_identity}

    def missing(self, fields: Fields) -> str | None:
        """The first field that is needed and not there."""
        if self.prompt is not None:
            return self.prompt.missing(fields)
        return None if any(name in fields for name in _TEXT_FIELDS) else _TEXT_FIELDS[0]

    async def __call__(self, fields: Fields) -> Json:
        text = self._text(fields)
        if not text.strip():
            raise CallFailed(Failure(Kind.NO_TEXT, "there is no text in it"))
        return (await self.call(Request([text], step="embed"))).text

    def _text(self, fields: Fields) -> str:
        if self.prompt is not None:
            return self.prompt.render(fields)
        return as_text(next((fields[name] for name in _TEXT_FIELDS if name in fields), None))
