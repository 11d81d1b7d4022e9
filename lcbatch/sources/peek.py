"""A source whose first batch has been looked at and is still there to be read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from lcbatch.ports import Source
from lcbatch.records import Item


class Peeked:
    """ports.Source over another one.

    The first reading continues from where `row_model` stopped; later ones begin anew.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._first: list[Item] = []
        self._rest: AsyncGenerator[list[Item]] | None = None

    @property
    def rereadable(self) -> bool:
        """As the source says."""
        return self._source.rereadable

    @property
    def passed_over(self) -> int:
        """As the source says."""
        return self._source.passed_over

    async def row_model(self) -> str | None:
        """The model that the first row names in an OpenAI Batch `body`, if it does. Reads one batch."""
        self._rest = self._source.batches()
        self._first = await anext(self._rest, [])
        body = self._first[0].fields.get("body") if self._first else None
        model = body.get("model") if isinstance(body, dict) else None
        return model if isinstance(model, str) else None

    async def aclose(self) -> None:
        """Close what `row_model` left open, if nobody read on."""
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.aclose()

    async def batches(self) -> AsyncGenerator[list[Item]]:
        """ports.Source."""
        rest, self._rest = self._rest, None
        async with aclosing(self._source.batches() if rest is None else rest) as batches:
            if self._first:
                first, self._first = self._first, []
                yield first
            async for batch in batches:
                yield batch
