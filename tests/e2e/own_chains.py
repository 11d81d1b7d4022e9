"""Chains whose steps have names, given in every way there is; the model's address comes from the environment."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_openai import ChatOpenAI
from typing_extensions import TypedDict

model = ChatOpenAI(model="sim")


def _asks(text: str) -> Runnable[Any, str]:
    return ChatPromptTemplate.from_template(text) | model | StrOutputParser()


draft = _asks("Draft {text}").with_config(run_name="draft")
polish = _asks("Polish {text}").with_config(run_name="polish")
_again: Runnable[Any, Any] = RunnableLambda(lambda said: {"text": said})

by_run_name = draft | _again | polish

by_key: Runnable[Any, Any] = RunnableParallel(draft=_asks("Draft {text}"), polish=_asks("Polish {text}"))

by_assigned_key = RunnablePassthrough.assign(draft=_asks("Draft {text}")) | RunnablePassthrough.assign(
    polish=_asks("Polish {draft}")
)

by_models_own_name = (
    ChatOpenAI(model="sim", name="draft")
    | RunnableLambda(lambda said: said.content)
    | model.with_config(run_name="polish")
    | StrOutputParser()
)

by_label = ChatOpenAI(model="draft") | RunnableLambda(lambda said: said.content) | ChatOpenAI(model="polish")


stuck_at_the_third = draft | _again | polish | _again | _asks("Check [[fault:hang:1]] {text}")
"""The provider never answers the first call of the third step."""


async def in_a_function(row: dict[str, Any]) -> str:
    """Named chains that a function calls."""
    return await polish.ainvoke({"text": await draft.ainvoke(row)})


def in_a_thread(row: dict[str, Any]) -> str:
    """The same in sync code."""
    return polish.invoke({"text": draft.invoke(row)})


async def _calls(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": await draft.ainvoke(row)}


in_a_part = RunnableLambda(_calls) | polish


class _State(TypedDict):
    text: str


def graph() -> Any:
    """A graph of two nodes."""
    from langgraph.graph import StateGraph  # noqa: PLC0415 - only this one needs it

    async def node(state: _State) -> _State:
        return {"text": await _asks("Say {text}").ainvoke(state)}

    built = StateGraph(_State)
    built.add_node("draft", node)
    built.add_node("polish", node)
    built.set_entry_point("draft")
    built.add_edge("draft", "polish")
    return built.compile()


class _Listener(BaseCallbackHandler):
    """Keeps what a tracer would see of a chain's outermost run."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def on_chain_start(self, serialized: Any, inputs: Any, *, parent_run_id: Any = None, **more: Any) -> None:  # noqa: ARG002
        """A run begins."""
        if parent_run_id is None:
            metadata = more["metadata"]
            self.seen[metadata["lcbatch_row_id"]] = {"name": more["name"], "tags": more["tags"], "metadata": metadata}


def listened() -> Any:
    """The outermost run's name, tags and metadata, as a callback and as the config's reader see them."""
    listener = _Listener()

    def look(row: Any, config: RunnableConfig) -> Any:
        return {"heard": listener.seen[row["id"]], "read": config.get("metadata")}

    return RunnableLambda(cast("Any", look)).with_config(callbacks=[listener])
