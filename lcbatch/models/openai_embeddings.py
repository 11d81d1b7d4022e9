"""The fast lane for embeddings: what OpenAIEmbeddings would send, over aiohttp, and vectors that stay packed.

LangChain says what goes into the request and where to; between that and the vectors its own way parses each number, packs it into
a list and checks it against a model. The parity tests hold the vectors to what `aembed_documents` gives.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from yarl import URL

from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.models.completions import refuse_no_object
from lcbatch.models.embedders import vectors_answer
from lcbatch.models.straight import refuse_unsendable
from lcbatch.models.wire import Heard, StatusError, Wire
from lcbatch.records import Answer, Request, Usage
from lcbatch.vectors import is_packed, packed

if TYPE_CHECKING:
    from langchain_openai import OpenAIEmbeddings


class OpenAILane:
    """Asks an OpenAI-shaped provider for vectors, as these embeddings would.

    `connections` should be no less than the requests in flight; `env` may have given headers, and ConfigError is
    raised for one that cannot be sent. Timeouts are the caller's affair. Raises what Wire raises, StatusError, and CallFailed or
    UnreadableAnswer for a success that holds no vectors.
    """

    def __init__(self, embeddings: OpenAIEmbeddings, connections: int, env: Mapping[str, str]) -> None:
        sdk = embeddings.async_client._client  # noqa: SLF001 - its one way to the client
        address = URL(str(sdk.base_url).rstrip("/") + "/embeddings").extend_query(sdk.default_query)
        named = {**sdk.default_headers, **sdk.auth_headers}
        headers = {name: value for name, value in named.items() if isinstance(value, str)}
        refuse_unsendable(headers, env)
        self._parameters = {"encoding_format": "base64", **embeddings._invocation_params}  # noqa: SLF001 - LangChain's own
        self._wire = Wire(str(address), headers, connections=connections)

    def listen(self, heard: Heard) -> None:
        """`heard` is told the headers of every response."""
        self._wire.heard = heard

    def ask(self, request: Request) -> Awaitable[Answer]:
        """ports.Ask: the messages are texts."""
        return self._asked(list(request.messages), request.params)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()

    async def _asked(self, texts: list[str], more: Mapping[str, Any]) -> Answer:
        response = await self._wire.post(_body({**self._parameters, **more, "input": texts}), {})
        if not response.is_success:
            raise StatusError(response)
        body = refuse_no_object(response.parsed(), "list of embeddings")
        if isinstance(body.get("error"), dict):
            raise ValueError(body["error"])  # noqa: TRY004 - inside a 200, as OpenRouter does; told as LangChain tells it
        data = body.get("data")
        if not isinstance(data, list):
            raise _no_vectors("no embeddings in the answer")
        counted = body.get("usage")
        usage: dict[str, Any] = counted if isinstance(counted, dict) else {}
        told = Usage.told(usage.get("prompt_tokens") or usage.get("total_tokens"))
        return vectors_answer(_in_order(data), texts, str(body.get("model") or ""), told)


def _body(payload: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:  # a lone surrogate: escaped, it is for the provider to judge
        return json.dumps(payload).encode()


def _in_order(data: list[Any]) -> list[str]:
    """The vectors, packed, in the order of the texts. Some servers answer in lists of numbers, whatever they are asked for."""
    if not all(isinstance(one, dict) for one in data):
        raise _no_vectors("an embedding in the answer is no object")
    try:
        ordered = sorted(data, key=lambda one: one.get("index") or 0)
        vectors = [one["embedding"] for one in ordered]
        whole = [vector if isinstance(vector, str) else packed(vector) for vector in vectors]
    except (KeyError, TypeError, ValueError) as error:
        raise _no_vectors("an embedding in the answer is no list of numbers") from error
    if not all(map(is_packed, whole)):
        raise _no_vectors("an embedding in the answer is no base64 of 32-bit floats")
    return whole


def _no_vectors(what: str) -> CallFailed:
    return CallFailed(Failure(Kind.BAD_BODY, what, maybe_paid=True))
