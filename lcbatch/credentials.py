"""Options in which a key would stand by mistake: it would be kept in the store and shown in the list of processes.

What is refused here is never quoted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lcbatch.errors import UsageError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEX = re.compile(r"[0-9a-f]{24,}")
_KEYS_BEGIN = ("sk_", "gsk_", "hf_", "xai_", "pplx_", "r8_", "AIza")
_SHORTEST_KEY = 16
_SHORTEST_MIXED_KEY = 20

_SENT = frozenset({"default_headers", "default_query", "extra_headers", "extra_query", "headers"})
"""Arguments whose members go out with each request as they are."""
_SENT_CREDENTIAL = re.compile(
    r"(^|[-_.])(x-)?(.*key|.*token|.*secret|password|passwd|.*auth|.*authorization|cookie|credentials?|sig)$"
)
_CREDENTIAL = re.compile(
    r"(^|[-_.])(api-?key|authorization|password|passwd|secret|credentials?|(access|auth|session|api|bearer|ad|id|refresh)-token"
    r"|(access|secret|subscription|private|account)-key)$|^token$"
)
_VALUE = re.compile(r"^\s*(bearer|basic)\s+\S|^\s*sk-\w|://[^/@\s]*:[^/@\s]*@", re.IGNORECASE)

_FROM_THE_ENVIRONMENT = "keys come from the environment only: see --api-key-env"


def check_key_variable(name: object, label: str) -> None:
    """Raise UsageError for what names no variable, or looks like the key itself. Nothing is as good as not given."""
    if name and (not isinstance(name, str) or not _VARIABLE.fullmatch(name) or _is_key(name)):
        raise UsageError(
            f"{label} is no name of an environment variable",
            hint="it takes the name of the variable that holds the key, as in OPENAI_API_KEY, and never the key",
        )


def check_model_argument(text: str) -> None:
    """Raise UsageError for a `--model-arg` that is none, or in which a key is given."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError("a --model-arg has no '='", hint="write it like top_p=0.9 or stop='[\"END\"]'")
    try:
        given: Any = json.loads(value)
    except (ValueError, RecursionError):
        given = value
    if name in _SENT and not isinstance(given, Mapping):
        raise UsageError(
            f"--model-arg {name} is no JSON object", hint=f'write it like {name}=\'{{"X-Title": "mine"}}\''
        )
    for path, is_sent, member in _members(name, given, is_sent=False):
        words = path[-1].lower().replace("_", "-")
        named = (_SENT_CREDENTIAL if is_sent else _CREDENTIAL).search(words)
        if (named and isinstance(member, str)) or (isinstance(member, str) and _VALUE.search(member)):
            raise UsageError(f"--model-arg {'.'.join(path)} holds a key", hint=_FROM_THE_ENVIRONMENT)


def _members(name: str, value: Any, *, is_sent: bool, depth: int = 8) -> Iterator[tuple[tuple[str, ...], bool, Any]]:
    """Each value with its path, and whether it goes out as a header or in a query."""
    yield (name,), is_sent, value
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inner if depth else ():
        # A list's members go by the list's name.
        below = _members(
            str(key) if isinstance(key, str) else name, member, is_sent=is_sent or name in _SENT, depth=depth - 1
        )
        yield from (((name, *path) if isinstance(key, str) else path, sent, found) for path, sent, found in below)


def _is_key(name: str) -> bool:
    has_digit = any(map(str.isdigit, name))
    if _HEX.fullmatch(name) or (name.startswith(_KEYS_BEGIN) and has_digit and len(name) >= _SHORTEST_KEY):
        return True
    is_mixed = has_digit and any(map(str.islower, name)) and any(map(str.isupper, name))
    return is_mixed and len(name) >= _SHORTEST_MIXED_KEY
