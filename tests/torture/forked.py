"""One run of lcbatch in a forked child, so that it can really be killed, or its disk be full, at the cost of milliseconds."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from lcbatch import choosing
from lcbatch.app import Retry, run_job
from lcbatch.calls import retry
from lcbatch.errors import CallFailed, Failure, Kind, LcbatchError
from lcbatch.job import Job, ModelOptions
from lcbatch.models import LoadedModel, identity_of, nothing_to_close
from lcbatch.records import Answer, Request, Usage
from lcbatch.store.writer import Writer, _Job
from lcbatch.world import World, library_world

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Fate:
    """What befalls a run: `what` happens at the `at`-th occasion of `where`, from 1 on.

    `where`: "asked" (a call arrives), "billed" (its answer is on its way), "commit" (before), "committed", "write" (half of it
    is on disk). `what`: "kill" is SIGKILL; "full" lets no file of ours grow beyond what the store's log has now.
    """

    what: str
    where: str
    at: int


@dataclass(frozen=True)
class Came:
    """What came of a run: its exit code (KILLED after a kill), every call that was asked, and every answer that was billed."""

    code: int
    asked: list[str] = field(default_factory=list)
    billed: dict[str, str] = field(default_factory=dict)
    said: str = ""


@dataclass(frozen=True)
class Provider:
    """Answers each prompt with a text that no other call has; `failing` says how prompts fail that hold such a letter."""

    first_number: int
    failing: dict[str, Kind]

    def verdict(self, prompt: str) -> Failure | None:
        """The failure of a prompt, None where it is answered."""
        kind = next((kind for letter, kind in self.failing.items() if prompt.endswith(letter)), None)
        return None if kind is None else Failure(kind, "no", maybe_paid=kind is Kind.TRUNCATED)


def forked(job: Job, provider: Provider, folder: Path, *, fate: Fate | None = None, again: Retry | None = None) -> Came:
    """Run a job in a child; what came of it."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # threads of the test runner, whose locks the child leaves alone
        child = os.fork()
    if child == 0:
        os.close(reading)
        _run_and_exit(job, provider, folder, fate, again, writing)
    os.close(writing)
    with os.fdopen(reading) as told:
        lines = [json.loads(line) for line in told if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    said = "".join(line["said"] for line in lines if "said" in line)
    return Came(
        code,
        [line["asked"] for line in lines if "asked" in line],
        {line["answer"]: line["billed"] for line in lines if "billed" in line},
        said,
    )


def _run_and_exit(
    job: Job, provider: Provider, folder: Path, fate: Fate | None, again: Retry | None, told: int
) -> NoReturn:
    """The child's whole life. It never returns into the test."""
    code = 1
    try:
        code = _Child(provider, fate, told, os.write).run(job, folder, again)
    except BaseException:  # noqa: BLE001 - told to the parent, which fails with it
        os.write(told, json.dumps({"said": traceback.format_exc()}).encode() + b"\n")
    finally:
        os._exit(code)


@dataclass
class _Child:
    provider: Provider
    fate: Fate | None
    told: int
    write: Callable[[int, Any], int]
    occasions: dict[str, int] = field(default_factory=dict)
    number: int = 0

    def run(self, job: Job, folder: Path, again: Retry | None) -> int:
        """Put ourselves in the provider's and the system's place, and run."""
        self.number = self.provider.first_number
        self.log = folder / "store-wal"
        vars(choosing)["load_model"] = self._model
        retry._ATTEMPTS.clear()  # how calls are retried is another test's; here each comes to something at once
        self._watch_writes()
        try:
            report = asyncio.run(run_job(job, _world(folder), again))
        except LcbatchError as error:
            self._tell(said=f"{type(error).__name__}: {error.message}")
            return error.exit_code
        if report.error is not None:
            self._tell(said=report.error.message)
        return report.exit_code

    def _model(self, options: ModelOptions, **_: object) -> LoadedModel:
        return LoadedModel(
            chat=_no_chat,
            label=str(options.model),
            identity=identity_of(str(options.model), {}),
            price=lambda _model, _usage: 0.0,
            local=True,
            takes_document_alone=False,
            aclose=nothing_to_close,
            ask=self._ask,
        )

    async def _ask(self, request: Request) -> Answer:
        prompt = str(request.messages[-1]["content"])
        self._tell(asked=prompt)
        self._met("asked")
        self.number += 1
        answer = f"{prompt}, {self.number}"
        for _ in range(self.number * 7 % 3):
            await asyncio.sleep(0)
        failure = self.provider.verdict(prompt)
        if failure is not None:
            raise CallFailed(failure)
        self._tell(answer=answer, billed=prompt)
        self._met("billed")
        return Answer(answer, {"role": "assistant", "content": answer}, "sim", "stop", Usage(5, 5))

    def _tell(self, **what: str) -> None:
        self.write(self.told, json.dumps(what).encode() + b"\n")

    def _met(self, where: str) -> bool:
        """Note an occasion; let happen what is to happen then. Says so, where it is not the end."""
        self.occasions[where] = self.occasions.get(where, 0) + 1
        fate = self.fate
        if fate is None or (fate.where, fate.at) != (where, self.occasions[where]):
            return False
        if fate.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        size = self.log.stat().st_size if self.log.exists() else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return True

    def _watch_writes(self) -> None:
        commit, write = Writer._commit, self.write

        def watched_commit(writer: Writer, group: list[_Job]) -> None:
            self._met("commit")
            commit(writer, group)
            self._met("committed")

        def watched_write(descriptor: int, data: Any) -> int:
            if self.fate is not None and self.fate.where == "write":
                half = memoryview(data)[: len(data) // 2]
                if self.occasions.get("write", 0) + 1 == self.fate.at and half:
                    write(descriptor, half)
                self._met("write")
            return write(descriptor, data)

        Writer._commit = watched_commit  # type: ignore[method-assign, assignment]
        os.write = watched_write


def _no_chat() -> NoReturn:
    raise AssertionError("it is asked without LangChain")


def _world(folder: Path) -> World:
    silent = Path(os.devnull).open("w")  # noqa: SIM115 - for the child's whole life
    return replace(library_world(), env={"XDG_STATE_HOME": str(folder / "state")}, stderr=silent)


def rows_in(store: Path, sql: str) -> Sequence[tuple[Any, ...]]:
    """What a query gives; nothing where there is no store yet."""
    if not store.exists():
        return []
    connection = sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise
    finally:
        connection.close()


CAN_FORK = sys.platform == "linux"
"""Elsewhere a forked child may not use what its parent has loaded."""
