"""A reply on its way to disk, as the layers between the provider and the store see it.

`stored` says how the reply to the call that is being made is kept. A layer below may have it kept earlier than it would be
(one request brought the replies of many rows), and may hold something until the reply is committed: a slot that was free as
soon as its answer came would let a killed process lose more answers than it had calls in flight.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from lcbatch.records import Reply


class Keeping:
    """One call's reply. What is held is let go once the reply is committed, or when the call comes to nothing.

    This one keeps nothing: it stands for a call that brings many replies, and is handed `over` to the last of them.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[Callable[[], None]] = []

    def keep(self, reply: Reply) -> None:
        """Put it on its way to disk, if it is not already."""

    def hold(self, let_go: Callable[[], None]) -> None:
        """`let_go` is called once."""
        self._held.append(let_go)

    def over(self, last: Keeping | None) -> None:
        """Hold until the reply of `last` is committed, and all that were put on their way before it."""
        if last is None:
            self.let_go()
        else:
            last.hold(self.let_go)

    def let_go(self) -> None:
        """Nothing is to be waited for any more."""
        held, self._held = self._held, []
        for let_go in held:
            let_go()


keeping: ContextVar[Keeping] = ContextVar("lcbatch_keeping")
"""The reply to the call that is being made; unset outside of a store."""
