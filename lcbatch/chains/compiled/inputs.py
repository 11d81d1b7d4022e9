"""What a chain of Runnables needs of a row, read from them before anything is called.

Only what is sure to be missed counts: a prompt's variables, an `itemgetter`'s keys, the fields of a declared type. What LangChain
guesses from a lambda's source counts for nothing, since `row.get("x", "")` does without. Of a graph's state some part has to be
there; which, only the graph knows.
"""

from __future__ import annotations

import operator
from typing import Any, get_type_hints

from langchain_core.language_models import BaseLanguageModel
from langchain_core.prompts import BasePromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableBinding,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.configurable import DynamicRunnable

from lcbatch.chains.inputs import NOTHING, Needs, of_function, of_type


def of_runnable(chain: Runnable[Any, Any]) -> Needs:
    """What a chain needs of a row; NOTHING where its types cannot be read."""
    try:
        return _of_runnable(chain)
    except Exception:  # noqa: BLE001 - names that only a type checker sees, types that pydantic refuses: it may run all the same
        return NOTHING


def _of_runnable(part: Runnable[Any, Any]) -> Needs:
    if (within := _within(part)) is not None:
        return _of_runnable(within)
    if isinstance(part, RunnableBinding):
        return of_type(part.custom_input_type)
    if isinstance(part, RunnableSequence):
        return _of_sequence(part)
    if isinstance(part, RunnableParallel):
        return _of_branches([_of_runnable(branch) for branch in part.steps__.values()])
    if isinstance(part, RunnableAssign):
        return Needs(_of_runnable(part.mapper).fields)
    return _of_leaf(part)


def _within(part: Runnable[Any, Any]) -> Runnable[Any, Any] | None:
    """What a Runnable hands its input to, as it came."""
    if isinstance(part, RunnableBinding) and part.custom_input_type is None:
        return part.bound
    if isinstance(part, RunnableWithFallbacks):
        return part.runnable
    return part.default if isinstance(part, DynamicRunnable) else None


def _of_leaf(part: Runnable[Any, Any]) -> Needs:
    if isinstance(part, RunnablePassthrough | RunnablePick | RunnableBranch):
        return NOTHING
    if isinstance(part, BasePromptTemplate):
        return Needs(frozenset(part.input_variables))
    if isinstance(part, BaseLanguageModel):
        return Needs(bare="messages")
    if isinstance(part, BaseRetriever):
        return Needs(bare="text")
    if isinstance(part, RunnableLambda):
        function = getattr(part, "func", None) or part.afunc
        return _of_schema(part) if isinstance(function, operator.itemgetter) else of_function(function)
    return _of_schema(part)


def _of_sequence(sequence: RunnableSequence[Any, Any]) -> Needs:
    """The first step's; while steps only add fields, what the later ones need besides these comes from the row too."""
    needed, added = frozenset[str](), frozenset[str]()
    for step in sequence.steps:
        if isinstance(step, RunnablePassthrough):
            continue
        needs = _of_runnable(step)
        needed |= needs.fields - added
        if not isinstance(step, RunnableAssign):
            return needs if not needed and not added else Needs(needed)
        added |= frozenset(step.mapper.steps__)
    return Needs(needed)


def _of_branches(branches: list[Needs]) -> Needs:
    fields = frozenset[str]().union(*(needs.fields for needs in branches))
    one_value = next((needs.bare for needs in branches if needs.bare), "")
    return Needs(fields) if fields or not one_value else Needs(bare="text")


def _of_schema(part: Runnable[Any, Any]) -> Needs:
    if (state := getattr(getattr(part, "builder", None), "input_schema", None)) is not None:  # a graph of LangGraph's
        return Needs(one_of=tuple(get_type_hints(state)))
    schema = part.get_input_jsonschema()
    if schema.get("type") == "string":
        return Needs(bare="text")
    return Needs(frozenset(schema.get("required", ()))) if schema.get("type") == "object" else NOTHING
