"""A chain over a scripted call, and what it sent."""

from __future__ import annotations

from typing import Any

import pytest

from lcbatch.chains import load_chain, load_templates
from lcbatch.errors import CallFailed, Failure
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.job import ChainOptions
from lcbatch.ports import Chain
from lcbatch.records import Fields, Json, Reply, Request
from lcbatch.testing import Answer, ScriptedCall


class Bench:
    """A built-in chain from options, on a call that gives `answer`."""

    def __init__(
        self,
        task: str,
        answer: Answer = "answer",
        *,
        document_alone: bool = False,
        row_models: bool = False,
        **options: Any,
    ) -> None:
        self.call = ScriptedCall(then=answer)
        given = ChainOptions(**options)
        self.chain: Chain = load_chain(
            task,
            given,
            load_templates(given),
            self.call,
            model_identity={"model": "test:m"},
            document_alone=document_alone,
            row_models=row_models,
        )

    def run(self, **fields: Any) -> Json:
        """The output for one row."""
        return run_virtual(_run(self.chain, fields))

    def sent(self, **fields: Any) -> Request:
        """The request that one row makes."""
        self.run(**fields)
        return self.call.requests[-1]

    def failure(self, **fields: Any) -> Failure:
        """The verdict that one row ends with."""
        with pytest.raises(CallFailed) as raised:
            self.run(**fields)
        return raised.value.failure


async def _run(chain: Chain, fields: Fields) -> Json:
    return await chain(fields)


def reply(text: str = "", *, finish_reason: str | None = None, **extra: Any) -> Reply:
    """A reply with `extra` in the message's additional_kwargs."""
    return Reply(text, {"content": text, "additional_kwargs": extra}, "m", finish_reason)
