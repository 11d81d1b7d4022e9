"""Replies that belong to their requests, and how documents were cut: both outlast the row that they were made for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lcbatch.errors import Failure, Kind
from lcbatch.records import Failed, Reply, Usage
from lcbatch.store.run_store import RunStore

from .support import keyed_all, pending_of, read_whole, store_at

_KEY = b"k" * 16
_REPLY = Reply("of a part", {"role": "assistant", "content": "of a part"}, "sim", "stop", Usage(30, 5), 0.25, 1.5, 2)


async def spent(store: RunStore) -> tuple[float, int]:
    found = await store.spent()
    return found.usd, found.tokens


def test_a_shared_reply_outlasts_its_row_and_is_known_to_be_whose(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            (first,) = pending_of(await read_whole(store, keyed_all("a")))
            store.replies.keep_shared(first, _KEY, _REPLY)
        async with store_at(tmp_path / "s") as store:
            (edited,) = pending_of(await read_whole(store, keyed_all("b")))
            assert store.replies.shared_reply(edited, _KEY) == (_REPLY, False)
            assert store.replies.shared_reply(first, _KEY) == (_REPLY, True)
            assert store.replies.shared_reply(first, b"x" * 16) is None
            assert store.replies.reply(first, _KEY) is None, "it is not under the row"
            assert await spent(store) == (0.25, 35)

    asyncio.run(main())


def test_a_retry_keeps_what_is_shared_and_counts_it_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            (row,) = pending_of(await read_whole(store, keyed_all("a")))
            store.replies.keep_shared(row, _KEY, _REPLY)
            store.replies.keep_reply(row, b"o" * 16, _REPLY)
            await store.put([Failed(row, Failure(Kind.REFUSAL, "no"))])
        async with store_at(tmp_path / "s") as store:
            assert (await store.requeue(None)).rows == 1
            assert store.replies.shared_reply(row, _KEY) == (_REPLY, True)
            assert store.replies.reply(row, b"o" * 16) is None
            assert await spent(store) == (0.5, 70)

    asyncio.run(main())


def test_what_two_rows_paid_for_the_same_request_counts_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            first, second = pending_of(await read_whole(store, keyed_all("ab")))
            store.replies.keep_shared(first, _KEY, _REPLY)
            store.replies.keep_shared(second, _KEY, _REPLY)
            assert await spent(store) == (0.5, 70)
            assert store.replies.shared_reply(first, _KEY) == (_REPLY, True), "the first one stays"

    asyncio.run(main())


def test_how_a_document_was_cut_is_kept_by_its_id_and_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        async with store_at(tmp_path / "s") as store:
            (row,) = pending_of(await read_whole(store, keyed_all("a")))
            assert store.replies.layout(row) is None
            for cuts in ([1, 2], [1, 3]):
                store.replies.keep_layout(row, {"cuts": cuts})
                await store.spent()  # whatever waits until it is written
            assert store.replies.layout(row) == {"cuts": [1, 3]}

    asyncio.run(main())
