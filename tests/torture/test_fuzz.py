"""Every parser that reads what others wrote gives a result or says what is wrong, in bounded time. It never breaks."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from lcbatch import jsontext
from lcbatch.calls.direct import direct
from lcbatch.calls.failures import failure_of
from lcbatch.calls.limits import limits_of
from lcbatch.calls.rate import RateLimits
from lcbatch.calls.waits import wait_asked
from lcbatch.chains.jsonanswer import objects_in
from lcbatch.chains.template import parse_template
from lcbatch.cli.config import config_options
from lcbatch.errors import CallFailed, Failure, LcbatchError
from lcbatch.models.openai_embeddings import OpenAILane
from lcbatch.models.plain import plain_answer
from lcbatch.models.wire import Response, StatusError
from lcbatch.ports import Ask
from lcbatch.records import Answer, Item, Json, Reply, Request, Usage
from lcbatch.sources.encodings import Transcoder
from lcbatch.sources.formats import Reading, parser_for
from lcbatch.sources.streams import Unpacker
from lcbatch.testing import Events, run_virtual
from tests.torture.hostile import BITS, BYTES, JSON, TEXTS, deep, in_time, tries, with_members
from tests.torture.scale import cases

T = TypeVar("T")

_LIMIT = 1000
_NOW_S = 1_700_000_000.0


def _outcome(read: Callable[[], T]) -> T | LcbatchError:
    """What came of it, the error that says what is wrong among it; any other is a fault."""
    try:
        return read()
    except LcbatchError as error:
        return error


def _read(data: bytes, format_name: str | None, piece_bytes: int) -> list[Item]:
    """What the whole way from bytes to rows makes of an input."""
    unpacker, transcoder = Unpacker("x"), Transcoder("utf-8")
    parser = parser_for("x", format_name, Reading(_LIMIT, None, "utf-8"))
    items: list[Item] = []
    for at in range(0, len(data), piece_bytes):
        for piece in unpacker.feed(data[at : at + piece_bytes]):
            items += parser.feed(transcoder.feed(piece))
    for piece in unpacker.finish():
        items += parser.feed(transcoder.feed(piece))
    return items + parser.feed(transcoder.finish()) + parser.finish()


@pytest.mark.parametrize("format_name", ["jsonl", "json", "csv", "tsv", "lines", None])
@given(data=BYTES, piece_bytes=st.integers(1, 400), packed=st.sampled_from([b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]))
@tries(60, 20_000)
def test_rows(format_name: str | None, data: bytes, piece_bytes: int, packed: bytes) -> None:
    with in_time():
        items = _outcome(lambda: _read(packed + data, format_name, piece_bytes))
    if isinstance(items, LcbatchError):
        assert items.message
        return
    for item in items:
        assert item.place.startswith("x")
        assert jsontext.loads(jsontext.dumps(dict(item.fields))) is not None
        assert item.failure is None or item.failure.message.startswith(item.place)


@given(data=BYTES, cut=st.integers(0, 60))
@tries(100, 20_000)
def test_packed_rows(data: bytes, cut: int) -> None:
    packed = zlib.compress(data, wbits=31)
    whole = _read(data, "lines", 10**6) if not data.startswith((b"\x1f\x8b", b"\x28\xb5")) else None
    items = _outcome(lambda: _read(packed[: len(packed) - cut], "lines", 7))
    if isinstance(items, LcbatchError):
        assert cut
        assert "unpacked" in items.message
        return
    assert cut or whole is None or items == whole
    assert not cut or len(packed) - cut <= 1, "a cut file passed for a whole one"


@given(text=TEXTS, fields=st.dictionaries(st.sampled_from(["x", "a", "lc", "__class__"]), JSON))
@tries(150, 20_000)
def test_templates(text: str, fields: dict[str, Json]) -> None:
    template = parse_template(text)
    if template.missing(fields) is None:
        with in_time():
            said = template.render(fields)
        most = sum(len(jsontext.dumps(value)) for value in fields.values()) + 1
        assert len(said) <= len(text) + most * len(template.parts)


_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *(f"X-RateLimit-{what}-{of}" for what in ("Limit", "Remaining", "Reset") for of in ("Requests", "Tokens")),
            *(
                f"anthropic-ratelimit-{of}-{what}"
                for what in ("limit", "remaining", "reset")
                for of in ("requests", "tokens")
            ),
            *("Retry-After", "retry-after-ms", "Date", "x-ratelimit-"),
        ]
    ),
    st.one_of(TEXTS, st.integers().map(str), st.floats().map(str), st.datetimes().map(str), st.sampled_from(BITS)),
    max_size=8,
)


@given(headers=_HEADERS)
@example(headers={"Retry-After": "Mon, 01 Jan 0001 00:00:00 +1400"})
@example(headers={"x-ratelimit-reset-requests": "1" * 30_000})
@tries(120, 50_000)
def test_rate_headers(headers: Mapping[str, str]) -> None:
    with in_time():
        limits_of(headers, _NOW_S)
        asked_s = wait_asked(headers, None, "", _NOW_S)
        known = RateLimits(rpm=None, tpm=None)
        known.heard(headers, 5.0, _NOW_S)
        known.reserve(Request([{"role": "user", "content": "x"}]), 5.0)
        opens_s, _ = known.opens_in(5.0)
    assert asked_s is None or (math.isfinite(asked_s) and asked_s >= 0)
    assert opens_s >= 0
    assert not math.isnan(opens_s)


_ERRORS = with_members("code type status reason message detail details innererror error param", JSON) | JSON


@given(
    body=st.one_of(_ERRORS, _ERRORS.map(lambda body: {"error": body}), _ERRORS.map(lambda body: [{"error": body}])),
    status=st.sampled_from([200, 301, 400, 401, 404, 408, 413, 429, 500, 503, 529, 999]),
    headers=_HEADERS,
    levels=st.sampled_from([0, 0, 0, 5, 190, 5000]),
)
@example(body={"error": {"code": "9" * 5000}}, status=400, headers={}, levels=0)
@tries(80, 20_000)
def test_error_bodies(body: Json, status: int, headers: Mapping[str, str], levels: int) -> None:
    content = (b"[" * levels) + json.dumps(body).encode() + (b"]" * levels)
    with in_time():
        failure = failure_of(StatusError(Response(status, headers, content)))
        deeper = failure_of(ValueError(deep(body, min(levels, 2000))))
    for verdict in (failure, deeper):
        assert isinstance(verdict, Failure)
        assert len(verdict.message) <= 2000
        wait_s = verdict.retry_after_s
        assert wait_s is None or (math.isfinite(wait_s) and wait_s >= 0)


@given(text=st.one_of(TEXTS, st.builds("{}{}{}".format, TEXTS, JSON.map(json.dumps), TEXTS), JSON.map(repr)))
@tries(200, 50_000)
def test_objects_in_answers(text: str) -> None:
    with in_time():
        found = list(objects_in(text))
    for value in found:
        assert jsontext.loads(jsontext.dumps(value)) == value


@pytest.mark.parametrize(
    "part", ["{", "}", '"', "{}", '{"', '"a",', '\\"', "-", "not ", "1+", "(", "a.", "//", ", ", "'", "[", "f()"]
)
@pytest.mark.parametrize("before", ["{", "", '{"a": ', "{'a': ", '{"a": "', "x {"][: cases(1, 6)])
def test_long_answers_take_no_longer_than_they_are(part: str, before: str) -> None:
    with in_time():
        for length in (190_000, cases(500_000, 8_000_000)):
            assert len(list(objects_in(f"{before}{part * (length // len(part))} }}"))) <= 64


_USAGE = with_members("prompt_tokens completion_tokens total_tokens prompt_tokens_details", JSON) | JSON
_CHOICE = st.fixed_dictionaries(
    {"message": with_members("role content refusal tool_calls audio function_call", JSON) | JSON},
    optional={"finish_reason": JSON, "index": JSON, "logprobs": JSON},
)
_SOUND = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
_COMPLETIONS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"choices": st.just([_SOUND]) | st.lists(_CHOICE | JSON, max_size=2)},
        optional={"usage": _USAGE, "model": JSON, "id": JSON, "error": JSON},
    ),
)


class _Wire:
    """Answers whatever is asked with the same bytes."""

    heard = None

    def __init__(self, content: bytes, content_type: str = "application/json") -> None:
        self._response = Response(200, {"Content-Type": content_type}, content)

    async def post(self, data: bytes, headers: Mapping[str, str]) -> Response:
        assert data is not None
        assert headers is not None
        return self._response

    async def aclose(self) -> None:
        """Nothing is open."""


def _judged(ask: Ask, *messages: Any) -> Reply | Failure:
    """One attempt, as a run makes it: a reply whose tokens are counts and which can be stored, or a verdict."""
    call = direct(
        ask,
        label="m",
        timeout_s=5.0,
        price=_price,
        clock=lambda: 0.0,
        emit=Events(),
    )
    try:
        reply = run_virtual(call(Request(list(messages))))
    except CallFailed as failed:
        return failed.failure
    for tokens in (reply.usage.prompt_tokens, reply.usage.completion_tokens):
        assert type(tokens) is int
        assert 0 <= tokens < 2**53
    assert jsontext.dumps(dict(reply.message))
    assert type(reply.text) is str
    return reply


def _price(model: str, usage: Usage) -> float | None:
    assert type(model) is str
    return usage.prompt_tokens * 1e-6 + usage.completion_tokens * 1e-6


def _content(body: Json, noise: bytes) -> bytes:
    return json.dumps(body).encode() + noise


@given(body=_COMPLETIONS)
@tries(100, 50_000)
def test_plain_answers(body: Json) -> None:
    async def answer(_: Request) -> Answer:
        found = plain_answer(orjson.loads(json.dumps(body, allow_nan=False)) if _is_strict(body) else body)
        if found is None:
            raise CallFailed(failure_of(ValueError("not plain")))
        return found

    with in_time():
        _judged(answer, {"role": "user", "content": "x"})


def _is_strict(body: Json) -> bool:
    try:
        orjson.loads(json.dumps(body, allow_nan=False))
    except (ValueError, TypeError):
        return False
    return True


@given(body=_COMPLETIONS, noise=st.just(b"") | BYTES)
@example(body={"choices": [_SOUND], "usage": {"prompt_tokens": "5", "completion_tokens": []}}, noise=b"")
@example(body={"choices": [_SOUND], "usage": {"prompt_tokens": -(10**30), "completion_tokens": 1}}, noise=b"")
@tries(50, 20_000)
def test_answers_through_langchain(body: Json, noise: bytes) -> None:
    from lcbatch.calls.asking import invoking  # noqa: PLC0415 - they load LangChain
    from lcbatch.models.openai import FastChatOpenAI  # noqa: PLC0415

    chat = FastChatOpenAI(model="sim", base_url="http://127.0.0.1:9/v1", api_key=SecretStr("k"), max_retries=0)
    chat.over(_Wire(_content(body, noise)))  # type: ignore[arg-type]  # what of a Wire is used
    with in_time():
        found = _judged(invoking(lambda: chat), {"role": "user", "content": "x"})
    assert isinstance(found, Reply | Failure)


_VECTORS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"data": st.lists(with_members("embedding index object", JSON | st.just("AACAPwAAAEA=")) | JSON, max_size=3)},
        optional={"usage": _USAGE, "model": JSON, "error": JSON},
    ),
)


@given(body=_VECTORS, noise=st.just(b"") | BYTES)
@example(body={"data": [{"embedding": "AACAPw==", "index": 0}], "usage": {"prompt_tokens": -5}}, noise=b"")
@example(body={"data": [{"embedding": "AACAPw==", "index": 0}], "usage": [1]}, noise=b"")
@tries(100, 20_000)
def test_vectors(body: Json, noise: bytes) -> None:
    with in_time():
        found = _judged(_embedding_lane(_content(body, noise)).ask, "x")
    assert isinstance(found, Reply | Failure)


def _embedding_lane(content: bytes) -> OpenAILane:
    lane = object.__new__(OpenAILane)
    lane._parameters = {}
    lane._wire = _Wire(content)  # type: ignore[assignment]  # what of a Wire is used
    return lane


_TOML_VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    TEXTS.map(json.dumps),
    st.just("true"),
    st.just("1979-05-27"),
    TEXTS,
    st.lists(st.integers().map(str) | TEXTS.map(json.dumps), max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
)
_TOML_KEYS = st.sampled_from(
    [
        "model",
        "prompt",
        "output",
        "max-cost",
        "max-time",
        "concurrency",
        "model-arg",
        "schema",
        "base-url",
        "inputs",
        "timeout",
        "price",
        "endpoints",
        "run",
        "a.b",
    ]
)


@given(
    lines=st.lists(
        st.one_of(
            st.builds("{} = {}".format, _TOML_KEYS, _TOML_VALUES),
            st.sampled_from(["[run]", "[[endpoints]]", "[embed]", "[tool.lcbatch]", "["]),
            TEXTS,
        ),
        max_size=5,
    ),
    name=st.sampled_from(["lcbatch.toml", "pyproject.toml"]),
)
@example(lines=["a = " + "[" * 50_000], name="lcbatch.toml")
@example(lines=["model = " + "9" * 5000], name="lcbatch.toml")
@tries(100, 20_000)
def test_config_files(tmp_path_factory: pytest.TempPathFactory, lines: list[str], name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "config"
    folder.mkdir(exist_ok=True)
    for each in folder.iterdir():
        each.unlink()
    (folder / name).write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    with in_time():
        options = _outcome(lambda: config_options("run", None, Path(folder)))
    assert isinstance(options, dict) or options.message
