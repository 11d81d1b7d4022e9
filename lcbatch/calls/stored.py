"""The outermost layer: a call that was answered before is answered from the store, and every new answer goes there first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.calls.keeping import Keeping, keeping
from lcbatch.calls.waiting import unhurried
from lcbatch.ports import Call, Layer, Replies, Wait
from lcbatch.records import Json, Reply, Request, RowScope, current_row


def stored(replies: Replies, *, wait: Wait = unhurried) -> Layer:
    """A layer over `replies`. A reply is on its way to disk before anybody can parse it.

    The key of a call is the hash of (row, chain, request, how many equal requests this row made before), so that a crash in
    a row's last step repays none of the steps before it: a call goes out once the replies that its row already has are
    committed, which `wait` waits for. Of a shared request the row is left out of it; only what has a text is
    shared, so that a refusal is asked anew with its row. What another row has paid for is not charged again, and what another
    row is being answered right now is waited for: a document that lies in two places is asked once.
    """

    return lambda inner: _Stored(replies, inner, wait)


class _Stored:
    """The call of one layer. `_out` are the shared requests that are being asked, each with what those who wait will get."""

    def __init__(self, replies: Replies, inner: Call, wait: Wait) -> None:
        self._replies = replies
        self._inner = inner
        self._wait = wait
        self._out: dict[bytes, asyncio.Future[Reply | None]] = {}

    async def __call__(self, request: Request) -> Reply:
        scope = current_row.get()
        said = jsontext.digest_of([request.messages, dict(request.params)])
        times = scope.occurrence(said)
        of_request = (self._replies.chain_fingerprint, said, times.to_bytes(4, "little"))
        key = jsontext.digest(scope.row.key, *of_request)
        if request.shared:
            # Samples are independent in all of their steps.
            sample = (scope.row.sample.to_bytes(4, "little"),) if scope.row.sample else ()
            return await self._shared(request, scope, key, jsontext.digest(*of_request, *sample))
        return (await self._own(request, scope, key, None))[0]

    async def _shared(self, request: Request, scope: RowScope, key: bytes, shared_key: bytes) -> Reply:
        while True:
            if found := self._replies.shared_reply(scope.row, shared_key):
                reply, own = found
                if own:
                    scope.charge(reply, None)
                return reply
            if (others := self._out.get(shared_key)) is None:
                break
            # Shielded: this row may be cut off while others wait for the same.
            if (awaited := await asyncio.shield(others)) is not None:
                await self._wait(self._replies.all_kept())
                return awaited
        ours = self._out[shared_key] = asyncio.get_running_loop().create_future()
        for_others = None
        try:
            reply, is_shared = await self._own(request, scope, key, shared_key)
            for_others = reply if is_shared else None
        finally:
            del self._out[shared_key]
            ours.set_result(for_others)
        return reply

    async def _own(self, request: Request, scope: RowScope, key: bytes, shared_key: bytes | None) -> tuple[Reply, bool]:
        """The reply that the row itself has or gets, and whether it was kept for others."""
        keep = _Kept(self._replies, scope, key, shared_key)
        reply = self._replies.reply(scope.row, key)
        if reply is None:
            scope.calls_out += 1
            token = keeping.set(keep)
            try:
                if scope.unkept:
                    await self._wait(self._replies.all_kept())
                reply = await self._inner(request)
                keep.keep(reply)
            finally:
                keeping.reset(token)
                keep.call_ended()
                scope.call_ended()
        scope.charge(reply, None if keep.shared else key)
        return reply, keep.shared


class _Kept(Keeping):
    """Keeps one call's reply, once: as the row's own, or under `shared_key` for whatever row asks the same.

    A reply without text stays the row's own, so that a retry asks anew. `shared` says that it was kept for others.
    """

    __slots__ = ("_is_kept", "_key", "_replies", "_scope", "_shared_key", "shared")

    def __init__(self, replies: Replies, scope: RowScope, key: bytes, shared_key: bytes | None) -> None:
        super().__init__()
        self._replies = replies
        self._scope = scope
        self._key = key
        self._shared_key = shared_key
        self._is_kept = False
        self.shared = False

    def keep(self, reply: Reply) -> None:
        if self._is_kept:
            return
        self._is_kept = True
        self._scope.unkept += 1
        if self._shared_key is not None and reply.text:
            self.shared = True
            self._replies.keep_shared(self._scope.row, self._shared_key, reply, self._committed)
        else:
            self._replies.keep_reply(self._scope.row, self._key, reply, self._committed)

    def call_ended(self) -> None:
        """Where nothing was kept there is nothing to wait for."""
        if not self._is_kept:
            self.let_go()

    def _committed(self) -> None:
        self._scope.unkept -= 1
        self.let_go()


@dataclass(frozen=True, slots=True)
class StoredLayouts:
    """ports.Layouts over the replies' store, for the row that is being run; outside of one there are none."""

    replies: Replies

    def recall(self) -> Json | None:
        scope = current_row.get(None)
        return None if scope is None else self.replies.layout(scope.row)

    def note(self, layout: Json) -> None:
        if (scope := current_row.get(None)) is not None:
            self.replies.keep_layout(scope.row, layout)
