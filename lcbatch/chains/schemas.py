"""What --schema says: a JSON schema file, a pydantic model, or the short form; and how an answer is held against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbatch import jsontext
from lcbatch.chains.imports import attribute_of, file_digest, import_module
from lcbatch.chains.jsonanswer import objects_in
from lcbatch.chains.output import to_json
from lcbatch.chains.shorthand import parse_shorthand
from lcbatch.chains.strictform import strict_form
from lcbatch.errors import CallFailed, ConfigError, InputMissing
from lcbatch.records import Json
from lcbatch.smallfiles import TooLarge, read_small

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.protocols import Validator

_MOST_FAULTS = 3
_MOST_FAULT_CHARS = 300
_MODULE_AND_ATTR = re.compile(r"[^\s,|()\[\]{}\"']+:[\w.]+")


class Misfit(Exception):
    """An answer that does not fit, and why: said to the model, and kept with the row."""


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The form of an answer, which is an object.

    `names` are its fields in their order. `response_format` asks for it, in OpenAI's words. `identity` changes exactly when
    another answer may fit. `check` gives the value that the output gets, and raises Misfit.
    """

    names: tuple[str, ...]
    response_format: Mapping[str, Json]
    identity: Mapping[str, Json]
    check: Callable[[dict[str, Json]], dict[str, Json]]

    def read(self, text: str) -> dict[str, Json]:
        """The first object in a model's text that fits, its fields in the schema's order, null for those it left out.

        Raises Misfit, with what is wrong with the first object.
        """
        first: Misfit | None = None
        for value in objects_in(text):
            try:
                return self._in_order(self.check(value))
            except Misfit as misfit:
                first = first or misfit
        raise first or Misfit("there is no whole JSON object in it")

    def _in_order(self, value: dict[str, Json]) -> dict[str, Json]:
        """One column for each field, whichever the model named first."""
        return {**{name: value.get(name) for name in self.names}, **value}


def load_schema(text: str, *, app_dir: str | None = None, version: str | None = None) -> AnswerSchema:
    """Read what --schema says. `version` stands for a model's code when it is told whether it changed.

    Raises UsageError for a malformed short form, ConfigError for a wrong schema or model, InputMissing for a missing file.
    """
    said = text.strip()
    if said.startswith("{"):
        return _of_json(_parsed(said, "--schema"), "--schema")
    if said.startswith("@") or said.endswith(".json"):
        path = said.removeprefix("@")
        return _of_json(_parsed(_file(path), f"--schema {path}"), f"--schema {path}")
    if _MODULE_AND_ATTR.fullmatch(said):
        return _of_model(said, app_dir, version)
    return _of_shorthand(parse_shorthand(text))


def _of_shorthand(schema: dict[str, Json]) -> AnswerSchema:
    """What the short form does not name is left out of an answer, and is no reason to refuse it."""
    strict = _of_json(schema, "--schema", formats=_dates())
    return replace(strict, check=lambda value: strict.check(_pruned(value, schema)))


def _pruned(value: Json, schema: dict[str, Json]) -> Json:
    if isinstance(value, dict) and "properties" in schema:
        named = schema["properties"]
        return {name: _pruned(inner, named[name]) for name, inner in value.items() if name in named}
    if isinstance(value, list) and "items" in schema:
        return [_pruned(inner, schema["items"]) for inner in value]
    return value


def _file(path: str) -> bytes:
    try:
        return read_small(path).removeprefix(b"\xef\xbb\xbf")
    except TooLarge as error:
        raise ConfigError(f"--schema {path}: {error}", hint="name the file of a JSON schema") from error
    except OSError as error:
        what = f"cannot read the schema {path}: {error.strerror}"
        raise InputMissing(what, hint=f"a file is looked for from {Path.cwd()} on") from error


def _parsed(text: bytes | str, where: str) -> Json:
    try:
        return jsontext.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: no JSON: {error}", hint="mend the file; a JSON schema is one object") from error


def _dates() -> FormatChecker:
    """What `date` and `datetime` mean in the short form: in a JSON schema `format` is a remark, and lets anything through."""
    from jsonschema import FormatChecker  # noqa: PLC0415 - as in _validator

    checker = FormatChecker(formats=())
    for name, read in (("date", date.fromisoformat), ("date-time", datetime.fromisoformat)):
        checker.checks(name, raises=ValueError)(partial(_is_read_by, read))
    return checker


def _is_read_by(read: Callable[[str], object], value: object) -> bool:
    """Raises what `read` raises. What is no text has no format."""
    if isinstance(value, str):
        read(value)
    return True


def _of_json(schema: Json, where: str, formats: FormatChecker | None = None) -> AnswerSchema:
    validator = _validator(schema, where, formats)
    return AnswerSchema(
        names=tuple(_top(schema, where).get("properties", {})),
        response_format=_response_format(schema),
        identity={"schema": schema},
        check=lambda value: _valid(validator, value),
    )


def _validator(schema: Json, where: str, formats: FormatChecker | None) -> Validator:
    """What holds values against the schema, without ever fetching another. Raises ConfigError."""
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - 50 ms, which only --schema pays
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    if not isinstance(schema, dict):
        raise ConfigError(f"{where}: a schema is an object", hint=_NO_OBJECT)
    for name in ("$schema", "$id"):
        if not isinstance(schema.get(name, ""), str):
            raise ConfigError(f"{where}: no valid JSON schema: {name} is no text", hint="leave it out, or name a draft")
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        at = "/".join(map(str, error.absolute_path)) or "its top"
        raise ConfigError(f"{where}: no valid JSON schema: at {at}: {error.message[:_MOST_FAULT_CHARS]}") from error
    checked = set[int]()
    for reference in _references(schema):
        if _comes_back(schema, _resolved(schema, reference, where), where, (), checked):
            raise ConfigError(
                f"{where}: {reference!r} comes back to itself before it says anything of the answer",
                hint="a reference to itself belongs into properties or items",
            )
    validator: Validator = kind(schema, registry=Registry(), format_checker=formats)
    return validator


_NO_OBJECT = 'put it into an object, as in {"type": "object", "properties": {"answer": ...}}'


def _top(schema: dict[str, Json], where: str) -> dict[str, Json]:
    """The schema of the object itself. Raises ConfigError for answers that are none."""
    top, seen = schema, set[str]()
    while "$ref" in top and top["$ref"] not in seen:
        seen.add(top["$ref"])
        top = _resolved(schema, top["$ref"], where)
    if top.get("type", "object" if "properties" in top else None) != "object":
        raise ConfigError(f"{where}: an answer has to be an object", hint=_NO_OBJECT)
    return top


def _references(schema: Json) -> Iterable[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)


_OF_THE_SAME_VALUE = ("not", "if", "then", "else")
_ALL_OF_THE_SAME_VALUE = ("allOf", "anyOf", "oneOf")


def _comes_back(schema: dict[str, Json], node: Json, where: str, path: tuple[int, ...], checked: set[int]) -> bool:
    """Whether holding one value against the node would never end. `checked` are nodes that are known to end."""
    if not isinstance(node, dict) or id(node) in checked:
        return False
    if id(node) in path:
        return True
    inner = [node[name] for name in _OF_THE_SAME_VALUE if name in node]
    for name in _ALL_OF_THE_SAME_VALUE:
        inner += node[name] if isinstance(node.get(name), list) else []
    if isinstance(node.get("$ref"), str):
        inner.append(_resolved(schema, node["$ref"], where))
    if any(_comes_back(schema, one, where, (*path, id(node)), checked) for one in inner):
        return True
    checked.add(id(node))
    return False


def _resolved(schema: dict[str, Json], reference: str, where: str) -> dict[str, Json]:
    """What a reference into the schema itself means. Raises ConfigError for any other."""
    node: Json = schema
    if reference != "#" and not reference.startswith("#/"):
        raise ConfigError(
            f"{where}: it refers to {reference!r}, outside itself",
            hint="copy that into $defs, and refer to #/$defs/NAME",
        )
    for part in reference[2:].split("/") if reference != "#" else ():
        key = part.replace("~1", "/").replace("~0", "~")
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: it refers to {reference!r}, which is not there", hint="see its $defs")
    return node


def _valid(validator: Validator, value: dict[str, Json]) -> dict[str, Json]:
    faults = []
    try:
        for error in validator.iter_errors(value):
            at = ".".join(map(str, error.absolute_path))
            faults.append(f"{at}: {error.message[:_MOST_FAULT_CHARS]}" if at else error.message[:_MOST_FAULT_CHARS])
            if len(faults) == _MOST_FAULTS:
                break
    except RecursionError:
        faults.append("it is nested too deep")
    if faults:
        raise Misfit("; ".join(faults))
    return value


def _of_model(said: str, app_dir: str | None, version: str | None) -> AnswerSchema:
    """A pydantic model, a TypedDict or a dataclass; or a JSON schema in a dict."""
    module_name, _, attribute = said.rpartition(":")
    where = f"--schema {said}"
    module = import_module(module_name, app_dir, option="--schema")
    target = attribute_of(module, attribute, said=where)
    if isinstance(target, dict):
        return _of_json(target, where)
    from pydantic import PydanticUserError, TypeAdapter  # noqa: PLC0415 - loads with LangChain, or with the user's module

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(target)
        schema = adapter.json_schema()
        written = adapter.json_schema(mode="serialization")
    except (PydanticUserError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{where} has no JSON schema: {str(error).splitlines()[0]}",
            hint="name a pydantic model, a TypedDict, a dataclass or a JSON schema in a dict",
        ) from error
    _top(schema, where)
    return AnswerSchema(
        names=tuple(_top(written, where).get("properties", {})),
        response_format=_response_format(schema),
        identity={"schema": schema, "schema_model": said, "schema_version": version or file_digest(module)},
        check=lambda value: _by_model(adapter, value),
    )


def _by_model(adapter: Any, value: dict[str, Json]) -> dict[str, Json]:
    """The value as the model reads and writes it. Whatever its own checks raise, the answer does not fit."""
    from pydantic import ValidationError  # noqa: PLC0415 - is loaded

    try:
        found = to_json(adapter.dump_python(adapter.validate_json(jsontext.dumps(value)), mode="json", by_alias=True))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_FAULTS]
        said = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ") for fault in faults)
        raise Misfit("; ".join(said)[: _MOST_FAULT_CHARS * _MOST_FAULTS]) from error
    except CallFailed as error:
        raise Misfit(error.failure.message) from error
    except Exception as error:  # a validator of the user's own may raise anything
        raise Misfit(f"{type(error).__name__}: {error}"[:_MOST_FAULT_CHARS]) from error
    if not isinstance(found, dict):
        raise Misfit("the model makes no object of it")
    return found


def _response_format(schema: dict[str, Json]) -> dict[str, Json]:
    """OpenAI's `json_schema`, strict where the schema allows it."""
    strict = strict_form(schema)
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", str(schema.get("title") or "answer"))[:64]
    asked = {"name": name, "schema": schema if strict is None else strict, "strict": strict is not None}
    return {"type": "json_schema", "json_schema": asked}
