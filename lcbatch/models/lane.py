"""A model of OpenAI's protocol for built-in chains: what is plain goes past LangChain, which loads when something else comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from lcbatch.messages import answer_of, message_of
from lcbatch.models.completions import understood
from lcbatch.models.outline import Outline
from lcbatch.models.plain import plain_answer
from lcbatch.models.wire import StatusError, Wire
from lcbatch.ports import Ask
from lcbatch.records import Answer, Request, answer_came

if TYPE_CHECKING:
    from lcbatch.models.openai import FastChatOpenAI
    from lcbatch.models.wire import Heard


class Lane:
    """Plain requests over one wire, all others through the chat model over the same wire. `build` makes that model.

    Plain means text by the system, the user and the assistant, answered by text. `longest`: tokens that an answer can have;
    `context`: those that the model takes in; `objects`: the way in which it is asked for one.
    """

    def __init__(self, outline: Outline, build: Callable[[], FastChatOpenAI], wire: Wire) -> None:
        self.longest = outline.longest
        self.objects = outline.objects
        self.context = outline.context
        self._frame = outline.frame
        self._build = build
        self._wire = wire
        self._chat: FastChatOpenAI | None = None
        self._loading = asyncio.Lock()

    def listen(self, heard: Heard) -> None:
        """Who is told the headers of every response. Has to be said before the first call."""
        self._wire.heard = heard

    def chat(self) -> FastChatOpenAI:
        """LangChain's model, loaded now if it was not."""
        if self._chat is None:
            chat = self._build()
            chat.heard = self._wire.heard
            chat.over(self._wire)
            self._chat = chat
        return self._chat

    def shortcut(self, otherwise: Ask) -> Ask:
        """ports.Ask for plain requests; all else is asked as `otherwise` does.

        Raises what ChatOpenAI raises, but for refusals, faults of the connection and what is no answer, which come as the wire
        and `understood` raise them: the verdict on them is the same.
        """

        def ask(request: Request) -> Awaitable[Answer]:
            data = self._frame.body(request)
            return otherwise(request) if data is None else self._plain(data)

        return ask

    async def _plain(self, data: bytes) -> Answer:
        response = await self._wire.post(data, self._frame.headers)
        if not response.is_success:
            raise StatusError(response)
        body = response.parsed()
        answer = plain_answer(body)
        if answer is not None:
            return answer
        understood(body)  # what is no answer needs no LangChain to be refused
        answer_came.get()()
        async with self._loading:  # in a thread: the calls in flight go on meanwhile
            chat = self._chat if self._chat is not None else await asyncio.to_thread(self.chat)
        return answer_of(message_of(chat.result(body)))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._chat is not None:
            await self._chat.aclose()
        await self._wire.aclose()
