"""The outermost layer: a call that was answered before is answered from the store, and every new answer goes there first."""

from __future__ import annotations

from lcbatch import jsontext
from lcbatch.ports import Call, Layer, Replies
from lcbatch.records import Reply, Request, Row, current_row, keep_now


def stored(replies: Replies) -> Layer:
    """A layer over `replies`. A reply is on its way to disk before anybody can parse it.

    The key of a call is the hash of (row, chain, request, how many equal requests this row made before), so that a crash in
    a row's last step repays none of the steps before it.
    """

    def wrap(inner: Call) -> Call:
        async def call(request: Request) -> Reply:
            scope = current_row.get()
            said = jsontext.digest(jsontext.canonical([request.messages, dict(request.params)]))
            times = scope.occurrence(said)
            key = jsontext.digest(scope.row.key, replies.chain_fingerprint, said, times.to_bytes(4, "little"))
            reply = replies.reply(scope.row, key)
            if reply is None:
                scope.calls_out += 1
                keep = _Keep(replies, scope.row, key)
                token = keep_now.set(keep)
                try:
                    reply = await inner(request)
                    keep(reply)
                finally:
                    keep_now.reset(token)
                    scope.call_ended()
            scope.charge(reply, key)
            return reply

        return call

    return wrap


class _Keep:
    """Keeps one call's reply, once."""

    def __init__(self, replies: Replies, row: Row, key: bytes) -> None:
        self._replies = replies
        self._row = row
        self._key = key
        self._kept = False

    def __call__(self, reply: Reply) -> None:
        if not self._kept:
            self._kept = True
            self._replies.keep_reply(self._row, self._key, reply)
