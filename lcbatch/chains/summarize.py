"""One summary a document: in one call where the document fits the model's context, else from summaries of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lcbatch.chains.context import DEFAULT_CONTEXT_TOKENS, Context, size_of
from lcbatch.chains.mapreduce import MapReduce, room_for_parts
from lcbatch.chains.replies import answer_text
from lcbatch.chains.template import as_text
from lcbatch.chains.wording import Wording
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.ports import Call, Layouts
from lcbatch.records import Fields, Json, Request

AUTO, STUFF, MAP_REDUCE = "auto", "stuff", "map-reduce"

_OF_REFUSED = 0.6
"""A document that the provider refuses as too long, although it should fit, is cut into parts of this share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How documents are put to a model.

    `alone`: the bare document, with words, language and focus as call parameters, whole whatever its length. Else `strategy` is
    `stuff` (whole), `map-reduce` (in parts), or `auto`: whole where it fits. `layouts` remember how documents were cut.
    """

    strategy: str = AUTO
    alone: bool = False
    context: Context = field(default_factory=lambda: Context(DEFAULT_CONTEXT_TOKENS))
    given_context_tokens: int | None = None
    layouts: Layouts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SummarizeChain:
    """Summarizes the field `text` in about as many words as the wording says.

    A user's own prompts replace the default ones; `{text}`, `{name}`, `{path}`, `{words}`, `{language}` and `{focus}` may stand
    in them, in those for parts also `{headings}`.
    """

    call: Call
    wording: Wording
    reading: Reading
    model_identity: Mapping[str, Json]

    @property
    def uses(self) -> frozenset[str] | None:
        """The text alone, and what the user's own templates name: a document that moved is the same document."""
        return frozenset({"text"}) | self.wording.names

    @property
    def identity(self) -> Mapping[str, Json]:
        """What decides the answers. The context counts as it was given: what a model's profile says changes with its package.

        So does not which of `auto` and `map-reduce` it was, as they do the same.
        """
        wording, reading = self.wording, self.reading
        own: dict[str, Json] = {"prompt": None, "system": None}
        if not reading.alone:
            own = {**wording.identity, "strategy": STUFF if reading.strategy == STUFF else AUTO}
        if not reading.alone and reading.strategy != STUFF:
            own |= {**wording.identity_of_parts, "context_tokens": reading.given_context_tokens}
        asked = {"words": wording.words, "language": wording.language, "focus": wording.focus}
        return {"chain": "summarize", **asked, **own, **self.model_identity}

    def missing(self, fields: Fields) -> str | None:
        """What the user's own templates need beyond what documents offer."""
        return self.wording.missing(fields)

    def has_room(self) -> bool:
        """Whether parts of a document have room in the context beside their prompt, and their summaries beside theirs."""
        if self.reading.strategy == STUFF:
            return True
        return room_for_parts(self.wording, self.reading.context, dict.fromkeys(self.wording.names, ""))

    async def __call__(self, fields: Fields) -> Json:
        text = as_text(fields.get("text"))
        if not text.strip():
            raise CallFailed(Failure(Kind.NO_TEXT, "there is no text in it"))
        if self.reading.alone:
            return answer_text(await self.call(self._alone(text)))
        if self._goes_whole(fields, text):
            try:
                return answer_text(await self.call(self.wording.whole(fields, text)))
            except CallFailed as error:
                if self.reading.strategy == STUFF or error.failure.kind is not Kind.CONTEXT_LENGTH:
                    raise
                return await self._in_parts(fields, text, round(size_of(text) * _OF_REFUSED))
        return await self._in_parts(fields, text)

    def _goes_whole(self, fields: Fields, text: str) -> bool:
        """Whether it is asked in one call. One that fits is not cut: of one part there is nothing to merge."""
        frame = self.wording.whole(fields, "")
        return self.reading.strategy == STUFF or size_of(text) <= self.reading.context.room_bytes(
            frame, self.wording.words
        )

    async def _in_parts(self, fields: Fields, text: str, most_bytes: int | None = None) -> str:
        reading = self.reading
        return await MapReduce(self.call, self.wording, reading.context, reading.layouts)(fields, text, most_bytes)

    def _alone(self, text: str) -> Request:
        wording = self.wording
        given = {"words": wording.words, "language": wording.language, "focus": wording.focus}
        message = {"role": "user", "content": text}
        return Request([message], {name: value for name, value in given.items() if value is not None})
