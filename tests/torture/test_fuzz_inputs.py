"""Parquet files, rows that are requests themselves, and JSON schemas, as others may write them: read, or named with a remedy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from lcbatch import jsontext
from lcbatch.calls.direct import direct
from lcbatch.chains.prompt import RequestChain
from lcbatch.chains.schemas import AnswerSchema, Misfit, load_schema
from lcbatch.errors import CallFailed, Failure, Kind, LcbatchError
from lcbatch.models.wire import Response
from lcbatch.records import Item, Json, Request
from lcbatch.sources.parquet import parquet_batches
from lcbatch.testing import Events, run_virtual
from tests.torture.hostile import JSON, TEXTS, in_time, tries, with_members

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def _items(path: Path) -> list[Item] | LcbatchError:
    """What becomes of a Parquet file; any other error is a fault."""

    async def read() -> list[Item]:
        return [item async for batch in parquet_batches(path, "x.parquet", 100) for item in batch]

    try:
        return asyncio.run(read())
    except LcbatchError as error:
        return error


def _hold_up(items: list[Item] | LcbatchError) -> None:
    if isinstance(items, LcbatchError):
        assert items.message.startswith("x.parquet")
        assert items.hint
        return
    for item in items:
        assert item.place.startswith("x.parquet:row ")
        assert jsontext.loads(jsontext.dumps(dict(item.fields))) is not None
        assert item.failure is None or item.failure.message.startswith(item.place)


_UNITS = st.sampled_from(["s", "ms", "us", "ns"])
_WHOLE = st.integers(-(2**63), 2**63 - 1)
_COLUMNS = st.one_of(
    st.tuples(st.just(pa.string()), TEXTS.map(lambda text: text.encode("utf-8", "replace").decode())),
    st.tuples(st.just(pa.binary()), st.binary(max_size=9)),
    st.tuples(st.just(pa.float64()), st.floats()),
    st.tuples(
        st.builds(pa.timestamp, _UNITS, st.sampled_from([None, "UTC", "Europe/Berlin", "+07:30", "No/Where"])), _WHOLE
    ),
    st.tuples(st.builds(pa.duration, _UNITS), _WHOLE),
    st.tuples(st.just(pa.date32()), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(pa.date64()), st.integers(-(2**40), 2**40).map(lambda days: days * 86_400_000)),
    st.tuples(st.just(pa.time64("us")), st.integers(0, 86_399_999_999)),
    st.tuples(st.just(pa.decimal128(38, 5)), st.decimals(-(10**20), 10**20, places=5)),
    st.tuples(
        st.just(pa.list_(pa.struct([("a", pa.float32()), ("b", pa.string())]))), st.just([{"a": 1.5, "b": None}, None])
    ),
    st.tuples(st.just(pa.map_(pa.string(), pa.int64())), st.just([("a", 1), ("a", 2)])),
    st.tuples(st.just(pa.dictionary(pa.int8(), pa.string())), st.just("word")),
)
_NAMES = st.sampled_from(["text", "id", "custom_id", "", "_lcbatch_raw", "_lcbatch_error", "source", "a.b", "é"])


def _written(path: Path, columns: list[tuple[str, tuple[Any, Any]]], rows: int) -> None:
    arrays = []
    for _, (kind, value) in columns:
        is_stored_as_number = isinstance(value, int) and not pa.types.is_integer(kind)
        if is_stored_as_number:
            width = pa.int32() if kind.bit_width == 32 else pa.int64()
            arrays.append(pa.array([value, None] * rows, width).cast(kind, safe=False))
        else:
            arrays.append(pa.array([value, None] * rows, kind))
    pq.write_table(pa.Table.from_arrays(arrays, names=[name for name, _ in columns]), path, version="2.6")


@given(columns=st.lists(st.tuples(_NAMES, _COLUMNS), min_size=1, max_size=4), rows=st.integers(0, 3))
@example(columns=[("text", (pa.timestamp("s"), 2**62))], rows=1)
@example(columns=[("text", (pa.timestamp("us", "No/Where"), 5))], rows=1)
@example(columns=[("text", (pa.string(), "a")), ("text", (pa.string(), "b"))], rows=1)
@tries(60, 5_000)
def test_parquet_of_every_kind(tmp_path_factory: pytest.TempPathFactory, columns: Any, rows: int) -> None:
    path = tmp_path_factory.getbasetemp() / "kinds.parquet"
    try:
        _written(path, columns, rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError):
        return  # nobody can write such a file
    with in_time():
        items = _items(path)
    _hold_up(items)
    assert isinstance(items, LcbatchError) or len(items) == 2 * rows


@given(
    cut=st.integers(0, 2000),
    at=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=6)), max_size=5),
    packing=st.sampled_from(["none", "snappy", "zstd"]),
)
@example(cut=0, at=[(2000, b"/p")], packing="none")
@tries(100, 20_000)
def test_parquet_that_is_damaged(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: list[tuple[int, bytes]], packing: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    table = pa.table({"text": ["some words", "é", None] * 9, "n": [1, 2, 3] * 9, "l": [["a"], [], None] * 9})
    pq.write_table(table, path, compression=packing)
    data = bytearray(path.read_bytes())
    for anywhere, put in at:
        place = anywhere % len(data)
        data[place : place + len(put)] = put
    path.write_bytes(data[: len(data) - cut % len(data) if cut % 4 == 0 else len(data)])
    with in_time():
        items = _items(path)
    _hold_up(items)


_CONTENTS = st.one_of(
    TEXTS,
    JSON,
    st.lists(
        with_members(
            "type text image_url input_audio file refusal source_type", JSON | st.sampled_from(["text", "image_url"])
        )
    ),
)
_ROLES = st.sampled_from(["user", "system", "assistant", "tool", "developer", "function", "ai", "human", ""])
_MESSAGES = st.one_of(
    JSON,
    st.lists(
        st.fixed_dictionaries(
            {"role": _ROLES | JSON, "content": _CONTENTS},
            optional=dict.fromkeys(("name", "tool_calls", "tool_call_id", "id", "type", "additional_kwargs"), JSON),
        )
        | JSON,
        max_size=3,
    ),
)
_PARAMETERS = (
    "temperature max_tokens stop seed tools tool_choice response_format n stream user logprobs metadata extra_body"
)
_BODIES = st.one_of(
    JSON,
    st.builds(lambda parameters, messages: {**parameters, "messages": messages}, with_members(_PARAMETERS), _MESSAGES),
)
_ANSWER = json.dumps(
    {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
).encode()


class _Wire:
    """Answers whatever is asked, once it is JSON."""

    heard = None

    async def post(self, data: bytes, headers: Mapping[str, str]) -> Response:
        assert headers is not None
        assert isinstance(jsontext.loads(data), dict)
        return Response(200, {"Content-Type": "application/json"}, _ANSWER)

    async def aclose(self) -> None:
        """Nothing is open."""


def _chain() -> RequestChain:
    from lcbatch.calls.asking import invoking  # noqa: PLC0415 - they load LangChain
    from lcbatch.models.openai import FastChatOpenAI  # noqa: PLC0415

    chat = FastChatOpenAI(model="sim", base_url="http://127.0.0.1:9/v1", api_key=SecretStr("k"), max_retries=0)
    chat.over(_Wire())  # type: ignore[arg-type]  # what of a Wire is used
    frame = chat.framed()
    through = invoking(lambda: chat)

    def ask(request: Request) -> Any:
        frame.body(request)
        return through(request)

    call = direct(ask, label="m", timeout_s=5.0, price=lambda *_: None, clock=lambda: 0.0, emit=Events())
    return RequestChain(call, None, {}, row_models=False)


@given(fields=st.fixed_dictionaries({}, optional={"messages": _MESSAGES, "body": _BODIES, "prompt": JSON}))
@example(fields={"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})
@example(fields={"body": {"messages": [{"role": "user", "content": "x"}], "tools": 5, "response_format": []}})
@example(fields={"messages": [{"role": "assistant", "content": "x", "tool_calls": [1]}]})
@example(fields={"messages": [{"role": "user", "content": "\ud800"}]})
@example(fields={"messages": [{"role": [], "content": ""}]})
@example(fields={"messages": [{"role": "user", "content": [{"type": []}]}]})
@example(fields={"body": {"messages": [{"role": "user", "content": "x"}], "metadata": {"a": "b"}, "tags": 1}})
@example(fields={"body": {"messages": [{"role": "user", "content": "x"}], "extra_headers": {"a": "b"}}})
@example(fields={"messages": [{"role": "assistant", "content": "", "tool_calls": '"'}]})
@example(fields={"messages": [{"role": "user", "content": [{"type": "image", "source_type": {}}]}]})
@tries(100, 20_000)
def test_rows_that_are_requests(fields: dict[str, Json]) -> None:
    chain = _chain()
    if chain.missing(fields) is not None:
        return
    with in_time():
        said = _answered(chain, fields)
    if isinstance(said, Failure):
        assert said.kind in {Kind.BAD_ROW, Kind.INVALID_REQUEST}, said
        assert said.message
    else:
        assert said == "hi"


def _answered(chain: RequestChain, fields: dict[str, Json]) -> Json | Failure:
    try:
        return run_virtual(chain(fields))
    except CallFailed as failed:
        return failed.failure


def _loaded(path: Path) -> AnswerSchema | LcbatchError:
    try:
        return load_schema(str(path))
    except LcbatchError as error:
        return error


_TYPES = st.sampled_from(["object", "string", "integer", "number", "array", "null", "boolean", "any", ""])
_REFERENCES = st.sampled_from(
    ["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "http://169.254.169.254/x", "#/a/~1", "a.json"]
)
_ANY: st.SearchStrategy[Json] = st.deferred(lambda: JSON)
"""By another name: Hypothesis would write out all of JSON wherever it describes what is made of it."""

_SCHEMAS: st.SearchStrategy[Json] = st.recursive(
    with_members("type enum const pattern minimum format title required multipleOf default", _ANY)
    | st.fixed_dictionaries({"type": _TYPES | st.lists(_TYPES, max_size=2)})
    | st.fixed_dictionaries({"$ref": _REFERENCES | _ANY}),
    lambda inner: st.fixed_dictionaries(
        {"type": _TYPES},
        optional={
            "properties": st.dictionaries(st.sampled_from(["a", "b", "", "é"]), inner, max_size=2),
            "$defs": st.fixed_dictionaries({"a": inner}, optional={"b": inner}),
            "items": inner | st.lists(inner, max_size=2),
            "anyOf": st.lists(inner, max_size=2),
            "additionalProperties": inner | st.booleans(),
            "patternProperties": st.dictionaries(st.deferred(lambda: TEXTS), inner, max_size=1),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "$schema": st.sampled_from(["http://json-schema.org/draft-04/schema#", "https://x/y", "", "#"]) | _ANY,
            "$id": _ANY,
        },
    ),
    max_leaves=6,
)
_LOOP = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # Python's, of a pattern that it takes all the same
@given(schema=_SCHEMAS | JSON, value=st.fixed_dictionaries({}, optional={"a": JSON, "b": JSON}))
@example(schema=_LOOP, value={"a": 1})
@example(schema={"type": "object", "patternProperties": {"[": {}}}, value={"a": 1})
@example(schema={"type": "object", "patternProperties": {"[[": {}}}, value={"a": 1})
@example(schema={"type": "object", "properties": {"a": {"pattern": "("}}}, value={"a": "x"})
@example(schema={"type": "object", "properties": {"a": {"multipleOf": 1e-300}}}, value={"a": 1e308})
@tries(150, 20_000)
def test_json_schemas(tmp_path_factory: pytest.TempPathFactory, schema: Json, value: dict[str, Json]) -> None:
    path = tmp_path_factory.getbasetemp() / "schema.json"
    path.write_text(json.dumps(schema))
    with in_time():
        found = _loaded(path)
        if isinstance(found, AnswerSchema):
            _judged(found, value)
        else:
            assert found.message.startswith(f"--schema {path}")


def _judged(schema: AnswerSchema, value: dict[str, Json]) -> None:
    assert jsontext.dumps(dict(schema.response_format))
    assert jsontext.dumps(dict(schema.identity))
    assert all(type(name) is str for name in schema.names)
    try:
        schema.read(jsontext.dumps(value))
    except Misfit as misfit:
        assert str(misfit)  # noqa: PT017 - that it is said is the point


@given(data=st.binary(max_size=40) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(data=b"\xff")
@example(data=b'{"type": "object", "a": ' + b"[" * 5000)
@tries(60, 5_000)
def test_schema_files_that_are_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "none.json"
    path.write_bytes(data)
    with in_time():
        found = _loaded(path)
    assert isinstance(found, LcbatchError), "no object is a schema by chance"
    assert found.message
