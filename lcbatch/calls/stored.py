"""The outermost layer: a call that was answered before is answered from the store, and every new answer goes there first."""

from __future__ import annotations

from lcbatch import jsontext
from lcbatch.ports import Call, Layer, Replies
from lcbatch.records import Reply, Request, current_row


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
                try:
                    reply = await inner(request)
                    replies.keep_reply(scope.row, key, reply)
                finally:
                    scope.call_ended()
            scope.charge(reply, key)
            return reply

        return call

    return wrap
