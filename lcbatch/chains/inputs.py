"""What a user's chain needs of a row, known before anything is called, and what it is then called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, get_origin, get_type_hints

from lcbatch.chains.template import as_text
from lcbatch.records import Fields, Json

INPUT = "input"
"""What a chain of one value is said to lack, and the first field that is taken for it."""

_FOR_ONE_VALUE = (INPUT, "text", "prompt")

Bare = Literal["", "text", "messages"]


@dataclass(frozen=True, slots=True)
class Needs:
    """All of `fields`, and one of `one_of` where there are any. `bare`: no object is taken but one text, or chat messages."""

    fields: frozenset[str] = frozenset()
    one_of: tuple[str, ...] = ()
    bare: Bare = ""

    def missing(self, fields: Fields, key: str | None) -> str | None:
        """The first that a row lacks. `key` is the field that --key names, if that is one."""
        if self.bare:
            return None if self._one(fields, key) is not None else key or INPUT
        lacking = next((name for name in sorted(self.fields) if name not in fields), None)
        if lacking is None and self.one_of and not any(name in fields for name in self.one_of):
            return self.one_of[0]
        return lacking

    def value(self, fields: Fields, key: str | None) -> Json:
        """What the chain is called with: all fields as a dict of its own, or the one that it takes."""
        name = self._one(fields, key) if self.bare else None
        if name is None:
            return dict(fields)
        value = fields[name]
        return value if self.bare == "messages" and isinstance(value, list) else as_text(value)

    def _one(self, fields: Fields, key: str | None) -> str | None:
        """The field that holds the one value: --key's; `messages` for a model; input, text or prompt; the only one there is."""
        if key is not None:
            return key if key in fields else None
        usual = ("messages", *_FOR_ONE_VALUE) if self.bare == "messages" else _FOR_ONE_VALUE
        named = next((name for name in usual if name in fields), None)
        others = [name for name in fields if name != "id"]
        return named or (others[0] if len(others) == 1 else None)


NOTHING = Needs()


def of_function(function: Callable[..., Any]) -> Needs:
    """What a function of one row needs, by what its first argument is declared to be; NOTHING where that cannot be read."""
    try:
        return _declared(function)
    except Exception:  # noqa: BLE001 - names that only a type checker sees, callables without a signature: it may run all the same
        return NOTHING


def _declared(function: Callable[..., Any]) -> Needs:
    first = next(iter(inspect.signature(function).parameters), None)
    plain = function if inspect.isroutine(function) else type(function).__call__
    return of_type(get_type_hints(plain, include_extras=True).get(first or ""))


def of_type(declared: Any) -> Needs:
    """What a declared type asks for: one text, a TypedDict's keys, a pydantic model's fields; any other says nothing."""
    if declared is str:
        return Needs(bare="text")
    keys: frozenset[str] | None = getattr(
        declared, "__required_keys__", None
    )  # typing's TypedDict, or typing_extensions'
    if keys is not None:
        hints = get_type_hints(declared, include_extras=True)
        # Annotations that are texts (`from __future__ import annotations`) hide NotRequired from the class itself.
        return Needs(frozenset(name for name in keys if get_origin(hints[name]) is not NotRequired))
    fields: Mapping[str, Any] = getattr(declared, "model_fields", {})
    return Needs(frozenset(one.alias or name for name, one in fields.items() if one.is_required()))
