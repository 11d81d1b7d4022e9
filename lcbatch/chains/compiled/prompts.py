"""Prompt templates as steps. Formatting is most of what a compiled chain does itself: plain f-strings have a way of their own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from string import Formatter
from typing import Any, TypeAlias, TypeVar

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    ChatMessagePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)

from lcbatch.chains.compiled.context import Now, Step, kind_of

_T = TypeVar("_T")
_Fill: TypeAlias = Callable[[Mapping[str, Any]], _T]

_OF_ONE_TEXT = frozenset({SystemMessagePromptTemplate, HumanMessagePromptTemplate, AIMessagePromptTemplate})
_OF_TEXTS = _OF_ONE_TEXT | {ChatMessagePromptTemplate}


def prompt_step(prompt: Any) -> Step | str:
    """The step for a ChatPromptTemplate or a PromptTemplate, or why there is none."""
    if not _formats_at_once(prompt):
        return "a template of another kind is in it"

    def run(value: Any) -> Any:
        return _at_once(prompt._aformat_prompt_with_error_handling(value))  # noqa: SLF001

    fill = _value(prompt)
    return Now(run) if fill is None else Now(_quickly(prompt, fill, run))


def _formats_at_once(template: Any) -> bool:
    """Whether formatting is known to await nothing: pictures are read in a thread, and of other classes nothing is known."""
    kind = kind_of(template)
    if kind is ChatPromptTemplate:
        return all(map(_formats_at_once, template.messages))
    if kind in _OF_TEXTS:
        return all(map(_formats_at_once, template.prompt if isinstance(template.prompt, list) else [template.prompt]))
    return kind in {PromptTemplate, MessagesPlaceholder} or isinstance(template, BaseMessage)


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that is known not to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    work.close()
    raise RuntimeError("a template waited while it was formatted")


def _quickly(prompt: Any, fill: _Fill[Any], slowly: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Plain formatting where nothing is out of the ordinary; whatever may fail is left to LangChain, for its errors."""
    needs, partials = frozenset(prompt.input_variables), dict(prompt.partial_variables)

    def run(value: Any) -> Any:
        if type(value) is not dict or "self" in value or not needs <= value.keys():
            return slowly(value)
        try:
            return fill({**partials, **dict(**value)})  # a key that is no string is refused, as it is in a call
        except Exception:  # noqa: BLE001 - the error that counts is LangChain's, which formats it again
            return slowly(value)

    return run


def _value(prompt: Any) -> _Fill[Any] | None:
    """What makes the prompt's value out of all variables, if it is of the usual kind."""
    if any(map(callable, prompt.partial_variables.values())):
        return None  # called by LangChain, once for each row
    if isinstance(prompt, PromptTemplate):
        text = _text(prompt)
        return None if text is None else lambda values: StringPromptValue(text=text(values))
    parts = [_messages(template) for template in prompt.messages]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return lambda values: ChatPromptValue(messages=[message for part in known for message in part(values)])


def _messages(template: Any) -> _Fill[list[BaseMessage]] | None:
    if isinstance(template, BaseMessage):
        return lambda _: [template]
    if isinstance(template, MessagesPlaceholder):
        return lambda values: template.format_messages(**values)
    text = _text(template.prompt) if kind_of(template) in _OF_ONE_TEXT else None
    if text is None:
        return None
    make, more = template._msg_class, template.additional_kwargs  # noqa: SLF001 - all that its format knows besides
    return lambda values: [make(content=text(values), additional_kwargs=more)]


def _text(template: Any) -> _Fill[str] | None:
    """`str.format_map`, which is what LangChain's formatter comes to where a template's fields are mere names."""
    if not isinstance(template, PromptTemplate) or template.template_format != "f-string":
        return None
    partials = dict(template.partial_variables)
    if any(map(callable, partials.values())) or not _has_mere_names(template.template):
        return None
    text = template.template
    return (lambda values: text.format_map({**partials, **values})) if partials else text.format_map


def _has_mere_names(text: str) -> bool:
    try:
        fields = [
            (name, spec or conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None
        ]
    except ValueError:
        return False
    return all(name.isidentifier() and not more for name, more in fields)
