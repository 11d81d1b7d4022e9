"""Rows as plain text for a person at a terminal: a title line, the wrapped answer, a blank line."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable

from lcbatch import jsontext
from lcbatch.ports import Entry

_ESCAPE_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"  # OSC: titles, links
    "|\x1b[ -/]*[0-~]?"
)
_STEERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_WIDEST = 100
_NARROWEST = 20


def harmless(text: str) -> str:
    """Text without terminal escapes, control characters (but LF and tab), direction overrides, lone surrogates."""
    kept = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n"))
    if kept.isascii() and kept.isprintable():
        return kept
    return "".join(char for char in kept if char in "\n\t" or not _is_steering(char))


def _is_steering(char: str) -> bool:
    return char in _STEERING or unicodedata.category(char) in {"Cc", "Cs"}


def plain_text(columns: int, *, samples: bool = False) -> Callable[[Entry], str]:
    """The text of a row: id and model, then the answer, wrapped to the terminal's width but not beyond 100 columns.

    With `samples` the title says which answer to the row it is.
    """
    width = max(_NARROWEST, min(columns, _WIDEST))

    def text(entry: Entry) -> str:
        model = harmless(str(entry.meta.get("model") or "")).replace("\n", " ")
        which = f", sample {entry.sample}" if samples else ""
        title = harmless(entry.id).replace("\n", " ") + which + (f"  [{model}]" if model else "")
        if entry.kind is not None:
            return f"{title}\n{entry.kind}: {harmless(entry.message or '')}\n\n"
        value = jsontext.loads(entry.output or "null")
        answer = value if isinstance(value, str) else jsontext.dumps(value)
        return f"{title}\n{_wrapped(harmless(answer), width)}\n\n"

    return text


def _wrapped(text: str, width: int) -> str:
    lines = (textwrap.wrap(line, width, break_on_hyphens=False) or [""] for line in text.strip().splitlines())
    return "\n".join("\n".join(parts) for parts in lines)
