"""What the executor does with one row: from its document through the chain to an outcome."""

from __future__ import annotations

import asyncio
import sysconfig
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

from lcbatch.calls.failures import failure_of, is_providers
from lcbatch.errors import OUT_OF_RESOURCES, CallFailed, Failure, Kind
from lcbatch.ports import Chain, Clock, DocumentReader, Work
from lcbatch.records import Account, Done, Failed, Outcome, Row, RowScope, current_row

Bound: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]
"""Bounds one row's work: TimeoutError out of it when its time is over."""


Settle: TypeAlias = Callable[[RowScope], Awaitable[None]]
"""Waits for a row's calls that are still out although its chain has ended."""


_INSTALLED = frozenset({"site-packages", "dist-packages"})
_NOT_THE_USERS = (sysconfig.get_path("stdlib"), Path(__file__).parent)


def make_work(
    chain: Chain, read: DocumentReader, clock: Clock, settle: Settle | None = None, bound: Bound = nullcontext
) -> Work:
    """What the executor does with one row: read its document, run the chain, and make an outcome of whatever happens."""

    async def outcome_of(row: Row, scope: RowScope) -> Outcome:
        try:
            fields = row.fields if row.document is None else {**row.fields, "text": await _text(row, read)}
            async with bound():
                output = await chain(fields)
        except CallFailed as error:
            return Failed(row, error.failure, _account(scope, clock, failed_attempts=error.attempts), _last(scope))
        except (asyncio.CancelledError, SystemExit) as error:
            if _is_ours(error, scope):
                raise
            ended = Failure(Kind.CHAIN, f"the chain ended itself by {error!r}")
            return Failed(row, ended, _account(scope, clock), _last(scope))
        except Exception as error:  # noqa: BLE001 - a chain's own exception, whatever it is, is this row's failure
            return Failed(row, _chain_failure(error), _account(scope, clock), _last(scope))
        return _done(row, output, scope, clock)

    async def work(row: Row) -> Outcome:
        if row.failure is not None:
            return Failed(row, row.failure)
        scope = RowScope(row, clock())
        before = current_row.set(scope)
        try:
            outcome = await outcome_of(row, scope)
            if scope.calls_out and settle is not None:
                await settle(scope)
        finally:
            # A worker that waits for its next row would keep this one, and a connection's timers the scope that opened it.
            current_row.reset(before)
            scope.last_reply = None
        return outcome

    return work


def _is_ours(error: BaseException, scope: RowScope) -> bool:
    """Whether a row is being cut off by the run. Anything else that cancels it comes from the chain itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (scope.cut_off or task is None or task.cancelling() > 0)


async def _text(row: Row, read: DocumentReader) -> str:
    assert row.document is not None
    return str(row.fields["text"]) if row.document.path == "-" else await read(row.document)


def _done(row: Row, output: object, scope: RowScope, clock: Clock) -> Done:
    """An output that is the last reply's own text points to it, so that it is stored once."""
    own = scope.last_reply is not None and scope.account.calls == 1 and scope.last_reply[1] == output
    account, key = _account(scope, clock), _last(scope)
    return Done(row, output, account, reply_key=key) if own else Done(row, output, account, made_of=key)


def _last(scope: RowScope) -> bytes | None:
    return scope.last_reply[0] if scope.last_reply is not None else None


def _account(scope: RowScope, clock: Clock, *, failed_attempts: int = 0) -> Account:
    account = scope.account
    return replace(account, latency_s=clock() - scope.started_s, attempts=account.attempts + failed_attempts)


def _chain_failure(error: Exception) -> Failure:
    """A provider's error keeps its own kind, and so does this machine's; anything else is the chain's."""
    if is_providers(error) or (isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES):
        return failure_of(error)
    return Failure(Kind.CHAIN, f"{type(error).__name__}: {error}"[:2000] + _where(error))


def _where(error: Exception) -> str:
    """The last line of the user's own code on the way of an error, as " (chain.py:12)"; empty where it passed none."""
    found, step = "", error.__traceback__
    while step is not None:
        path = step.tb_frame.f_code.co_filename
        if _is_users(path):
            found = f" ({Path(path).name}:{step.tb_lineno})"
        step = step.tb_next
    return found


@cache
def _is_users(path: str) -> bool:
    """Whether a source file is neither Python's, nor an installed package's, nor ours."""
    if path.startswith("<") or not _INSTALLED.isdisjoint(Path(path).parts):
        return False
    return not any(Path(path).is_relative_to(folder) for folder in _NOT_THE_USERS)
