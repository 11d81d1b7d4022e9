"""From the declarations in `lcbatch.job` to a command's parameters, so that no function takes thirty of them.

A value comes from the first of: flag, environment (`LCBATCH_<NAME>`), config file, default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Annotated, Any, Optional

import typer

from lcbatch.errors import UsageError
from lcbatch.job import Job, declared_options
from lcbatch.world import is_text

_PYTHON_TYPES: Mapping[str, Any] = {
    "int": int,
    "int | None": int,
    "float": float,
    "float | None": float,
    "bool": bool,
    "bool | None": bool,
    "tuple[str, ...]": list[str],
}


def job_options(task: str, *, only: frozenset[str] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command all options of a task (or `only` these); it receives those that were given, as `given`."""
    specs = [
        (group, spec)
        for group, spec in declared_options()
        if task in spec.metadata["tasks"] and spec.metadata["flag"] != "" and (only is None or spec.name in only)
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "given"
        ]

        def wrapper(**values: Any) -> Any:
            given = {spec.name: values.pop(spec.name) for _, spec in specs}
            for _, spec in specs:
                _refuse_no_text(spec, given[spec.name])
            return command(given={name: value for name, value in given.items() if value is not None}, **values)

        parameters = own + [_parameter(group, spec) for group, spec in specs]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        wrapper.__doc__ = command.__doc__
        wrapper.__name__ = command.__name__
        return wrapper

    return decorate


_NAMES_FILES = frozenset(
    {"include", "exclude", "chain", "app_dir", "schema", "output", "errors", "store", "summary_json"}
)


def _refuse_no_text(spec: Field[Any], value: Any) -> None:
    """What is no name of a file goes to a model, a provider or JSON, and none of these takes other bytes than UTF-8."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(text, str) or is_text(text) or spec.name in _NAMES_FILES or text.startswith("@"):
            continue
        flag = spec.metadata["flag"] or "--" + spec.name.replace("_", "-")
        raise UsageError(f"{flag} is no UTF-8: {text!r}", hint="text is given in UTF-8: is the terminal set to it?")


def _parameter(group: str, spec: Field[Any]) -> inspect.Parameter:
    kind = _PYTHON_TYPES.get(str(spec.type), str)
    if spec.metadata["parse"]:
        kind = str
    option = typer.Option(
        *_declarations(spec, kind),
        help=_help(spec),
        envvar=f"LCBATCH_{spec.name.upper()}",
        show_envvar=False,
        metavar=_metavar(spec, kind),
        rich_help_panel=_panel(group),
        autocompletion=_completion(spec),
    )
    annotation = Annotated[Optional[kind], option]  # type: ignore[valid-type] # noqa: UP045 - made at run time
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _declarations(spec: Field[Any], kind: Any) -> list[str]:
    name = "--" + spec.name.replace("_", "-")
    if kind is bool and spec.default is not False:
        name = f"{name}/--no-{name[2:]}"
    return [name, spec.metadata["flag"]] if spec.metadata["flag"] else [name]


def _help(spec: Field[Any]) -> str:
    text = str(spec.metadata["help"])
    if spec.metadata["choices"]:
        text += f" One of {', '.join(spec.metadata['choices'])}."
    if spec.default in (None, False, True, ()):
        return text
    return f"{text} (default: {_shown(spec)})"


def _shown(spec: Field[Any]) -> str:
    if spec.metadata["parse"] == "duration":
        return f"{spec.default:g}s"
    if spec.metadata["parse"] == "bytes":
        return f"{int(str(spec.default)) // 1024**2}m"
    return str(spec.default)


def _metavar(spec: Field[Any], kind: Any) -> str | None:
    if kind is bool:
        return None
    if spec.metadata["choices"]:
        return "|".join(spec.metadata["choices"]) if len(spec.metadata["choices"]) <= 3 else "NAME"  # noqa: PLR2004
    return spec.metadata["metavar"] or spec.name.upper()


def _panel(group: str) -> str:
    return str(type(getattr(Job(), group)).__doc__)


def _completion(spec: Field[Any]) -> Callable[[], list[str]] | None:
    choices = list(spec.metadata["choices"])
    return (lambda: choices) if choices else None
