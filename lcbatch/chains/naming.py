"""Whose row a chain's run is, and which of its steps makes a call: the name that the nearest part around it was given.

Names that count are those that people give: `run_name`, a Runnable's own name, a function's, a graph's nodes, the keys of a
RunnableParallel and of `assign`. What is compiled knows its names beforehand; in parts that LangChain runs, a handler hears them.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.base import BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig

from lcbatch.records import current_row, current_step

_TAG = "lcbatch"

_KEY = "map:key:"
"""How LangChain tags the branches of a RunnableParallel."""

_LANGCHAINS_OWN = ("Runnable", "LangGraph", "ChannelWrite", "_")
"""How the names begin that LangChain makes up for parts which have none."""


def own_name(runnable: Runnable[Any, Any]) -> str:
    """The name that a Runnable was given, "" where it has none."""
    name = getattr(runnable, "name", None)
    return name if isinstance(name, str) and _is_given(name, type(runnable).__name__) else ""


def _is_given(name: str, kind: str) -> bool:
    return bool(name) and name != kind and not name.startswith(_LANGCHAINS_OWN)


class StepNames(BaseCallbackHandler):
    """Keeps `current_step` right in a part that LangChain runs. One for each time that a part is run.

    It works inline: events come in the very context in which the run is made, and what is set there ends with it, or is put back.
    """

    run_inline = True
    ignore_agent = True
    ignore_retriever = True
    ignore_custom_event = True
    ignore_retry = True

    def __init__(self, *, outermost: bool) -> None:
        """`outermost` says that the first runs are steps, as those of a function; else they are the whole chain's."""
        self._outermost = outermost
        self._before: dict[UUID, str] = {}
        self._models: dict[UUID, str] = {}

    def lcbatch_step_of(self, run_id: UUID) -> str:
        """The name of a model's run that goes on, "" where it was given none."""
        return self._models.get(run_id, "")

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,  # noqa: ARG002 - LangChain's own signature
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **more: Any,
    ) -> None:
        """A part begins."""
        if (parent_run_id is not None or self._outermost) and (name := _heard(more.get("name"), serialized, tags)):
            self._before[run_id] = current_step.get()
            current_step.set(name)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[Any]],  # noqa: ARG002 - LangChain's own signature
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        **more: Any,
    ) -> None:
        """A model begins. Its end comes in a context of its own, where nothing could be put back: it is asked for by its run."""
        if name := _heard(more.get("name") or (serialized or {}).get("name"), serialized, tags):
            self._models[run_id] = name

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002
        """A part has ended."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002
        """A part has failed."""
        self._end(run_id)

    def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002
        """A model has answered."""
        self._models.pop(run_id, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002
        """A model has failed."""
        self._models.pop(run_id, None)

    def _end(self, run_id: UUID) -> None:
        if (before := self._before.pop(run_id, None)) is not None:
            current_step.set(before)


def _heard(name: Any, serialized: dict[str, Any] | None, tags: list[str] | None) -> str:
    """A run's name, unless it is only what its class is called; else the key of the branch that it is."""
    kind = ((serialized or {}).get("id") or [""])[-1]
    if isinstance(name, str) and _is_given(name, kind):
        return name
    return next((tag.removeprefix(_KEY) for tag in reversed(tags or ()) if tag.startswith(_KEY)), "")


def listening(config: RunnableConfig | None, *, outermost: bool = False) -> RunnableConfig:
    """The config, with names heard in all runs that are made with it. `outermost`: see StepNames."""
    config = {**config} if config else {}
    given, names = config.get("callbacks"), StepNames(outermost=outermost)
    if isinstance(given, BaseCallbackManager):
        manager = given.copy()
        manager.add_handler(names, inherit=True)
        config["callbacks"] = manager
    else:
        config["callbacks"] = [*(given or ()), names]
    return config


def run_name(runnable: Runnable[Any, Any], attribute: str) -> str | None:
    """What a chain's runs are called: as it is found in its module, unless it has a name of its own."""
    bound = getattr(runnable, "config", None) if isinstance(runnable, RunnableBinding) else None
    return None if (bound and bound.get("run_name")) or own_name(runnable) else attribute


def row_config(name: str | None) -> RunnableConfig:
    """The config for the row that is being run: who it is stands in the metadata, as callbacks, tracers and tools see them."""
    config: RunnableConfig = {"tags": [_TAG]}
    if name is not None:
        config["run_name"] = name
    if (scope := current_row.get(None)) is not None:
        row = scope.row
        config["metadata"] = {"lcbatch_row_id": row.id, "lcbatch_ordinal": row.ordinal, "lcbatch_place": row.place}
    return config
