"""The short form of a schema: `name, age int, tags list[str], category billing|bug|other`.

    fields      = field ("," field)*
    field       = name ["?"] [type] ["(" description ")"]     `?`: null where it is not known
    type        = word | "list" ["[" type "]"] | value ("|" value)+ | "{" fields "}"

Words are `str`, `int`, `float`, `bool`, `date` and `datetime`; a field without a type is a `str`. A value that holds spaces or
signs of the grammar is quoted; a single quoted value is a constant. Values that are all whole numbers are numbers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lcbatch.errors import UsageError
from lcbatch.records import Json

_WORDS: dict[str, dict[str, Json]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}
_OTHER_NAMES = {"string": "str", "text": "str", "integer": "int", "number": "float", "boolean": "bool"}
_NAME = re.compile(r"[^\W\d][\w-]*")
_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<about>\([^()]*\))|(?P<sign>[,|?\[\]{}])|(?P<word>[^\s,|?\[\]{}()"']+))"""
)
_MOST_DEPTH = 20
_HINT = "write it like 'name, age int, tags list[str], category billing|bug|other'"


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


def parse_shorthand(text: str) -> dict[str, Json]:
    """The JSON schema of an object with these fields, all required, and no others. Raises UsageError with the column."""
    reader = _Reader(_tokens(text))
    schema = reader.fields(0)
    reader.expect("end", "")
    return schema


def _tokens(text: str) -> list[_Token]:
    found, at = list[_Token](), 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            column = at + len(text[at:]) - len(text[at:].lstrip()) + 1
            raise UsageError(
                f"--schema: column {column}: {text[column - 1]!r} is not closed or not expected", hint=_HINT
            )
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return [*found, _Token("end", "", end + 1)]


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def expect(self, kind: str, text: str) -> _Token:
        """The next token, which has to be this one."""
        token = self._tokens[self._at]
        if (token.kind, token.text) != (kind, text):
            raise self._wrong(token, repr(text) if text else "',' or the end")
        self._at += 1
        return token

    def fields(self, depth: int) -> dict[str, Json]:
        """An object's schema."""
        if depth > _MOST_DEPTH:
            raise UsageError("--schema: nested too deep", hint="write it as a JSON schema file")
        properties: dict[str, Json] = {}
        while True:
            token = self._next()
            if token.kind != "word" or not _NAME.fullmatch(token.text):
                raise self._wrong(token, "a field's name")
            if token.text in properties:
                raise UsageError(f"--schema: column {token.column}: {token.text!r} stands there twice", hint=_HINT)
            properties[token.text] = self._field(depth)
            if not self._took(","):
                break
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def _field(self, depth: int) -> dict[str, Json]:
        optional = self._took("?")
        peeked = self._tokens[self._at]
        typed = peeked.kind in {"word", "quoted"} or peeked.text == "{"
        schema = self._type(depth) if typed else dict(_WORDS["str"])
        if optional:
            schema = _or_null(schema)
        if self._tokens[self._at].kind == "about":
            schema["description"] = self._next().text[1:-1].strip()
        return schema

    def _type(self, depth: int) -> dict[str, Json]:
        if depth > _MOST_DEPTH:
            raise UsageError("--schema: nested too deep", hint="write it as a JSON schema file")
        if self._took("{"):
            schema = self.fields(depth + 1)
            self.expect("sign", "}")
            return schema
        token = self._next()
        if token.kind not in {"word", "quoted"}:
            raise self._wrong(token, "a type")
        if self._is_next("|") or token.kind == "quoted":
            return self._values(token)
        if token.text == "list":
            return self._list(depth)
        name = _OTHER_NAMES.get(token.text, token.text)
        if name not in _WORDS:
            raise UsageError(
                f"--schema: column {token.column}: there is no type {token.text!r}",
                hint=f"one of {', '.join(_WORDS)}, list[...], {{fields}}, or values divided by |",
            )
        return dict(_WORDS[name])

    def _list(self, depth: int) -> dict[str, Json]:
        if not self._took("["):
            return {"type": "array", "items": dict(_WORDS["str"])}
        items = self._type(depth + 1)
        self.expect("sign", "]")
        return {"type": "array", "items": items}

    def _values(self, first: _Token) -> dict[str, Json]:
        tokens = [first]
        while self._took("|"):
            token = self._next()
            if token.kind not in {"word", "quoted"}:
                raise self._wrong(token, "a value")
            tokens.append(token)
        for token in tokens:
            if token.kind == "word" and (token.text in _WORDS or token.text in _OTHER_NAMES or token.text == "list"):
                raise UsageError(
                    f"--schema: column {token.column}: {token.text!r} is a type, and stands among values",
                    hint=f'quote it if it is a value: "{token.text}"',
                )
        if all(token.kind == "word" and _WHOLE_NUMBER.fullmatch(token.text) for token in tokens):
            return {"type": "integer", "enum": list(dict.fromkeys(int(token.text) for token in tokens))}
        texts = [token.text if token.kind == "word" else token.text[1:-1] for token in tokens]
        return {"type": "string", "enum": list(dict.fromkeys(texts))}

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _is_next(self, sign: str) -> bool:
        token = self._tokens[self._at]
        return token.kind == "sign" and token.text == sign

    def _took(self, sign: str) -> bool:
        taken = self._is_next(sign)
        self._at += taken
        return taken

    @staticmethod
    def _wrong(token: _Token, expected: str) -> UsageError:
        found = repr(token.text) if token.text else "the end"
        return UsageError(f"--schema: column {token.column}: {found} where {expected} should stand", hint=_HINT)


def _or_null(schema: dict[str, Json]) -> dict[str, Json]:
    """The schema, or null. Enums name null among their values, since `type` alone does not let it in."""
    schema = {**schema, "type": [schema["type"], "null"]}
    return {**schema, "enum": [*schema["enum"], None]} if "enum" in schema else schema
