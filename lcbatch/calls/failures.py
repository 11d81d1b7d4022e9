"""The border to providers' errors: any exception becomes one `Failure`.

By status and error code first, then by the exception's type. Provider SDKs are told apart by what their exceptions carry
(`status_code`, `body`, `response.headers`), not by importing them.
"""

from __future__ import annotations

import email.utils
import errno
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

from lcbatch.errors import CallFailed, Failure, Kind

_QUOTA_CODES = re.compile(
    r"insufficient_quota|credit_balance_exhausted|_spend_limit_exceeded|organization_usage_limit_exceeded|"
    r"billing_hard_limit|credit balance is too low"
)
_CONTEXT = re.compile(
    r"context_length_exceeded|maximum context length|context window|prompt is too long|too many tokens"
)
_FILTER = re.compile(r"content_filter|content_policy_violation|responsible_ai_policy")
_TOO_LARGE_FOR_LIMIT = re.compile(r"request too large|tokens per min.*requested (\d+).*", re.IGNORECASE)

_LOCAL_ERRNO = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_TIMEOUT_TYPES = frozenset({"APITimeoutError", "OpenAITimeoutError", "ReadTimeout", "ConnectTimeout", "PoolTimeout"})
_CUT_TYPES = frozenset(
    {"RemoteProtocolError", "IncompleteRead", "ClientPayloadError", "TransferEncodingError", "ReadError"}
)
_CONNECTION_TYPES = frozenset(
    {"APIConnectionError", "OpenAIConnectionError", "ConnectError", "ClientConnectionError", "TransportError"}
)
_BAD_BODY = re.compile(r"unexpected response type|missing 'choices'|null value for 'choices'")
_CLIENTS = frozenset(
    {"openai", "anthropic", "google", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "mistralai"}
)
_MESSAGE_CHARS = 2000


def failure_of(error: BaseException) -> Failure:
    """The verdict on an exception that a model call raised."""
    if isinstance(error, CallFailed):
        return error.failure
    causes = list(_causes(error))
    status, body, headers = _http_facts(causes)
    message = _message(causes, body)
    if status is not None and status >= 400:
        return _by_status(status, body, headers, message)
    if isinstance(body, Mapping) and body.get("code") is not None:
        return _by_body(body, message)
    return _by_type(causes, message)


def is_providers(error: BaseException) -> bool:
    """Whether an exception comes from a provider's client, and not from the code around it."""
    return any(
        type(cause).__module__.partition(".")[0] in _CLIENTS or hasattr(cause, "status_code")
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _http_facts(causes: list[BaseException]) -> tuple[int | None, Any, Mapping[str, str]]:
    for error in causes:
        response = getattr(error, "response", None)
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        body = getattr(error, "body", None)
        if isinstance(status, int):
            return status, body, getattr(response, "headers", None) or {}
        if isinstance(error, ValueError) and error.args and isinstance(error.args[0], Mapping):
            return None, error.args[0], {}
    return None, None, {}


def _message(causes: list[BaseException], body: Any) -> str:
    if isinstance(body, Mapping) and isinstance(body.get("message"), str):
        return str(body["message"])[:_MESSAGE_CHARS]
    first = causes[0]
    text = str(first) or type(first).__name__
    root = str(causes[-1])
    if root and root not in text:
        text = f"{text} ({root})"
    return text[:_MESSAGE_CHARS]


def _by_status(status: int, body: Any, headers: Mapping[str, str], message: str) -> Failure:
    said = f"{body if body is not None else ''} {message}".lower()

    def verdict(kind: Kind, *, wait: bool = False, maybe_paid: bool = False) -> Failure:
        retry_after_s = retry_after(headers, time.time()) if wait else None
        return Failure(kind, message, retry_after_s, maybe_paid, status)

    if status == 402 or _QUOTA_CODES.search(said):
        return verdict(Kind.QUOTA)
    if status in {401, 403}:
        return verdict(Kind.CONTENT_FILTER if _FILTER.search(said) else Kind.AUTH)
    if status == 404:
        return verdict(Kind.NOT_FOUND)
    if status in {429, 529} or (status == 503 and "slow_down" in said.replace(" ", "_")):
        return verdict(Kind.INVALID_REQUEST if _TOO_LARGE_FOR_LIMIT.search(said) else Kind.THROTTLE, wait=True)
    if status in {408, 504}:
        return verdict(Kind.TIMEOUT, wait=True, maybe_paid=True)
    if status in {409, 425} or status >= 500:
        return verdict(Kind.SERVER, wait=True)
    if status == 413 or _CONTEXT.search(said):
        return verdict(Kind.CONTEXT_LENGTH)
    return verdict(Kind.CONTENT_FILTER if _FILTER.search(said) else Kind.INVALID_REQUEST)


def _by_body(body: Mapping[str, Any], message: str) -> Failure:
    """An error that came inside a 200, as OpenRouter sends them: its `code` is the status that was meant."""
    code = body["code"]
    if isinstance(code, int) and 400 <= code < 600:
        return _by_status(code, body, {}, message)
    return Failure(Kind.BAD_BODY, message, maybe_paid=True)


def _by_type(causes: list[BaseException], message: str) -> Failure:
    names = {base.__name__ for error in causes for base in type(error).__mro__}
    if any(isinstance(error, OSError) and error.errno in _LOCAL_ERRNO for error in causes) or "MemoryError" in names:
        return Failure(Kind.LOCAL, message)
    if any(isinstance(error, ssl.SSLCertVerificationError) for error in causes):
        return Failure(Kind.INVALID_REQUEST, f"the provider's TLS certificate is not trusted: {message}")
    if names & _TIMEOUT_TYPES or any(isinstance(error, TimeoutError) for error in causes):
        return Failure(Kind.TIMEOUT, message, maybe_paid=True)
    if any(isinstance(error, ConnectionRefusedError | socket.gaierror) for error in causes):
        return Failure(Kind.CONNECTION, message)
    if names & _CUT_TYPES:
        return Failure(Kind.TRUNCATED, message, maybe_paid=True)
    if names & _CONNECTION_TYPES or any(isinstance(error, OSError) for error in causes):
        return Failure(Kind.CONNECTION, message)
    if "NoProseError" in names:
        return Failure(Kind.NO_TEXT, message)
    if "JSONDecodeError" in names or _BAD_BODY.search(message.lower()):
        return Failure(Kind.BAD_BODY, message, maybe_paid=True)
    if "ContextOverflowError" in names or _CONTEXT.search(message.lower()):
        return Failure(Kind.CONTEXT_LENGTH, message)
    return Failure(Kind.UNKNOWN, message)


def retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds to wait from `retry-after-ms` or `retry-after` (seconds, or an HTTP date against Unix time `now_s`).

    None where there is none or it makes no sense (negative, garbage).
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = lowered.get(name, "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
            return float(value) * unit_s
    value = lowered.get("retry-after", "")
    try:
        wait_s = email.utils.parsedate_to_datetime(value).timestamp() - now_s
    except (TypeError, ValueError):
        return None
    return wait_s if wait_s >= 0 else None
