"""Error bodies as providers really send them, through the SDK's own mapping, and the verdict on each."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpcore2
import openai
import pytest
import respx
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from respx.mocks import HTTPCoreMocker

from lcbatch.calls.failures import failure_of, is_providers
from lcbatch.errors import CallFailed, Failure, Kind


class _HTTPCore2Mocker(HTTPCoreMocker):
    """openai 3 sends through httpx2 and httpcore2, which respx does not know by itself."""

    name = "httpcore2"
    targets = [target.replace("httpcore.", "httpcore2.") for target in HTTPCoreMocker.targets]  # noqa: RUF012 - respx's


_URL = "https://api.provider.test/v1"


def said_to_sdk(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Failure:
    """What a ChatOpenAI call comes to that gets this response."""
    text = body if isinstance(body, str) else json.dumps(body)
    content_type = "text/html" if text.startswith("<") else "application/json"

    async def ask() -> AIMessage:
        chat = ChatOpenAI(model="m", base_url=_URL, api_key=SecretStr("sk-canary"), max_retries=0)
        return await chat.ainvoke("hello")

    with respx.mock(using="httpcore2") as mocked:
        route = mocked.post(f"{_URL}/chat/completions").respond(
            status, text=text, headers={"content-type": content_type, **(headers or {})}
        )
        with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is, it becomes a verdict
            asyncio.run(ask())
        assert route.called
    return failure_of(raised.value)


def error(message: str, code: Any = None, kind: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


@dataclass(frozen=True)
class Case:
    """One response, and the verdict that it has to come to."""

    name: str
    status: int
    body: Any
    kind: Kind
    wait_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    maybe_paid: bool = False


OPENAI = [
    Case(
        "rpm",
        429,
        error(
            "Rate limit reached for gpt-5 in organization org-x on requests per min (RPM): Limit 500, Used 500, Requested 1. "
            "Please try again in 120ms. Visit https://platform.openai.com/account/rate-limits to learn more.",
            "rate_limit_exceeded",
            "requests",
        ),
        Kind.THROTTLE,
        wait_s=0.12,
    ),
    Case(
        "tpm",
        429,
        error(
            "Rate limit reached for gpt-5 in organization org-x on tokens per min (TPM): Limit 30000, Used 28532, "
            "Requested 2500. Please try again in 2.064s.",
            "rate_limit_exceeded",
            "tokens",
        ),
        Kind.THROTTLE,
        wait_s=3.0,
        headers={"Retry-After": "3", "x-ratelimit-remaining-tokens": "0"},
    ),
    Case(
        "larger than tpm",
        429,
        error(
            "Request too large for gpt-5 in organization org-x on tokens per min (TPM): Limit 30000, Requested 40123. The "
            "input or output tokens must be reduced in order to run successfully.",
            "rate_limit_exceeded",
            "tokens",
        ),
        Kind.INVALID_REQUEST,
    ),
    Case(
        "requested more than the limit",
        429,
        error("Rate limit reached: Limit 30000, Requested 40123.", "rate_limit_exceeded", "tokens"),
        Kind.INVALID_REQUEST,
    ),
    Case(
        "quota",
        429,
        error(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
        Kind.QUOTA,
    ),
    Case("project limit", 429, error("Spend limit.", "project_spend_limit_exceeded"), Kind.QUOTA),
    Case("account not active", 429, error("Your account is not active.", "billing_not_active"), Kind.QUOTA),
    Case("hard limit", 400, error("Billing hard limit has been reached", "billing_hard_limit_reached"), Kind.QUOTA),
    Case("key", 401, error("Incorrect API key provided: sk-c****.", "invalid_api_key"), Kind.AUTH),
    Case("country", 403, error("Country not supported", "unsupported_country_region_territory"), Kind.AUTH),
    Case("no access", 403, error("Project `p` does not have access to model `m`", "model_not_found"), Kind.NOT_FOUND),
    Case(
        "model",
        404,
        error("The model `m` does not exist or you do not have access to it.", "model_not_found"),
        Kind.NOT_FOUND,
    ),
    Case(
        "context",
        400,
        error(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130011 tokens.",
            "context_length_exceeded",
            "invalid_request_error",
        ),
        Kind.CONTEXT_LENGTH,
    ),
    Case(
        "configured limit",
        400,
        error("Input tokens exceed the configured limit of 272000 tokens."),
        Kind.CONTEXT_LENGTH,
    ),
    Case("parameter", 400, error("Unsupported value: 'temperature'", "unsupported_value"), Kind.INVALID_REQUEST),
    Case(
        "a prompt quoted in a refusal stops no run",
        400,
        error(
            "Invalid value for 'content': 'what does insufficient_quota mean, and invalid_api_key?'", "invalid_value"
        ),
        Kind.INVALID_REQUEST,
    ),
    Case(
        "flagged",
        400,
        error("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_prompt"),
        Kind.CONTENT_FILTER,
    ),
    Case(
        "server",
        500,
        error("The server had an error while processing your request.", None, "server_error"),
        Kind.SERVER,
    ),
    Case("overloaded", 503, error("The engine is currently overloaded.", None, "server_error"), Kind.SERVER),
    Case(
        "slow down",
        503,
        error("Slow down", "slow_down", "server_error"),
        Kind.THROTTLE,
        2.5,
        {"retry-after-ms": "2500"},
    ),
]
AZURE = [
    Case(
        "throttle",
        429,
        error(
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token "
            "rate limit of your current OpenAI S0 pricing tier. Please retry after 26 seconds. Please go here: "
            "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.",
            "429",
        ),
        Kind.THROTTLE,
        wait_s=26,
    ),
    Case(
        "gateway",
        429,
        {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 12 seconds."},
        Kind.THROTTLE,
        12,
    ),
    Case("volume", 403, {"statusCode": 403, "message": "Out of call volume quota."}, Kind.QUOTA),
    Case(
        "filter",
        400,
        error(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            "content_filter",
            status=400,
            innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
        ),
        Kind.CONTENT_FILTER,
    ),
    Case(
        "deployment",
        404,
        error("The API deployment for this resource does not exist.", "DeploymentNotFound"),
        Kind.NOT_FOUND,
    ),
    Case("key", 401, error("Access denied due to invalid subscription key or wrong API endpoint.", "401"), Kind.AUTH),
    Case("firewall", 403, error("Access denied due to Virtual Network/Firewall rules.", "AccessDenied"), Kind.AUTH),
    Case("timeout", 408, error("The operation was timeout.", "Timeout"), Kind.TIMEOUT, maybe_paid=True),
]
GEMINI = [  # its OpenAI-compatible endpoint puts a list around the error
    Case(
        "rate",
        429,
        [
            error(
                "You exceeded your current quota, please check your plan and billing details.\nPlease retry in 31.2s.",
                429,
                status="RESOURCE_EXHAUSTED",
                details=[
                    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "31s"},
                ],
            )
        ],
        Kind.THROTTLE,
        wait_s=31,
    ),
    Case(
        "key",
        400,
        [
            error(
                "API key not valid. Please pass a valid API key.",
                400,
                status="INVALID_ARGUMENT",
                details=[{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
            )
        ],
        Kind.AUTH,
    ),
    Case(
        "context",
        400,
        [error("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 400)],
        Kind.CONTEXT_LENGTH,
    ),
    Case(
        "model", 404, [error("models/m is not found for API version v1main", 404, status="NOT_FOUND")], Kind.NOT_FOUND
    ),
    Case("overloaded", 503, [error("The model is overloaded.", 503, status="UNAVAILABLE")], Kind.SERVER),
    Case("deadline", 504, [error("Deadline expired.", 504, status="DEADLINE_EXCEEDED")], Kind.TIMEOUT, maybe_paid=True),
]
LOCAL = [
    Case("ollama model", 404, error("model 'm' not found", None, "not_found_error"), Kind.NOT_FOUND),
    Case("ollama busy", 503, error("server busy, please try again.  maximum pending requests exceeded"), Kind.THROTTLE),
    Case("ollama runner", 500, error("llama runner process has terminated", None, "api_error"), Kind.SERVER),
    Case(
        "vllm context",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 2048 tokens. However, you requested 2500 tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        Kind.CONTEXT_LENGTH,
    ),
    Case(
        "vllm model",
        404,
        {"object": "error", "message": "No such model.", "type": "NotFoundError", "code": 404},
        Kind.NOT_FOUND,
    ),
    Case("vllm key", 401, {"error": "Unauthorized"}, Kind.AUTH),
    Case(
        "vllm body",
        422,
        {
            "detail": [
                {"loc": ["body"], "msg": "field required", "type": "missing", "input": {"code": "insufficient_quota"}}
            ]
        },
        Kind.INVALID_REQUEST,
    ),
    Case(
        "llama.cpp context",
        400,
        error("the request exceeds the available context size, try increasing it", 400, "exceed_context_size_error"),
        Kind.CONTEXT_LENGTH,
    ),
    Case("llama.cpp loading", 503, error("Loading model", 503, "unavailable_error"), Kind.SERVER),
    Case("base URL without /v1", 404, {"detail": "Not Found"}, Kind.NOT_FOUND),
    Case("base URL of a page", 405, {"detail": "Method Not Allowed"}, Kind.NOT_FOUND),
]
OPENROUTER = [
    Case("credits", 402, error("Insufficient credits. Add more using https://openrouter.ai/credits", 402), Kind.QUOTA),
    Case(
        "moderation",
        403,
        error(
            'openai/gpt-5 requires moderation on OpenAI. Your input was flagged for "violence". No credits were charged.',
            403,
            metadata={"reasons": ["violence"], "flagged_input": "..."},
        ),
        Kind.CONTENT_FILTER,
    ),
    Case("model", 400, error("foo/bar is not a valid model ID", 400), Kind.NOT_FOUND),
    Case("throttle inside 200", 200, error("Rate limit exceeded", 429), Kind.THROTTLE),
    Case("502 inside 200", 200, error("Provider returned error", 502), Kind.SERVER),
    Case("quota inside 200", 200, error("No credits", "402"), Kind.QUOTA),
    Case("no code inside 200", 200, error("it broke"), Kind.BAD_BODY, maybe_paid=True),
]
LITELLM = [
    Case(
        "throttle",
        429,
        error("litellm.RateLimitError: No deployments available. Try again in 60 seconds.", "429"),
        Kind.THROTTLE,
        60,
    ),
    Case(
        "quota",
        429,
        error("litellm.RateLimitError: OpenAIException - {'code': 'insufficient_quota'}", "429", "throttling_error"),
        Kind.QUOTA,
    ),
    Case("key", 401, error("Authentication Error, Invalid proxy server token passed.", "401", "auth_error"), Kind.AUTH),
    Case("budget", 400, error("Budget has been exceeded! Current cost: 0.2", "400", "budget_exceeded"), Kind.QUOTA),
    Case(
        "context",
        400,
        error("litellm.ContextWindowExceededError: OpenAIException - too long", "400"),
        Kind.CONTEXT_LENGTH,
    ),
    Case("filter", 400, error("litellm.ContentPolicyViolationError: OpenAIException", "400"), Kind.CONTENT_FILTER),
    Case("model", 400, error("/chat/completions: Invalid model name passed in model=m", "400"), Kind.NOT_FOUND),
    Case("server", 500, error("litellm.InternalServerError: OpenAIException - Connection error.", "500"), Kind.SERVER),
]
PROXIES = [
    Case("nginx 502", 502, "<html><h1>502 Bad Gateway</h1></html>", Kind.SERVER),
    Case("nginx 504", 504, "<html><h1>504</h1></html>", Kind.TIMEOUT, maybe_paid=True),
    Case("nginx 413", 413, "<html><h1>413 Request Entity Too Large</h1></html>", Kind.CONTEXT_LENGTH),
    Case("cloudflare 524", 524, "<html>A timeout occurred</html>", Kind.TIMEOUT, maybe_paid=True),
    Case("html in 200", 200, "<html>Sign in</html>", Kind.BAD_BODY, maybe_paid=True),
    Case("cut JSON in 200", 200, '{"id": "chatcmpl-1", "cho', Kind.BAD_BODY, maybe_paid=True),
    Case("no choices", 200, {"id": "1", "model": "m"}, Kind.BAD_BODY, maybe_paid=True),
    Case("empty choices", 200, {"id": "1", "model": "m", "choices": []}, Kind.BAD_BODY, maybe_paid=True),
]
TABLES = {
    "openai": OPENAI,
    "azure": AZURE,
    "gemini": GEMINI,
    "local": LOCAL,
    "openrouter": OPENROUTER,
    "litellm": LITELLM,
    "proxies": PROXIES,
}


@pytest.mark.parametrize("provider", TABLES)
def test_responses_come_to_their_verdicts(provider: str) -> None:
    for case in TABLES[provider]:
        failure = said_to_sdk(case.status, case.body, case.headers)

        assert (failure.kind, failure.maybe_paid) == (case.kind, case.maybe_paid), (case.name, failure)
        assert failure.retry_after_s == pytest.approx(case.wait_s), (case.name, failure)
        assert failure.message, case.name
        assert "sk-canary" not in failure.message


def test_every_kind_that_http_can_tell_is_in_the_tables() -> None:
    elsewhere = {Kind.CONNECTION, Kind.TRUNCATED, Kind.LOCAL}  # below HTTP, in the tests further down
    after_the_reply = {Kind.REFUSAL, Kind.PARSE, Kind.NO_TEXT, Kind.BAD_ROW, Kind.CHAIN, Kind.UNKNOWN}

    assert {case.kind for table in TABLES.values() for case in table} == set(Kind) - elsewhere - after_the_reply


def test_the_message_is_what_the_provider_says() -> None:
    assert said_to_sdk(404, {"detail": "Not Found"}) == Failure(Kind.NOT_FOUND, "Not Found", status=404)
    assert said_to_sdk(401, {"error": "Unauthorized"}).message == "Unauthorized"
    assert said_to_sdk(502, "<html>page</html>").message == "Error code: 502"
    assert said_to_sdk(400, error("x" * 5000)).message == "x" * 2000


class AnthropicError(Exception):
    """Shaped as anthropic.APIStatusError: the whole body, and a response with headers."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"Error code: {status} - {kind}")
        self.status_code = status
        self.body = {"type": "error", "error": {"type": kind, "message": message}}
        self.response = _Response(status, headers or {})


@dataclass
class _Response:
    status_code: int
    headers: Mapping[str, str]


@pytest.mark.parametrize(
    ("status", "kind", "message", "verdict"),
    [
        (
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 40,000 tokens",
            Kind.THROTTLE,
        ),
        (529, "overloaded_error", "Overloaded", Kind.THROTTLE),
        (200, "overloaded_error", "Overloaded", Kind.THROTTLE),  # in the midst of a stream
        (200, "api_error", "Internal server error", Kind.SERVER),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", Kind.CONTEXT_LENGTH),
        (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.", Kind.QUOTA),
        (400, "invalid_request_error", "max_tokens: must be greater than 0", Kind.INVALID_REQUEST),
        (401, "authentication_error", "invalid x-api-key", Kind.AUTH),
        (402, "billing_error", "pay", Kind.QUOTA),
        (403, "permission_error", "no", Kind.AUTH),
        (404, "not_found_error", "model: claude-nil", Kind.NOT_FOUND),
        (413, "request_too_large", "Request exceeds the maximum size", Kind.CONTEXT_LENGTH),
        (500, "api_error", "Internal server error", Kind.SERVER),
        (504, "timeout_error", "timed out", Kind.TIMEOUT),
    ],
)
def test_anthropic(status: int, kind: str, message: str, verdict: Kind) -> None:
    failure = failure_of(AnthropicError(status, kind, message, {"Retry-After": "9"}))

    assert (failure.kind, failure.message) == (verdict, message)
    assert failure.retry_after_s == (9.0 if verdict in {Kind.THROTTLE, Kind.SERVER, Kind.TIMEOUT} else None)


class GoogleError(Exception):
    """Shaped as google.genai.errors.APIError."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(f"{code} {status}. {message}")
        self.code = code
        self.details = {"error": {"code": code, "message": message, "status": status}}


class OllamaError(Exception):
    """Shaped as ollama.ResponseError."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


def test_other_sdks_are_known_by_what_their_exceptions_carry() -> None:
    assert failure_of(GoogleError(429, "RESOURCE_EXHAUSTED", "Please retry in 7.5s.")).retry_after_s == 7.5
    assert failure_of(GoogleError(400, "INVALID_ARGUMENT", "bad")).kind is Kind.INVALID_REQUEST
    assert failure_of(OllamaError(404, "model 'm' not found")) == Failure(
        Kind.NOT_FOUND, "model 'm' not found", status=404
    )
    wrapped = RuntimeError("Error calling model 'gemini' (RESOURCE_EXHAUSTED)")
    wrapped.__cause__ = GoogleError(429, "RESOURCE_EXHAUSTED", "slow")
    assert failure_of(wrapped).kind is Kind.THROTTLE


def caused(*chain: BaseException) -> BaseException:
    """The first of these exceptions, raised from the second, raised from the third."""
    for outer, inner in itertools.pairwise(chain):
        outer.__cause__ = inner
    return chain[0]


def connection_error(*causes: BaseException) -> BaseException:
    request = openai.APIConnectionError(request=None)  # type: ignore[arg-type]
    return caused(request, *causes)


class ConnectError(Exception):
    """As httpx2's."""


class ReadError(Exception):
    """As httpx2's."""


class RemoteProtocolError(Exception):
    """As httpx2's."""


class ConnectTimeout(Exception):
    """As httpx2's."""


class ReadTimeout(Exception):
    """As httpx2's."""


class PoolTimeout(Exception):
    """As httpx2's."""


_CUT = "peer closed connection without sending complete message body (incomplete chunked read)"


@pytest.mark.parametrize(
    ("error", "kind", "maybe_paid"),
    [
        (connection_error(ConnectError("x"), OSError(errno.EMFILE, "Too many open files")), Kind.LOCAL, False),
        (connection_error(ExceptionGroup("all", [OSError(errno.EMFILE, "Too many open files")])), Kind.LOCAL, False),
        (MemoryError(), Kind.LOCAL, False),
        (connection_error(ConnectError("x"), socket.gaierror(-2, "Name or service not known")), Kind.CONNECTION, False),
        (
            connection_error(ConnectError("x"), ConnectionRefusedError(111, "Connection refused")),
            Kind.CONNECTION,
            False,
        ),
        (connection_error(ConnectTimeout("")), Kind.CONNECTION, False),
        (
            connection_error(ConnectError("All connection attempts failed"), TimeoutError(110, "timed out")),
            Kind.CONNECTION,
            False,
        ),
        (
            connection_error(RemoteProtocolError("Server disconnected without sending a response.")),
            Kind.CONNECTION,
            False,
        ),
        (connection_error(ssl.SSLCertVerificationError("certificate verify failed")), Kind.NOT_FOUND, False),
        (connection_error(RemoteProtocolError(_CUT)), Kind.TRUNCATED, True),
        (connection_error(ReadError(), ConnectionResetError(104, "reset")), Kind.TRUNCATED, True),
        (caused(openai.APITimeoutError(None), ReadTimeout()), Kind.TIMEOUT, True),  # type: ignore[arg-type]
        (caused(openai.APITimeoutError(None), PoolTimeout()), Kind.TIMEOUT, False),  # type: ignore[arg-type]
        (TimeoutError(), Kind.TIMEOUT, True),
        (ConnectionError("Failed to connect to Ollama. Please check that it is running."), Kind.CONNECTION, False),
        (openai.ContentFilterFinishReasonError(), Kind.CONTENT_FILTER, False),
        (RuntimeError("something else"), Kind.UNKNOWN, False),
    ],
)
def test_what_happens_below_http(error: BaseException, kind: Kind, maybe_paid: bool) -> None:  # noqa: FBT001 - a table
    failure = failure_of(error)

    assert (failure.kind, failure.maybe_paid) == (kind, maybe_paid), failure


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpcore2.ConnectError("refused"), Kind.CONNECTION),
        (httpcore2.ConnectTimeout("slow"), Kind.CONNECTION),
        (httpcore2.ReadTimeout("slow"), Kind.TIMEOUT),
        (httpcore2.RemoteProtocolError(_CUT), Kind.TRUNCATED),
        (httpcore2.RemoteProtocolError("Server disconnected without sending a response."), Kind.CONNECTION),
    ],
)
def test_the_sdk_s_own_chain_of_causes_is_seen_through(raised: Exception, kind: Kind) -> None:
    async def ask() -> AIMessage:
        chat = ChatOpenAI(model="m", base_url=_URL, api_key=SecretStr("k"), max_retries=0)
        return await chat.ainvoke("hello")

    with respx.mock(using="httpcore2") as mocked:
        route = mocked.post(f"{_URL}/chat/completions").mock(side_effect=raised)
        with pytest.raises(openai.APIConnectionError) as caught:
            asyncio.run(ask())
        assert route.called
    assert failure_of(caught.value).kind is kind


def test_a_certificate_that_nobody_trusts_is_told_by_its_type_and_by_its_text() -> None:
    said = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired"
    for cause in (ssl.SSLCertVerificationError("no"), OSError(said)):
        assert failure_of(connection_error(cause)).untrusted, cause
    assert not failure_of(connection_error(OSError("no"))).untrusted


def test_a_handshake_that_cannot_mend_itself_is_no_outage() -> None:
    for reason, is_told in (
        ("WRONG_VERSION_NUMBER", True),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", True),
        ("UNEXPECTED_EOF_WHILE_READING", False),
        ("TLSV1_ALERT_INTERNAL_ERROR", False),
    ):
        failure = failure_of(connection_error(ConnectError(f"[SSL: {reason}] it says (_ssl.c:1006)")))
        assert failure.untrusted == is_told, reason
        assert failure.kind is (Kind.NOT_FOUND if is_told else Kind.CONNECTION)
    assert not failure_of(connection_error(ReadError("[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]"))).untrusted


def test_a_verdict_stays_the_same_verdict() -> None:
    failure = Failure(Kind.REFUSAL, "no")

    assert failure_of(CallFailed(failure)) is failure


def test_an_exception_that_is_its_own_cause_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert failure_of(first).kind is Kind.UNKNOWN


def test_the_provider_s_exceptions_are_told_from_the_user_s() -> None:
    assert is_providers(connection_error())
    assert is_providers(caused(KeyError("x"), OllamaError(500, "no")))
    assert not is_providers(KeyError("x"))
