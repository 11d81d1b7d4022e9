"""A document of any length: its parts are summarized, and the summaries merged, level by level, until one is left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lcbatch import jsontext
from lcbatch.chains.context import Context, size_of
from lcbatch.chains.cutting import OVERLAP_BYTES, cut_up, grouped, mark, parts_between
from lcbatch.chains.replies import answer_text
from lcbatch.chains.structure import MOST_PATH_BYTES, Structure, structure_of
from lcbatch.chains.wording import Wording
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.ports import Call, Layouts
from lcbatch.records import Fields, Request

T = TypeVar("T")

_BETWEEN = "\n\n"
_MOST_LEVELS = 12
"""Each level leaves at most half of the summaries: that is enough for any document that can be held in memory."""

_FEWEST_BYTES = 1024
"""A part that the model refuses as too long is halved down to this: below it, length is not what is wrong."""


@dataclass(frozen=True, slots=True)
class MapReduce:
    """Summarizes a document part by part.

    All parts are asked at once, and so are all mergings of a level: how many calls go out together is the call stack's affair.
    The first that fails fails the document; the answers to the others stay stored. What a provider refuses as too long although
    it should fit is asked in halves.
    """

    call: Call
    wording: Wording
    context: Context
    layouts: Layouts | None

    async def __call__(self, fields: Fields, text: str, most_bytes: int | None = None) -> str:
        """The summary. Parts have at most `most_bytes`, where the context would allow for more."""
        if not room_for_parts(self.wording, self.context, fields):
            hint = "give a larger --context-tokens, --strategy stuff, or a prompt that names fewer fields"
            raise CallFailed(Failure(Kind.CONTEXT_LENGTH, f"its fields leave no room for its text; {hint}"))
        name = str(fields.get("name") or "")
        document = structure_of(text, name)
        parts = await self._mapped(fields, document, self._cuts(fields, document, most_bytes))
        said = [part for part in parts if part.strip()]
        return await self._merged(fields, said) if said else ""

    def _cuts(self, fields: Fields, document: Structure, most_bytes: int | None) -> list[int]:
        """Where the document is cut: as it was in an earlier run, if it is the same, else anew, near to how it was."""
        frame = self.wording.part(fields, "", "")
        room = self.context.room_bytes(frame, self.wording.map_words) - OVERLAP_BYTES - MOST_PATH_BYTES
        most = max(_FEWEST_BYTES, room if most_bytes is None else min(room, most_bytes))
        said = jsontext.digest(document.data, most.to_bytes(8, "little")).hex()
        noted = self.layouts.recall() if self.layouts is not None else None
        if isinstance(noted, dict) and noted.get("document") == said:
            return list(noted["cuts"])
        known = frozenset(bytes.fromhex(one) for one in noted["marks"]) if isinstance(noted, dict) else frozenset()
        cuts = cut_up(document, most, known)
        if self.layouts is not None:
            marks = [mark(document.data, cut).hex() for cut in cuts[:-1]]
            self.layouts.note({"document": said, "cuts": cuts, "marks": marks})
        return cuts

    async def _mapped(self, fields: Fields, document: Structure, cuts: Sequence[int]) -> list[str]:
        pieces = [
            (document.text(part.before, part.end), document.path_at(part.start))
            for part in parts_between(document, cuts)
        ]
        found = await _together([self._part(fields, text, headings) for text, headings in pieces])
        return [text for several in found for text in several]

    async def _part(self, fields: Fields, text: str, headings: str) -> list[str]:
        try:
            return [await self._ask(self.wording.part(fields, text, headings))]
        except CallFailed as error:
            if not _too_long(error) or size_of(text) < 2 * _FEWEST_BYTES:
                raise
        whole = structure_of(text, "")
        halves = [whole.text(start, end) for start, end in _halves(whole)]
        found = await _together([self._part(fields, half, headings) for half in halves])
        return [text for several in found for text in several]

    async def _merged(self, fields: Fields, parts: list[str]) -> str:
        room = self.context.room_bytes(self.wording.merged(fields, "", last=False), self.wording.map_words)
        last_room = min(room, self.context.room_bytes(self.wording.merged(fields, "", last=True), self.wording.words))
        for _ in range(_MOST_LEVELS):
            if len(parts) <= 1 or _joined_size(parts) <= last_room:
                try:
                    return await self._ask(self.wording.merged(fields, _BETWEEN.join(parts), last=True))
                except CallFailed as error:
                    if not _too_long(error) or len(parts) <= 1:
                        raise
                    room = last_room = min(room, _joined_size(parts)) // 2
            merged = await self._level(fields, parts, room)
            if len(merged) >= len(parts):
                break
            parts = merged
        hint = "give a larger --context-tokens, or fewer --words"
        raise CallFailed(Failure(Kind.CONTEXT_LENGTH, f"the summaries of its parts do not fit together; {hint}"))

    async def _level(self, fields: Fields, parts: Sequence[str], room: int) -> list[str]:
        sizes = [size_of(part) + len(_BETWEEN) for part in parts]
        marks = [jsontext.digest(part.encode("utf-8", "surrogatepass")) for part in parts]
        groups = grouped(sizes, marks, room)
        found = await _together([self._group(fields, [parts[index] for index in group]) for group in groups])
        return [text for several in found for text in several]

    async def _group(self, fields: Fields, parts: Sequence[str]) -> list[str]:
        """A group's merged summary; a part alone is passed on as it is."""
        if len(parts) == 1:
            return list(parts)
        try:
            return [await self._ask(self.wording.merged(fields, _BETWEEN.join(parts), last=False))]
        except CallFailed as error:
            if not _too_long(error) or len(parts) <= 3:  # noqa: PLR2004 - halves of two parts each are the least
                raise
        middle = len(parts) // 2
        found = await _together([self._group(fields, parts[:middle]), self._group(fields, parts[middle:])])
        return [text for several in found for text in several]

    async def _ask(self, request: Request) -> str:
        return answer_text(await self.call(request))


def room_for_parts(wording: Wording, context: Context, fields: Fields) -> bool:
    """Whether a document's parts have room in the context beside their prompt, and their summaries beside theirs."""
    frames = (wording.part(fields, "", ""), wording.merged(fields, "", last=False))
    return all(context.holds_something(frame, wording.map_words) for frame in frames)


def _halves(document: Structure) -> list[tuple[int, int]]:
    middle, *_ = cut_up(document, -(-len(document.data) * 4 // 5))
    return [(0, middle), (middle, len(document.data))]


def _joined_size(parts: Sequence[str]) -> int:
    return sum(size_of(part) + len(_BETWEEN) for part in parts)


def _too_long(error: CallFailed) -> bool:
    return error.failure.kind is Kind.CONTEXT_LENGTH


async def _together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; the first failure as it comes.

    No task group: that would cancel the others' calls on the wire, whose answers are paid for. Who runs the row waits for these
    and cuts off those that only wait for their turn (execute/shutdown.py). Cancelled itself, it cancels them all.
    """
    return list(await asyncio.gather(*calls))
