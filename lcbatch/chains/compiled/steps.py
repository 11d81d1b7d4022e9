"""Single parts of a chain as steps: prompts, chat models, parsers, and the few functions that are known."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models._utils import _normalize_messages
from langchain_core.language_models.chat_models import _format_for_tracing
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    JsonOutputToolsParser,
    MarkdownListOutputParser,
    NumberedListOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
    StrOutputParser,
)
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnablePassthrough, RunnablePick

from lcbatch.chains.compiled.context import Later, Now, Step, as_itself, in_context, kind_of
from lcbatch.chains.compiled.prompts import prompt_step
from lcbatch.records import current_step

_PARSERS = frozenset(
    {
        StrOutputParser,
        JsonOutputParser,
        JsonOutputToolsParser,
        JsonOutputKeyToolsParser,
        CommaSeparatedListOutputParser,
        NumberedListOutputParser,
        MarkdownListOutputParser,
    }
)
_LANGCHAINS = frozenset(
    {
        "self",
        "input",
        "messages",
        "prompts",
        "config",
        "callbacks",
        "tags",
        "metadata",
        "run_name",
        "run_id",
        "run_manager",
    }
)
"""Bound arguments of these names meet parameters of LangChain's own methods on their way: a matter for LangChain to settle."""


def overridden(runnable: Any, known: type, *methods: str) -> str | None:
    """The first of the methods that is no longer that of the class which is known here."""
    return next((name for name in methods if getattr(type(runnable), name) is not getattr(known, name)), None)


def plain_step(runnable: Any, whole: Runnable[Any, Any]) -> Step | str:
    """The step for a Runnable that holds no others, or why there is none. `whole` is it with all bindings around it."""
    kind = kind_of(runnable)
    if kind in {ChatPromptTemplate, PromptTemplate}:
        return prompt_step(runnable)
    if kind in _PARSERS:
        return _parser_step(runnable)
    if kind in {PydanticOutputParser, PydanticToolsParser}:
        schemas = runnable.tools if kind is PydanticToolsParser else [runnable.pydantic_object]
        return "its schema runs code of its own" if any(map(runs_code, schemas)) else _parser_step(runnable)
    if kind is RunnablePassthrough:
        calls = runnable.func is not None or runnable.afunc is not None
        return "it calls a function" if calls else Now(lambda value: value)
    if kind is RunnablePick:
        return Now(runnable._pick)  # noqa: SLF001 - all that its ainvoke does
    if kind is RunnableLambda:
        return _function_step(runnable, whole)
    return "no kind that is known here"


def model_step(model: BaseChatModel, bound: Mapping[str, Any], name: str) -> Step | str:
    """What `ainvoke` does, without the callbacks. The inner step is looked up when it is called: a run hooks it on the class, and
    its hook knows a straight way for texts.

    `name` is what the call says of itself.
    """
    why = _bars(model, bound)
    if why is not None:
        return why
    options = dict(bound)
    stop = options.pop("stop", None)
    # As agenerate does it: both are for tracing, and the second goes only where the first says nothing.
    _ = options.pop("ls_structured_output_format", None) or options.pop("structured_output_format", None)

    async def answer(value: Any) -> BaseMessage:
        messages = model._convert_input(value).to_messages()  # noqa: SLF001
        generate = type(model)._agenerate_with_cache  # noqa: SLF001
        if any(isinstance(message.content, list) for message in messages):
            _format_for_tracing(messages)  # nobody sees it, but it refuses pictures that it cannot convert
        elif (straight := getattr(generate, "straight", None)) is not None:
            reply: Awaitable[BaseMessage] | None = straight(model, messages, stop, options)
            if reply is not None:
                return await reply
        result = await model._agenerate_with_cache(  # noqa: SLF001
            _normalize_messages(messages),
            stop=stop,
            run_manager=AsyncCallbackManagerForLLMRun.get_noop_manager(),
            **options,
        )
        return result.generations[0].message

    async def alone(value: Any, _: RunnableConfig | None) -> BaseMessage:
        token = current_step.set(name or current_step.get())
        try:
            return await answer(value)
        finally:
            current_step.reset(token)

    if type(model).__module__.startswith("langchain_"):
        return Later(alone, alone=True)
    return Later(lambda value, config: in_context(answer(value), config, name))


def _bars(model: BaseChatModel, bound: Mapping[str, Any]) -> str | None:
    method = overridden(model, BaseChatModel, "invoke", "ainvoke", "agenerate", "agenerate_prompt")
    if method is not None:
        return f"it has a method {method} of its own"
    if not _LANGCHAINS.isdisjoint(bound):
        return "arguments are bound to it that LangChain keeps for itself"
    if model.callbacks or model.verbose:
        return "callbacks listen to it" if model.callbacks else "it is verbose"
    return None if model.cache is None or model.cache is False else "it has a cache"


def _parser_step(parser: Any) -> Now:
    plain = type(parser) is StrOutputParser

    def run(value: Any) -> Any:
        if plain and type(value) is AIMessage and type(value.content) is str:
            return parser.parse(value.text)  # what the generation would say
        said = ChatGeneration(message=value) if isinstance(value, BaseMessage) else Generation(text=value)
        try:
            return parser.parse_result([said])
        except StopIteration as error:
            raise RuntimeError from error  # as it comes out of LangChain's thread

    return Now(run)


def runs_code(schema: Any) -> bool:
    """Whether validating may run a function of the user's, which may block: LangChain parses in a thread.

    pydantic's own types that are validated by functions count, too: a schema does not tell whose they are.
    """
    core = getattr(schema, "__pydantic_core_schema__", None)
    if not isinstance(core, dict):  # of pydantic 1, or not fully defined yet
        return True
    waiting: list[Any] = [core]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if str(part.get("type")).startswith("function-") or part.get("post_init") or part.get("custom_init"):
                return True
            part = part.values()
        waiting.extend(inner for inner in part if isinstance(inner, dict | list | tuple))
    return False


def _function_step(runnable: RunnableLambda[Any, Any], whole: Runnable[Any, Any]) -> Step | str:
    """The user's functions run as themselves; two that are known to be none of the user's are called."""
    function = getattr(runnable, "func", None)
    if isinstance(function, operator.itemgetter) and not hasattr(runnable, "afunc"):
        return _getter_step(function, whole)
    schema = _openai_schema(function)
    if function is None or schema is None:
        return "a function of your own"
    return "its schema runs code of its own" if runs_code(schema) else Now(function)


def _getter_step(getter: Callable[[Any], Any], whole: Runnable[Any, Any]) -> Later:
    slow = as_itself(whole)

    async def run(value: Any, config: RunnableConfig | None) -> Any:
        if type(value) is dict:
            found = getter(value)
            if not isinstance(found, Runnable):  # a Runnable that a function returns is run
                return found
        return await slow.run(value, config)

    return Later(run)


def _openai_schema(function: Any) -> Any:
    """The schema, if this is the parser that ChatOpenAI.with_structured_output puts after the model."""
    module = sys.modules.get("langchain_openai.chat_models.base")
    known = getattr(module, "_oai_structured_outputs_parser", None)
    if not isinstance(function, functools.partial) or function.func is not known or function.args:
        return None
    return function.keywords.get("schema")
