"""Other models for what the first cannot answer.

Handed on are calls whose trouble is the model's or its provider's: an outage (at once, without waiting for its end), attempts
that are used up, a quota, a prompt that is too long for it, a content filter. What another model would do no better with stays
where it is: an invalid request, a wrong key or model name (that is for the user to mend), the user's own budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.events import Notice
from lcbatch.ports import Call, Emit
from lcbatch.records import Reply, Request

HANDED_ON = frozenset(
    {
        Kind.THROTTLE,
        Kind.QUOTA,
        Kind.TIMEOUT,
        Kind.CONNECTION,
        Kind.SERVER,
        Kind.TRUNCATED,
        Kind.BAD_BODY,
        Kind.CONTEXT_LENGTH,
        Kind.CONTENT_FILTER,
    }
)
"""Kinds of failure after which the next model is asked. Documented in docs/limits.md."""


class Fallback:
    """A Call that asks models (label, call) in their order until one answers.

    What is raised in the end is the last one's verdict. That a model takes another's place is said once a model; one whose
    quota is used up is not asked again.
    """

    def __init__(self, models: Sequence[tuple[str, Call]], emit: Emit) -> None:
        self._models = models
        self._emit = emit
        self._said: set[str] = set()
        self._used_up: dict[str, Failure] = {}

    async def __call__(self, request: Request) -> Reply:
        attempts = 0
        for (label, call), (after, _) in pairwise([*self._models, ("", self._models[-1][1])]):
            try:
                reply = await self._ask(label, call, request)
            except CallFailed as error:
                attempts += error.attempts
                if not after or not _is_handed_on(error.failure):
                    raise CallFailed(error.failure, attempts) from error
                self._say(label, after, error.failure)
            else:
                return replace(reply, attempts=reply.attempts + attempts) if attempts else reply
        raise AssertionError("the last model answers or raises")

    async def _ask(self, label: str, call: Call, request: Request) -> Reply:
        if label in self._used_up:
            raise CallFailed(self._used_up[label], attempts=0)
        try:
            return await call(request)
        except CallFailed as error:
            if error.failure.kind is Kind.QUOTA:
                self._used_up[label] = error.failure
            raise

    def _say(self, label: str, after: str, failure: Failure) -> None:
        if label not in self._said:
            self._said.add(label)
            why = f"{failure.kind}: {failure.message}"
            self._emit(Notice(f"{after} takes the calls that {label} cannot answer, the first for {why}"))


def _is_handed_on(failure: Failure) -> bool:
    return failure.kind in HANDED_ON and not failure.budget


def fallback(models: Sequence[tuple[str, Call]], emit: Emit) -> Call:
    """The models' calls as one. A single model needs no fallback around it."""
    return models[0][1] if len(models) == 1 else Fallback(models, emit)
