"""The border to providers' errors: any exception becomes one `Failure`.

By error code first, then status, then the exception's type. Provider SDKs are told apart by what their exceptions carry
(`status_code` or `code`, `body` or `details`, `response.headers`), not by importing them. What an error's text says counts
only where a provider puts it: bodies echo the row's own text too.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from traceback import walk_tb
from typing import Any

from lcbatch.calls.waits import wait_asked
from lcbatch.errors import OUT_OF_RESOURCES, CallFailed, Failure, Kind

_CODES: Mapping[str, Kind] = {
    **dict.fromkeys(
        (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "budget_exceeded",
        ),
        Kind.QUOTA,
    ),
    **dict.fromkeys(
        ("invalid_api_key", "api_key_invalid", "authentication_error", "account_deactivated", "access_terminated"),
        Kind.AUTH,
    ),
    **dict.fromkeys(("model_not_found", "deploymentnotfound", "not_found_error", "notfounderror"), Kind.NOT_FOUND),
    **dict.fromkeys(("context_length_exceeded", "exceed_context_size_error"), Kind.CONTEXT_LENGTH),
    **dict.fromkeys(
        ("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"),
        Kind.CONTENT_FILTER,
    ),
    **dict.fromkeys(
        ("slow_down", "overloaded_error", "rate_limit_error", "rate_limit_exceeded", "resource_exhausted"),
        Kind.THROTTLE,
    ),
}
"""What a body's `code`, `type`, `status` or `reason` decides, whatever the HTTP status is."""

_SPENT = re.compile(r"insufficient_quota|out of call volume quota|insufficient credits|credit balance is too low")
_SPENT_AT_400 = re.compile(r"your credit balance is too low|budget has been exceeded")
"""Matched at the message's start: further inside, a 400 may quote the prompt."""
_CONTEXT = re.compile(
    r"context[ _]length|context window|available context size|prompt is too long|too many tokens|"
    r"exceeds the maximum number of tokens|contextwindowexceeded|input tokens exceed"
)
_FILTER = re.compile(
    r"content management policy|contentpolicyviolation|content policy|input was flagged|flagged as potentially violating"
)
_MODEL = re.compile(r"invalid model (name|id)|not a valid model id")
_TOO_LARGE = re.compile(r"request too large|limit:? (\d+),(?: used:? \d+,)? requested:? (\d+)")
_BUSY = re.compile(r"slow.?down|server busy|maximum pending requests")

_UNSENT_TYPES = frozenset(
    {"ConnectError", "ConnectTimeout", "ConnectionTimeoutError", "ClientConnectorError", "ProxyError"}
)
"""The request never left: not even a timeout of these can have been paid."""
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""OpenSSL's reason, which stands in the text: httpcore leaves the ssl module's exception out of the chain."""
_TLS = re.compile(r"\[SSL(?:: ([A-Z0-9_]+))?\]")
_PASSING_TLS = re.compile(r"EOF|RESET|INTERNAL_ERROR|CLOSED|TIMEOUT")
"""Reasons for which a handshake that broke off may well be made the next time."""
_TIMEOUT_TYPES = frozenset({"APITimeoutError", "OpenAITimeoutError", "ReadTimeout", "WriteTimeout", "PoolTimeout"})
_CUT_TYPES = frozenset(
    {"RemoteProtocolError", "IncompleteRead", "ClientPayloadError", "TransferEncodingError", "ReadError"}
)
_NO_REPLY = re.compile(r"without sending a(ny)? response|server disconnected$")
_CONNECTION_TYPES = frozenset(
    {"APIConnectionError", "OpenAIConnectionError", "ClientConnectionError", "TransportError"}
)
_UNREADABLE_TYPES = frozenset({"UnreadableAnswer", "ContentEncodingError", "DecodingError"})
"""What reading an answer gives up with. The SDK says a connection error around them, aiohttp that the answer was cut."""
_BAD_BODY_TYPES = frozenset({"JSONDecodeError", "UnicodeDecodeError", "APIResponseValidationError"})
_BAD_BODY = re.compile(r"unexpected response type|missing 'choices'|null value for 'choices'")
_READ_BY = frozenset({"_create_chat_result", "_convert_dict_to_message", "_create_usage_metadata"})
"""What LangChain's integrations call the functions that read an answer. Python's errors from there speak of the answer."""
_OTHER_TYPES = {
    "NoProseError": Kind.NO_TEXT,
    "ContextOverflowError": Kind.CONTEXT_LENGTH,
    "ContentFilterFinishReasonError": Kind.CONTENT_FILTER,
    "OpenAIRefusalError": Kind.REFUSAL,
    "LengthFinishReasonError": Kind.PARSE,
}
_CLIENTS = frozenset(
    {
        *("openai", "anthropic", "google", "mistralai", "ollama", "groq"),
        *("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp"),
    }
)
_AIOHTTP_PARSER = "aiohttp.http_exceptions"
"""Its errors have a `code`, 400 for a body that ends too early: that is its opinion of the answer, and no provider's status."""

_THREE = re.compile(r"[0-9]{3}")
_MESSAGE_CHARS = 2000
_MOST_CAUSES = 50


def failure_of(error: BaseException) -> Failure:
    """The verdict on an exception that a model call raised."""
    if isinstance(error, CallFailed):
        return error.failure
    causes = list(_causes(error))
    status, body, headers = _http_facts(causes)
    message = (_said(body) or _text(causes))[:_MESSAGE_CHARS]
    meant = _status_meant(status, body)
    kind = _by_code(body, meant)
    if kind is None and meant is not None:
        kind = _by_status(meant, message.lower())
    if kind is Kind.THROTTLE and _is_too_large(message.lower()):
        kind = Kind.INVALID_REQUEST
    if kind is None and (body is not None or _is_unreadable(causes)):
        return Failure(Kind.BAD_BODY, message, maybe_paid=True, page=_is_page(causes))
    if kind is None:
        return _by_type(causes, message)
    waits = kind in {Kind.THROTTLE, Kind.SERVER, Kind.TIMEOUT}
    asked_s = wait_asked(headers, body, message, time.time()) if waits else None
    return Failure(kind, message, asked_s, kind is Kind.TIMEOUT, meant)


def is_providers(error: BaseException) -> bool:
    """Whether an exception comes from a provider's client, and not from the code around it."""
    return any(
        type(cause).__module__.partition(".")[0] in _CLIENTS or hasattr(cause, "status_code")
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what caused it, groups opened. An exception may be its own cause, so each comes once."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MOST_CAUSES:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
        inner = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        waiting += [inner] if inner is not None else []


def _http_facts(causes: list[BaseException]) -> tuple[int | None, Any, Mapping[str, Any]]:
    """(status, the error object in the body, headers) of the first exception that carries any of them."""
    for error in causes:
        if type(error).__module__ == _AIOHTTP_PARSER:
            continue
        response = getattr(error, "response", None)
        body = _body(error)
        for value in (*(getattr(error, name, None) for name in ("status_code", "code", "status")), _status(response)):
            if isinstance(value, int) and 100 <= value < 600:
                return value, body, getattr(response, "headers", None) or getattr(error, "headers", None) or {}
        if body is not None:
            return None, body, {}
    return None, None, {}


def _status(response: Any) -> Any:
    return getattr(response, "status_code", None)


def _body(error: BaseException) -> Any:
    """The error object that an exception carries: unwrapped from `{"error": ...}`, and from Gemini's list around it."""
    body = getattr(error, "body", None)
    if body is None and isinstance(details := getattr(error, "details", None), Mapping):
        body = details
    if body is None and isinstance(error, ValueError) and error.args and isinstance(error.args[0], Mapping):
        body = error.args[0]  # LangChain's way to say that there was an error inside a 200
    if isinstance(body, list) and body:
        body = body[0]
    inner = body.get("error") if isinstance(body, Mapping) else None
    return inner if isinstance(inner, Mapping | str) else body


def _said(body: Any) -> str:
    """What the error object says, "" when it says nothing that a reader could use (a proxy's page)."""
    if isinstance(body, str):
        return "" if body.lstrip().startswith("<") else body.strip()
    if not isinstance(body, Mapping):
        return ""
    for name in ("message", "detail"):
        said = body.get(name)
        if isinstance(said, list) and said and isinstance(said[0], Mapping):
            said = said[0].get("msg")  # FastAPI's: a list of what is wrong, with the input quoted beside it
        if isinstance(said, str) and said.strip():
            return said.strip()
    return ""


def _text(causes: list[BaseException]) -> str:
    first = causes[0]
    text = _words(first) or type(first).__name__
    root = _words(causes[-1])
    return f"{text} ({root})" if root and root not in text else text


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except RecursionError:  # LangChain's way to raise a body as it came, however deep that is
        return f"{type(error).__name__}, nested too deep to be shown"


def _status_meant(status: int | None, body: Any) -> int | None:
    """The status, or the one that an error inside a 200 names as its `code`, as OpenRouter's do."""
    if status is not None and status >= 300:
        return status
    code = body.get("code") if isinstance(body, Mapping) else None
    # Three digits: Python refuses to convert a text of thousands.
    number = code if isinstance(code, int) else int(code) if isinstance(code, str) and _THREE.fullmatch(code) else 0
    return number if 400 <= number < 600 else None


def _codes(body: Any, depth: int = 3) -> Iterator[str]:
    if isinstance(body, list) and depth >= 0:
        for part in body:
            yield from _codes(part, depth - 1)
    if not isinstance(body, Mapping) or depth < 0:
        return
    yield from (body[name].lower() for name in ("code", "type", "status", "reason") if isinstance(body.get(name), str))
    for name in ("innererror", "details"):
        yield from _codes(body.get(name), depth - 1)


def _by_code(body: Any, status: int | None) -> Kind | None:
    for code in _codes(body):
        if code.endswith("_spend_limit_exceeded"):
            return Kind.QUOTA
        if code in _CODES:
            return _CODES[code]
        if status is None and code in {"server_error", "api_error", "internal_server_error"}:
            return Kind.SERVER
    return None


def _by_status(status: int, said: str) -> Kind:
    """The kind for a status where the body's codes decide nothing. `said` is the error's text in lower case."""
    match status:
        case 402:
            return Kind.QUOTA
        case 401 | 403 | 407 | 429 if _SPENT.search(said):
            return Kind.QUOTA
        case 401 | 403 | 407:
            return Kind.CONTENT_FILTER if _FILTER.search(said) else Kind.AUTH
        case 404 | 405 | 410:
            return Kind.NOT_FOUND
        case 429 | 529:
            return Kind.THROTTLE
        case 503 if _BUSY.search(said):
            return Kind.THROTTLE
        case 408 | 504 | 524:  # 524 is Cloudflare's: the provider took longer than the proxy waits
            return Kind.TIMEOUT
        case 409 | 425:
            return Kind.SERVER
    if status >= 500:
        return Kind.SERVER
    return _refused_request(status, said)


def _refused_request(status: int, said: str) -> Kind:
    if status < 400:  # a redirect: that is not where the provider is
        return Kind.NOT_FOUND
    if _SPENT_AT_400.match(said):
        return Kind.QUOTA
    if status == 413 or _CONTEXT.search(said):
        return Kind.CONTEXT_LENGTH
    if _MODEL.search(said):
        return Kind.NOT_FOUND
    return Kind.CONTENT_FILTER if _FILTER.search(said) else Kind.INVALID_REQUEST


def _is_too_large(said: str) -> bool:
    """Whether a throttle is for good: the request asks for more than the limit itself, so that no wait helps."""
    match = _TOO_LARGE.search(said)
    return match is not None and (match[1] is None or int(match[2]) > int(match[1]))


def _is_unreadable(causes: list[BaseException]) -> bool:
    return any(base.__name__ in _UNREADABLE_TYPES for error in causes for base in type(error).__mro__)


def _is_page(causes: list[BaseException]) -> bool:
    return any(base.__name__ == "WebPage" for error in causes for base in type(error).__mro__)


def _is_no_tls(error: BaseException) -> bool:
    """Whether a handshake failed for what the two sides are: no TLS there, no version or cipher in common."""
    match = _TLS.search(_words(error))
    return match is not None and not _PASSING_TLS.search(match[1] or _words(error).upper())


def _broke_reading(error: BaseException) -> bool:
    """Whether a package of LangChain's fell over an answer, as it does over one of a wrong shape."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(
        frame.f_code.co_name in _READ_BY and str(frame.f_globals.get("__name__")).startswith("langchain")
        for frame in frames
    )


def _by_type(causes: list[BaseException], message: str) -> Failure:
    names = {base.__name__ for error in causes for base in type(error).__mro__}
    if (
        any(isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES for error in causes)
        or "MemoryError" in names
    ):
        return Failure(Kind.LOCAL, message)
    if any(isinstance(error, ssl.SSLCertVerificationError) or _UNTRUSTED in _words(error) for error in causes):
        return Failure(Kind.NOT_FOUND, message, untrusted=True)
    if names & _UNSENT_TYPES and any(map(_is_no_tls, causes)):
        return Failure(Kind.NOT_FOUND, message, untrusted=True)
    if names & _UNSENT_TYPES or any(isinstance(error, ConnectionRefusedError | socket.gaierror) for error in causes):
        return Failure(Kind.CONNECTION, message)
    if names & _TIMEOUT_TYPES or any(isinstance(error, TimeoutError) for error in causes):
        return Failure(Kind.TIMEOUT, message, maybe_paid="PoolTimeout" not in names)
    if names & _CUT_TYPES and not any(_NO_REPLY.search(_words(error).lower()) for error in causes):
        return Failure(Kind.TRUNCATED, message, maybe_paid=True)
    if names & (_CONNECTION_TYPES | _CUT_TYPES) or any(isinstance(error, OSError) for error in causes):
        return Failure(Kind.CONNECTION, message)
    if (kind := next((kind for name, kind in _OTHER_TYPES.items() if name in names), None)) is not None:
        return Failure(kind, message)
    return _of_the_answer(causes, names, message)


def _of_the_answer(causes: list[BaseException], names: set[str], message: str) -> Failure:
    said = message.lower()
    if names & _BAD_BODY_TYPES or _BAD_BODY.search(said) or isinstance(causes[0], LookupError):
        return Failure(Kind.BAD_BODY, message, maybe_paid=True)  # LookupError: LangChain on a reply without choices
    if any(map(_broke_reading, causes)):
        said = f"the answer has a shape that LangChain cannot read ({type(causes[0]).__name__})"
        return Failure(Kind.BAD_BODY, said, maybe_paid=True)
    return Failure(Kind.CONTEXT_LENGTH if _CONTEXT.search(said) else Kind.UNKNOWN, message)
