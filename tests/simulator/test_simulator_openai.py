"""The openai client takes it for the real thing."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from openai.types.chat import ChatCompletionToolParam

from lcbatch.simulator.answers import answer_for
from lcbatch.simulator.embeddings import embedding_for
from lcbatch.simulator.server import serve
from lcbatch.simulator.settings import Settings

from .wire import chat

CLOCK: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"properties": {"zone": {"type": "string"}}}},
}


async def _talk(client: openai.AsyncOpenAI) -> None:
    messages = chat()["messages"]
    answer = await client.chat.completions.create(model="sim", messages=messages)
    assert answer.choices[0].message.content == answer_for(chat())
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0

    said = ""
    stream = await client.chat.completions.create(model="sim", messages=messages, stream=True)
    async for chunk in stream:
        said += chunk.choices[0].delta.content or ""
    assert said == answer_for(chat())

    called = await client.chat.completions.create(model="sim", messages=messages, tools=[CLOCK])
    assert called.choices[0].finish_reason == "tool_calls"
    [call] = called.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "clock"
    assert "zone" in json.loads(call.function.arguments)

    # Without a format the client asks for base64 and decodes it to 32-bit floats.
    vectors = await client.embeddings.create(model="e", input=["a", "b"], dimensions=8)
    assert vectors.data[1].embedding == pytest.approx(embedding_for("b", 8, "e"), rel=1e-6)

    assert [model.id async for model in client.models.list()] == ["sim", "sim-embedding"]
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="sim", messages=[{"role": "user", "content": "[[fault:quota]]"}])
    assert caught.value.code == "insufficient_quota"


def test_chat_stream_tools_embeddings_models_and_errors() -> None:
    async def scenario() -> None:
        async with (
            serve(Settings(require_key="sk-test")) as running,
            openai.AsyncOpenAI(api_key="sk-test", base_url=running.base_url, max_retries=0) as client,
        ):
            await _talk(client)

    asyncio.run(scenario())
