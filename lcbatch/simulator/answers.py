"""What the simulated model says: pure functions of the request, so that a test can predict every answer.

A text answer is `echo H W...`: H is the first 16 hex digits of the sha256 over the canonical JSON of the request's
model and messages, W are three-letter words drawn from the same hash, each about one token (four characters with its
space).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Final

import orjson

from lcbatch.simulator.schemas import value_for

_ENDS = ("an", "el", "in", "or", "um", "al", "en", "ir", "on", "ul", "am", "es", "il", "os", "ar", "et")
WORDS: Final = tuple(start + end for start in "bdfghjklmnprstvz" for end in _ENDS)
CHARS_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice. `text` is the content, or a tool call's arguments as JSON when `tool` names one, and `call_id` the call.

    The id comes from the request: an agent sends it back, and its next answer is to be predictable too.
    """

    text: str
    finish_reason: str = "stop"
    tool: str | None = None
    refusal: str | None = None
    call_id: str = ""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8. Lone surrogates, which orjson refuses, are kept as they came."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass")


def request_digest(body: Mapping[str, Any]) -> bytes:
    """32 bytes that name a request: over its model and its messages, or over its model and its input for embeddings."""
    field = "messages" if "messages" in body else "input"
    return hashlib.sha256(canonical({"model": body.get("model"), field: body.get(field)})).digest()


def words_for(digest: bytes, count: int) -> str:
    """`count` words from a hash, divided by spaces."""
    source = digest if count <= len(digest) else hashlib.shake_256(digest).digest(count)
    return " ".join([WORDS[byte] for byte in source[:count]])


def answer_for(body: Mapping[str, Any], answer_tokens: int = 16, answer_sigma: float = 0.0) -> str:
    """The first choice's text for a chat request: its content, or the arguments of the tool call it makes."""
    return choice_for(body, request_digest(body), answer_tokens, answer_sigma).text


def choice_for(body: Mapping[str, Any], digest: bytes, answer_tokens: int, answer_sigma: float) -> Answer:
    """One choice, derived from `digest` (`request_digest` of the body for the first; see `digest_of_choice`)."""
    answer = _unbounded(body, digest, answer_tokens, answer_sigma)
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if isinstance(most, int) and len(answer.text) > most * CHARS_PER_TOKEN:
        return replace(answer, text=answer.text[: most * CHARS_PER_TOKEN], finish_reason="length")
    return answer


def digest_of_choice(digest: bytes, index: int) -> bytes:
    """What choice `index` of an n > 1 request is derived from; the first one's is the request's own."""
    return digest if index == 0 else hashlib.sha256(digest + index.to_bytes(4, "big")).digest()


def text_tokens(text: str) -> int:
    """Tokens of a text: a quarter of its characters, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of a chat prompt: 3, 4 a message, and a quarter of all characters of its text, tool calls, tools and
    schema.
    """
    messages = body.get("messages") or ()
    chars = 0
    for message in messages:
        content = message.get("content")
        chars += len(content) if isinstance(content, str) else len(content_text(content))
        if "tool_calls" in message:
            chars += len(canonical(message["tool_calls"]))
    for extra in ("tools", "response_format"):
        if body.get(extra):
            chars += len(canonical(body[extra]))
    return 3 + 4 * len(messages) - (-chars // CHARS_PER_TOKEN)


def content_text(content: Any) -> str:
    """The text of a message's content, which is a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""


def last_user_text(body: Mapping[str, Any]) -> str:
    """The text of the last message with the role `user`; empty if there is none."""
    for message in reversed(body.get("messages") or ()):
        if message.get("role") == "user":
            return content_text(message.get("content"))
    return ""


def _unbounded(body: Mapping[str, Any], digest: bytes, answer_tokens: int, answer_sigma: float) -> Answer:
    if body.get("tools"):
        call = _tool_call(body, digest)
        if call:
            return call
    form = body.get("response_format")
    if form and form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema") or {}
        return Answer(orjson.dumps(value_for(schema, digest)).decode())
    echo = digest.hex()[:16]
    words = words_for(digest, _length(digest, answer_tokens, answer_sigma))
    if form and form.get("type") == "json_object":
        return Answer(orjson.dumps({"echo": echo, "answer": words}).decode())
    return Answer(f"echo {echo} {words}" if words else f"echo {echo}")


def _length(digest: bytes, mean: int, sigma: float) -> int:
    if not sigma:
        return mean
    # The half keeps the argument inside (0, 1), where the inverse is defined.
    uniform = (int.from_bytes(digest[-6:], "big") + 0.5) / 2**48
    return max(1, round(mean * math.exp(sigma * NormalDist().inv_cdf(uniform) - sigma * sigma / 2)))


def _tool_call(body: Mapping[str, Any], digest: bytes) -> Answer | None:
    choice = body.get("tool_choice") or "auto"
    functions = {tool["function"]["name"]: tool["function"] for tool in body["tools"] if tool.get("type") == "function"}
    if choice == "none" or not functions:
        return None
    if isinstance(choice, Mapping):
        name = str((choice.get("function") or {}).get("name"))
        # OpenAI ends a call that was forced by name with "stop".
        return _call_of(name, functions.get(name), digest, "stop")
    called = {
        call["function"]["name"]
        for message in body.get("messages") or ()
        for call in message.get("tool_calls") or ()
        if call.get("type", "function") == "function"
    }
    waiting = [name for name in functions if name not in called]
    if not waiting and choice != "required":
        return None
    name = waiting[0] if waiting else next(iter(functions))
    return _call_of(name, functions[name], digest, "tool_calls")


def _call_of(name: str, function: Mapping[str, Any] | None, digest: bytes, finish_reason: str) -> Answer:
    schema = (function or {}).get("parameters") or {"type": "object", "properties": {}}
    arguments = orjson.dumps(value_for(schema, digest)).decode()
    return Answer(arguments, finish_reason, name, call_id=f"call_{digest.hex()[:24]}")
