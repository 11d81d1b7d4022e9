"""The outermost layer: a call that was answered before is answered from the store, and every new answer goes there first."""

from __future__ import annotations

from dataclasses import dataclass

from lcbatch import jsontext
from lcbatch.ports import Call, Layer, Replies
from lcbatch.records import Json, Reply, Request, current_row


def stored(replies: Replies) -> Layer:
    """A layer over `replies`. A reply is on its way to disk before anybody can parse it.

    The key of a call is the hash of (row, chain, request, how many equal requests this row made before), so that a crash in
    a row's last step repays none of the steps before it. Of a shared request the row is left out of it; only what has a text is
    shared, so that a refusal is asked anew with its row. What another row has paid for is not charged again.
    """

    def wrap(inner: Call) -> Call:
        async def call(request: Request) -> Reply:
            scope = current_row.get()
            said = jsontext.digest(jsontext.canonical([request.messages, dict(request.params)]))
            times = scope.occurrence(said)
            of_request = (replies.chain_fingerprint, said, times.to_bytes(4, "little"))
            if request.shared and (found := replies.shared_reply(scope.row, jsontext.digest(*of_request))):
                shared_reply, own = found
                if own:
                    scope.charge(shared_reply, None)
                return shared_reply
            key = jsontext.digest(scope.row.key, *of_request)
            reply, shared = replies.reply(scope.row, key), False
            if reply is None:
                scope.calls_out += 1
                try:
                    reply = await inner(request)
                    shared = request.shared and bool(reply.text)
                    if shared:
                        replies.keep_shared(scope.row, jsontext.digest(*of_request), reply)
                    else:
                        replies.keep_reply(scope.row, key, reply)
                finally:
                    scope.call_ended()
            scope.charge(reply, None if shared else key)
            return reply

        return call

    return wrap


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
