"""From a parsed row to an Item, and from what could not be parsed to a failed Item."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lcbatch import jsontext
from lcbatch.errors import Failure, Kind
from lcbatch.records import ERROR_FIELD, RAW_FIELD, Item, Json

RAW_BYTES: Final = 64 * 1024
"""How much of an unreadable row is kept: enough to find and mend it, too little to fill the store."""

SOURCE_FIELD: Final = "source"
"""Field of an unreadable row that says where it stood."""


MAX_DEPTH: Final = 200
"""orjson writes at most 254 levels and json not many more: a deeper row could be read, but never written again."""

SHALLOW_BYTES: Final = 2 * MAX_DEPTH
"""Text shorter than this cannot nest deeper: every level takes two brackets."""


def item_of(row: dict[str, Json], place: str) -> Item:
    """The item for a parsed row. The row is taken over, not copied.

    A row of an errors file loses its `_lcbatch_error`; one that holds an unread line is parsed again.
    """
    if ERROR_FIELD in row or RAW_FIELD in row:
        return _from_errors_file(row, place)
    label = row.get("custom_id")
    if label is None:
        label = row.get("id")
    return Item(row, place, label if label and type(label) is str and label.isascii() else label_of(label))


def label_of(value: Json) -> str | None:
    """The user's label as text; None where there is none."""
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else jsontext.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no text that a store could keep


def parsed_item(text: bytes | str, place: str) -> Item:
    """The item for the text of one JSON value. What is no object becomes a failed item; raises nothing."""
    try:
        value = jsontext.loads(text, finite=True)
    except ValueError as problem:
        return bad_row(place, *_why_unparsed(text, problem), text)
    if len(text) >= SHALLOW_BYTES and nests_too_deep(value):
        return bad_row(place, f"nested deeper than {MAX_DEPTH} levels", "flatten it", text)
    if type(value) is dict:
        return item_of(value, place)
    return bad_row(place, f"a row must be a JSON object, this is {_kind_of(value)}", 'write it as {"text": ...}', text)


def nests_too_deep(value: Json) -> bool:
    """Whether a value has more than MAX_DEPTH levels. Takes time in proportion to its containers' sizes."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _members(outer) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _members(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def bad_row(place: str, problem: str, remedy: str, raw: bytes | str, *, source: str | None = None) -> Item:
    """A failed item that keeps what stood there, so that the errors file can be mended and read again.

    `raw` as bytes: what is no UTF-8 is written `\\xe9`. Inside a JSON string that is no valid escape, so such a line
    can never pass unmended with its characters silently replaced. The text is cut at 64 KiB.
    """
    fields = {RAW_FIELD: readable(raw), SOURCE_FIELD: source or place}
    return Item(fields, place, failure=Failure(Kind.BAD_ROW, f"{place}: {problem}; {remedy}"))


def too_large(place: str, raw: bytes, limit: int) -> Item:
    """A failed item for a row of more than `limit` bytes."""
    return bad_row(
        place, f"larger than {limit} bytes", "raise --max-row-bytes or split it", raw[: min(limit, RAW_BYTES)]
    )


def undecodable(place: str, raw: bytes, problem: UnicodeDecodeError) -> Item:
    """A failed item for a row with bytes that are no text."""
    return bad_row(place, *_why_undecodable(raw, problem), raw)


def readable(raw: bytes | str) -> str:
    """The beginning of a raw row as text that UTF-8 can encode."""
    if isinstance(raw, str):
        raw = raw[:RAW_BYTES].encode("utf-8", "backslashreplace")
    return raw[:RAW_BYTES].rstrip(b"\r\n").decode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    """A file name for people and for JSON: control characters and undecodable bytes are written as escapes."""
    if name.isprintable():
        return name
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _from_errors_file(row: dict[str, Json], place: str) -> Item:
    row.pop(ERROR_FIELD, None)
    if RAW_FIELD not in row:
        return item_of(row, place)
    raw = row[RAW_FIELD]
    again = parsed_item(raw, place) if isinstance(raw, str) else None
    if again is not None and again.failure is None:
        return again
    source = row.get(SOURCE_FIELD)
    return bad_row(
        place,
        f"the line kept in {RAW_FIELD} is still not readable",
        "mend it so that it is a JSON object, or delete this row",
        raw if isinstance(raw, str) else jsontext.dumps(raw),
        source=source if isinstance(source, str) else None,
    )


def _why_unparsed(text: bytes | str, problem: ValueError) -> tuple[str, str]:
    if isinstance(problem, jsontext.NoSuchNumber):
        return str(problem), "write null, or the number as a text"
    if isinstance(problem, UnicodeDecodeError) and isinstance(text, bytes):
        return _why_undecodable(text, problem)
    if isinstance(text, bytes):
        # The library's message for broken UTF-8 speaks of JSON; the encoding is what the user has to mend.
        try:
            text.decode()
        except UnicodeDecodeError as broken:
            return _why_undecodable(text, broken)
    nul = "\0" if isinstance(text, str) else b"\0"
    if nul in text:  # type: ignore[operator]  # nul has the type of text
        return "broken JSON (it has NUL bytes)", "mend the line, or name its encoding with --encoding"
    return f"broken JSON ({problem})", "mend or delete it"


def _why_undecodable(raw: bytes, problem: UnicodeDecodeError) -> tuple[str, str]:
    byte = raw[problem.start : problem.start + 1].hex()
    return (
        f"undecodable text (byte 0x{byte} at position {problem.start + 1})",
        "name its encoding with --encoding (cp1252, latin-1, ...) or mend it",
    )


def _kind_of(value: Json) -> str:
    names = {"NoneType": "null", "bool": "true or false", "str": "a string", "list": "an array"}
    return names.get(type(value).__name__, "a number")
