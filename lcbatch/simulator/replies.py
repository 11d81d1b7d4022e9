"""The bytes of an answer: HTTP heads, OpenAI's bodies and its error bodies, and the faults that spoil them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

import orjson

from lcbatch.simulator.answers import CHARS_PER_TOKEN, Answer

Ending = Literal["keep", "close", "reset", "hang"]
JSON_TYPE: Final = "application/json"

_REASONS: Final = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    529: "Site is overloaded",
}
_FINGERPRINT: Final = "fp_lcbatch"
_HTML: Final = (
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body>"
    b"<h1>502 Bad Gateway</h1>%s</body></html>\n"
)
HINT: Final = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
_HINTS_BEFORE: Final = 100


class Reply(NamedTuple):
    """What a connection sends. `payload` goes out at once, then one of `pieces` each `interval_s` seconds.

    number: of the billed call, 0 if none. whole: sent to the end it counts as delivered. ending: what happens to the
    connection then; with `hang` it stays as it is until the client goes away.
    """

    payload: bytes
    number: int = 0
    whole: bool = True
    ending: Ending = "keep"
    pieces: Iterator[bytes] | None = None
    interval_s: float = 0.0


def head(status: int, length: int | None, headers: bytes = b"", content_type: str = JSON_TYPE) -> bytes:
    """A response head. `headers` are complete lines. Without a length the body is chunked."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%s\r\n%s\r\n" % (
        status,
        _REASONS.get(status, "Unknown").encode(),
        content_type.encode(),
        framing,
        headers,
    )


def json_reply(status: int, value: Any, headers: bytes = b"", ending: Ending = "keep") -> Reply:
    """A reply that is no billed call."""
    body = orjson.dumps(value)
    return Reply(head(status, len(body), headers) + body, ending=ending)


class ApiError(NamedTuple):
    """What stands in an OpenAI error body; `kind` is its `type`."""

    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None


def error_reply(status: int, error: ApiError, headers: bytes = b"") -> Reply:
    """An error as OpenAI words it."""
    body = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return json_reply(status, {"error": body}, headers)


def framed(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """OpenAI's usage object for a chat call."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _shell(number: int, created: int, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{number}",
        "object": kind,
        "created": created,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": _FINGERPRINT,
    }


def chat_body(number: int, created: int, model: str, answers: Sequence[Answer], used: Mapping[str, Any]) -> bytes:
    """A chat.completion. `created` is in Unix seconds."""
    choices = [_choice(index, answer) for index, answer in enumerate(answers)]
    return dumps({**_shell(number, created, model, "chat.completion"), "choices": choices, "usage": used})


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.tool is not None:
        call = {"name": answer.tool, "arguments": answer.text}
        message["content"] = None
        message["tool_calls"] = [{"id": answer.call_id, "type": "function", "function": call}]
    elif answer.refusal is not None:
        message["content"] = None
        message["refusal"] = answer.refusal
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}


def chat_events(
    number: int, created: int, model: str, answers: Sequence[Answer], used: Mapping[str, Any] | None
) -> list[bytes]:
    """The same as chat.completion.chunk events of a stream, about one token each; with a last one of usage unless that
    is None.
    """
    shell = _shell(number, created, model, "chat.completion.chunk")
    events = []
    for index, answer in enumerate(answers):
        for delta in _deltas(answer):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            events.append(_event(shell | {"choices": [choice]}))
        last = {"index": index, "delta": {}, "logprobs": None, "finish_reason": answer.finish_reason}
        events.append(_event(shell | {"choices": [last]}))
    if used is not None:
        events.append(_event(shell | {"choices": [], "usage": used}))
    return [*events, b"data: [DONE]\n\n"]


def _event(value: Any) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def _deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    size = max(CHARS_PER_TOKEN, len(answer.text) // 2000)
    parts = [answer.text[start : start + size] for start in range(0, len(answer.text), size)]
    if answer.tool is not None:
        call = {"index": 0, "id": answer.call_id, "type": "function"}
        yield {
            "role": "assistant",
            "content": None,
            "tool_calls": [call | {"function": {"name": answer.tool, "arguments": ""}}],
        }
        for part in parts:
            yield {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
        return
    yield {"role": "assistant", "content": "", "refusal": None}
    if answer.refusal is not None:
        yield {"refusal": answer.refusal}
        return
    for part in parts:
        yield {"content": part}


def dumps(value: Any) -> bytes:
    """JSON in UTF-8, or all escaped where a lone surrogate keeps it from being that."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def stream_reply(number: int, headers: bytes, events: list[bytes], interval_s: float, *, fault: str | None) -> Reply:
    """A server-sent stream: at once, or with `interval_s` seconds between its events."""
    opening = head(200, None, headers, "text/event-stream; charset=utf-8")
    if fault == "badjson":
        events = [*events[: len(events) // 2], events[len(events) // 2][:-12] + b"\n\n"]
    if fault in {"cut", "badlength"}:
        half = b"".join(framed(event) for event in events[: len(events) // 2])
        return Reply(opening + half, number, whole=False, ending="close")
    if fault == "drip":
        body = b"".join(events)
        pieces = chain((framed(body[at : at + 1]) for at in range(len(body))), (LAST_CHUNK,))
        return Reply(opening, number, pieces=pieces, interval_s=interval_s)
    if interval_s:
        return Reply(
            opening + framed(events[0]),
            number,
            whole=fault is None,
            pieces=chain(map(framed, events[1:]), (LAST_CHUNK,)),
            interval_s=interval_s,
        )
    return Reply(opening + b"".join(map(framed, events)) + LAST_CHUNK, number, whole=fault != "badjson")


def billed_reply(number: int, headers: bytes, body: bytes, *, fault: str | None, drip_s: float) -> Reply:
    """A billed call's body under its head, spoiled by a wire fault if there is one."""
    if fault == "hang-billed":
        return Reply(b"", number, whole=False, ending="hang")
    declared, sent = len(body), body
    if fault == "badlength":
        declared += 10
    elif fault == "shortlength":
        declared -= 10
    elif fault == "cut":
        sent = body[: declared // 2]
    elif fault == "badjson":
        sent = body[: declared // 2]
        declared = len(sent)
    elif fault == "badgzip":
        headers += b"content-encoding: gzip\r\n"
    opening = head(200, declared, headers)
    if fault == "drip":
        return Reply(opening, number, pieces=(body[at : at + 1] for at in range(len(body))), interval_s=drip_s)
    ending: Ending = "close" if fault in {"cut", "badlength"} else "keep"
    if fault == "hints":
        return Reply(HINT * _HINTS_BEFORE + opening + sent, number)
    return Reply(opening + sent, number, whole=fault is None, ending=ending)


def html_reply(headers: bytes, said: str = "") -> Reply:
    """A proxy's page under status 200."""
    body = _HTML % said.encode("utf-8", "replace")
    return Reply(head(200, len(body), headers, "text/html") + body)
