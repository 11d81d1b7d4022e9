"""What becomes of a row whose chain behaves oddly, in virtual time: nothing that is paid for is thrown away, nothing hangs."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lcbatch.calls.stored import stored
from lcbatch.errors import CallFailed, Failure, Kind
from lcbatch.execute.local import LocalExecutor
from lcbatch.execute.shutdown import Patience
from lcbatch.execute.virtual_time import run_virtual
from lcbatch.ports import Call
from lcbatch.records import Document, Failed, Fields, Json, Outcome, Reply, Request
from lcbatch.testing import FakeChain, MemoryReplies, rows_of
from lcbatch.work import make_work


@dataclass
class _Own(FakeChain):
    """A user's chain over one call stack."""

    run: Callable[[Call], Awaitable[Json]] | None = None
    call: Call | None = None

    async def __call__(self, fields: Fields) -> Json:  # noqa: ARG002 - a chain by its shape
        assert self.run is not None
        assert self.call is not None
        return await self.run(self.call)


@dataclass
class _Trial:
    replies: MemoryReplies = field(default_factory=MemoryReplies)
    patience: Patience = field(default_factory=Patience)
    sent: list[str] = field(default_factory=list)

    def call(self) -> Call:
        """`wait ...` stands in the queue for 5 s first, `fail` fails at once; each call takes 10 s."""

        async def inner(request: Request) -> Reply:
            text = str(request.messages[0])
            if text.startswith("wait"):
                await self.patience.sleep(5.0)
            self.sent.append(text)
            if text == "fail":
                raise CallFailed(Failure(Kind.INVALID_REQUEST, "no"))
            await asyncio.sleep(10.0)
            return Reply(text, {}, "m")

        return stored(self.replies)(inner)

    async def rows(self, chain: Callable[[Call], Awaitable[Json]], rows: int = 1, window: int = 1) -> list[Outcome]:
        executor = LocalExecutor(window, lambda _: None)
        work = make_work(
            _Own(run=chain, call=self.call()), _no_document, asyncio.get_running_loop().time, self.patience.settled
        )
        ended: list[Outcome] = []
        async with executor.run(rows_of(rows), work) as groups:
            async for group in groups:
                ended += group
        return ended

    @property
    def kept(self) -> list[str]:
        return sorted(reply.text for reply in self.replies.kept.values())


async def _no_document(document: Document) -> str:
    raise AssertionError(document)


def _ask(call: Call, *texts: str) -> Awaitable[list[Reply]]:
    return asyncio.gather(*(call(Request([text])) for text in texts))


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(0), SystemExit("enough")])
@pytest.mark.parametrize("window", [1, 3])
def test_a_chain_that_ends_itself_is_a_failed_row(error: BaseException, window: int) -> None:
    async def chain(call: Call) -> Json:  # noqa: ARG001 - it makes none
        raise error

    ended = run_virtual(_Trial().rows(chain, rows=5, window=window))
    assert len(ended) == 5
    assert {outcome.failure.kind for outcome in ended if isinstance(outcome, Failed)} == {Kind.CHAIN}


@pytest.mark.parametrize(("folder", "where"), [("mine", "chain.py:5"), ("site-packages", "test_work.py")])
def test_a_chains_own_error_says_where_in_the_users_code_it_arose(tmp_path: Path, folder: str, where: str) -> None:
    """The last line that is the user's, which no library's is: here the one that calls what is installed."""
    code = tmp_path / folder / "chain.py"
    code.parent.mkdir()
    code.write_text("import json\n\n\nasync def chain(call):\n    return json.loads('{')\n")

    (failed,) = run_virtual(_Trial().rows(runpy.run_path(str(code))["chain"]))

    assert isinstance(failed, Failed)
    error = "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert failed.failure.message.startswith(f"{error} ({where}")


def test_a_stop_leaves_a_row_until_its_call_on_the_wire_has_ended() -> None:
    async def main() -> None:
        trial = _Trial()

        async def chain(call: Call) -> Json:
            return [reply.text for reply in await _ask(call, "paid", "wait")]

        asyncio.get_running_loop().call_later(1.0, trial.patience.end)
        assert await trial.rows(chain) == []
        assert trial.kept == ["paid"]
        assert trial.sent == ["paid"]
        assert asyncio.get_running_loop().time() == 10.0

    run_virtual(main())


def test_a_stop_cuts_off_at_once_what_only_waits() -> None:
    async def main() -> None:
        trial = _Trial()

        async def chain(call: Call) -> Json:
            return [reply.text for reply in await _ask(call, "wait 1", "wait 2")]

        asyncio.get_running_loop().call_later(1.0, trial.patience.end)
        assert await trial.rows(chain) == []
        assert trial.sent == []
        assert asyncio.get_running_loop().time() == 1.0

    run_virtual(main())


def test_when_one_branch_fails_the_others_answer_is_kept_and_what_waits_is_not_sent() -> None:
    async def main() -> None:
        trial = _Trial()

        async def chain(call: Call) -> Json:
            return [reply.text for reply in await _ask(call, "paid", "wait", "fail")]

        ended = await trial.rows(chain)
        assert [type(outcome) for outcome in ended] == [Failed]
        assert trial.kept == ["paid"]
        assert trial.sent == ["paid", "fail"]

    run_virtual(main())


def test_cutting_off_the_executor_does_not_wait_for_such_calls() -> None:
    async def main() -> None:
        trial = _Trial()
        executor = LocalExecutor(1, lambda _: None)

        async def chain(call: Call) -> Json:
            return [reply.text for reply in await _ask(call, "paid", "fail")]

        work = make_work(
            _Own(run=chain, call=trial.call()), _no_document, asyncio.get_running_loop().time, trial.patience.settled
        )
        asyncio.get_running_loop().call_later(1.0, executor.cancel)
        async with executor.run(rows_of(1), work) as groups:
            assert [group async for group in groups] == []
        assert asyncio.get_running_loop().time() == 1.0

    run_virtual(main())
