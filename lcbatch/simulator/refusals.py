"""How a provider says no: OpenAI's status codes, bodies and headers for everything that is not billed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from lcbatch.simulator import hostile
from lcbatch.simulator.choices import RetryAfterForm
from lcbatch.simulator.faults import THROTTLES
from lcbatch.simulator.limits import Exceeded, retry_after
from lcbatch.simulator.replies import ApiError, Reply, error_reply, head, html_reply, json_reply
from lcbatch.simulator.settings import Settings

# What a Retry-After says when nothing is being counted that would tell.
_DEFAULT_WAIT_S: Final = 1.0


class Refusals:
    """The refusals under one set of settings.

    `headers` are the rate header lines that go with each; `wall_s` is Unix time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bombs: dict[str, Reply] = {}

    def rate(self, exceeded: Exceeded, model: str, headers: bytes, wall_s: float) -> Reply:
        """429 for a full bucket; without Retry-After for a request that no wait would let through."""
        short = "RPM" if exceeded.what == "requests" else "TPM"
        numbers = f"{exceeded.what} per min ({short}): Limit {exceeded.limit:.0f}, Requested {exceeded.requested:.0f}."
        if math.isinf(exceeded.wait_s):
            message = (
                f"Request too large for {model} on {numbers} "
                "The input or output tokens must be reduced in order to run successfully."
            )
        else:
            message = f"Rate limit reached for {model} on {numbers} Please try again in {exceeded.wait_s:.3f}s."
            headers += self._retry_after(exceeded.wait_s, wall_s)
        return error_reply(429, ApiError(message, exceeded.what, "rate_limit_exceeded"), headers)

    def concurrency(self, headers: bytes, wall_s: float) -> Reply:
        """429 for too many in flight."""
        error = ApiError("Too many concurrent requests.", "requests", "rate_limit_exceeded")
        return error_reply(429, error, headers + self._retry_after(_DEFAULT_WAIT_S, wall_s))

    def context(self, tokens: int, headers: bytes) -> Reply:
        """400 for a prompt beyond the context window."""
        message = (
            f"This model's maximum context length is {self._settings.context_tokens} tokens. However, your messages "
            f"resulted in {tokens} tokens. Please reduce the length of the messages."
        )
        return error_reply(400, ApiError(message, code="context_length_exceeded", param="messages"), headers)

    def fault(self, name: str, model: str, headers: bytes, wall_s: float, authorization: str) -> Reply:
        """The refusal of this name; see the table in faults.py."""
        if name in _ECHOES:
            return _echo(name, authorization, headers)
        form = THROTTLES.get(name)
        if form is None and name not in _ERRORS:
            return self._no_error(name, headers)
        if form is not None or name in _WITH_RETRY_AFTER:
            headers += self._retry_after(_DEFAULT_WAIT_S, wall_s, form)
        status, error = _ERRORS["429" if form else name]
        return error_reply(status, error._replace(message=error.message.format(model=model)), headers)

    def _no_error(self, name: str, headers: bytes) -> Reply:
        """What is refused, or spoiled by somebody in between, without an error status."""
        match name:
            case "html":
                return html_reply(headers)
            case "errbody":
                return json_reply(200, {"error": {"code": 502, "message": "Provider returned error"}}, headers)
            case "redirect":
                location = b"location: %s\r\n" % self._settings.redirect_to.encode()
                return Reply(head(307, 0, location + headers))
            case "gzipbomb" | "deflatebomb" | "zstdbomb":
                # The checksum of a gigabyte takes a good part of a second; do it once.
                if name not in self._bombs:
                    self._bombs[name] = _BOMBS[name](self._settings.gzipbomb_bytes)
                return self._bombs[name]
            case "context":
                return self.context(self._settings.context_tokens + 1, headers)
            case _:
                return _HOSTILE[name]() if name in _HOSTILE else Reply(b"", ending="reset")

    def _retry_after(self, wait_s: float, wall_s: float, form: RetryAfterForm | None = None) -> bytes:
        settings = self._settings
        asked_s = wait_s if settings.retry_after_s is None else settings.retry_after_s
        return retry_after(form or settings.retry_after, asked_s, wall_s)


def _echo(name: str, authorization: str, headers: bytes) -> Reply:
    """A refusal by somebody who quotes what was sent."""
    said = f"Not a valid key here: {authorization}."
    if name == "echo-html":
        return html_reply(headers, said)
    if name == "echo-400":
        return error_reply(400, ApiError(said), headers)
    return error_reply(401, ApiError(said, code="invalid_api_key"), headers)


_ECHOES: Final = {"echo", "echo-400", "echo-html"}
_BOMBS: Final[dict[str, Callable[[int], Reply]]] = {
    "gzipbomb": hostile.gzip_bomb,
    "deflatebomb": hostile.deflate_bomb,
    "zstdbomb": hostile.zstd_bomb,
}
_NESTED_LEVELS: Final = 100_000
_HOSTILE: Final[dict[str, Callable[[], Reply]]] = {
    "nested": lambda: hostile.nested(_NESTED_LEVELS),
    "endless": hostile.endless_body,
    "endless-head": hostile.endless_head,
    "endless-hints": hostile.endless_hints,
}
_WITH_RETRY_AFTER: Final = {"503-slow-down", "529", "429"}
_ERRORS: Final = {
    "500": (500, ApiError("The server had an error while processing your request. Sorry about that!", "server_error")),
    "503": (503, ApiError("The engine is currently overloaded, please try again later.", "server_error")),
    "503-slow-down": (503, ApiError("Slow down: reduce your request rate.", "server_error", "slow_down")),
    "529": (529, ApiError("Overloaded", "overloaded_error")),
    "429": (429, ApiError("Rate limit reached for {model}.", "requests", "rate_limit_exceeded")),
    "quota": (
        429,
        ApiError(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    "auth": (401, ApiError("Incorrect API key provided.", code="invalid_api_key")),
    "forbidden": (
        403,
        ApiError(
            "Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"
        ),
    ),
    "notfound": (
        404,
        ApiError("The model `{model}` does not exist or you do not have access to it.", code="model_not_found"),
    ),
}
