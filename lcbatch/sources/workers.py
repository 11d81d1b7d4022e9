"""Worker processes for reading that is heavy on the CPU, or that a broken file may crash or hang."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lcbatch import jsontext
from lcbatch.errors import ConfigError, Kind

FRAME_BYTES: Final = 8

_LOOK_S: Final = 0.01
"""The system tells nobody that a process grows. Unfolding fills some 10 MB in this time."""

_START: Final = "from lcbatch.sources.worker import main; main()"


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to read. `kind`: html, pdf, docx or loader; `size`: of the file when it was listed, in bytes.

    `memory_bytes`: what the whole process may take meanwhile, its program code with it; 0: no bound.
    """

    kind: str
    path: str
    size: int
    max_bytes: int
    encoding: str
    loader: str | None = None
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The text, or with `failure` a sentence that says why there is none."""

    text: str
    failure: Kind | None = None


class Workers:
    """At most `size` processes, each with one document at a time.

    A plain process with pipes instead of ProcessPoolExecutor: there one dead worker fails every document in flight
    without saying which one did it, and a hung one cannot be ended. Each is a fresh interpreter (nothing is forked, no
    lock or descriptor is inherited) in its own session, so that Ctrl-C in the terminal drains the run and not them; it
    ends by itself when this process is gone.
    """

    def __init__(self, size: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(size)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    async def run(self, order: Order) -> Answer:
        """Read one document. Raises ConfigError where a module that it needs is not installed.

        A worker that dies, or takes longer than `timeout_s`, fails this document alone; the next call replaces it.
        Cancelling ends the worker.
        """
        async with self._free:
            try:
                worker = self._idle.pop() if self._idle else await self._start()
            except OSError as problem:
                return Answer(f"no reader process could be started: {problem}", Kind.LOCAL)
            try:
                async with asyncio.timeout(self._timeout_s):
                    reply = await worker.ask_within(order)
            except TimeoutError:
                return Answer(f"reading it took longer than {self._timeout_s:g} s; is it damaged?", Kind.BAD_ROW)
            except (asyncio.IncompleteReadError, OSError):
                code = await worker.end()
                return Answer(_too_large(order) if worker.outgrown else _why_ended(code), Kind.BAD_ROW)
            else:
                self._idle.append(worker)
            finally:
                if worker not in self._idle:
                    self._all.discard(worker)
                    await asyncio.shield(worker.end())
        if reply.get("missing"):
            raise ConfigError(reply["text"], hint=reply["missing"])
        return Answer(reply["text"], Kind(reply["failure"]) if reply["failure"] else None)

    async def close(self) -> None:
        """End every worker, also a busy or hung one."""
        for worker in list(self._all):
            await worker.end()
        self._all.clear()
        self._idle.clear()

    async def _start(self) -> _Worker:
        # -P: the working directory is no place to import from; what else this process imports from is passed on.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-c",
            _START,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        worker = _Worker(process)
        self._all.add(worker)
        return worker


class _Worker:
    """One process and its protocol: frames of JSON, each after its length."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._greeted = False
        self.outgrown = False

    async def ask_within(self, order: Order) -> dict[str, str]:
        """Ask, and end the process once it takes more than `order.memory_bytes`: `outgrown` then says so.

        No limit of the system's would do: the parsers catch a failed allocation somewhere deep, and give what they have so far
        for the whole document (trafilatura did, a tenth of it). Nor would a thread of the process: a pattern holds it up.
        """
        watching = asyncio.create_task(self._watch(order.memory_bytes))
        try:
            return await self.ask(order)
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self, memory_bytes: int) -> None:
        """Nothing where there is no /proc."""
        statm = Path(f"/proc/{self._process.pid}/statm")
        with suppress(OSError, ProcessLookupError):
            while memory_bytes:
                if _taken_bytes(statm) > memory_bytes:
                    self.outgrown = True
                    os.killpg(self._process.pid, signal.SIGKILL)
                    return
                await asyncio.sleep(_LOOK_S)

    async def ask(self, order: Order) -> dict[str, str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        if not self._greeted:
            stdin.writelines(framed({"sys_path": [entry for entry in sys.path if entry]}))
            self._greeted = True
        stdin.writelines(framed(asdict(order)))
        await stdin.drain()
        size = int.from_bytes(await stdout.readexactly(FRAME_BYTES), "little")
        reply: dict[str, str] = jsontext.loads(await stdout.readexactly(size))
        return reply

    async def end(self) -> int:
        """Kill it and wait until it is gone; its exit code, negative for a signal. Safe to call again."""
        with suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        return await self._process.wait()


def _taken_bytes(statm: Path) -> int:
    return int(statm.read_bytes().split()[1]) * mmap.PAGESIZE


def _why_ended(code: int) -> str:
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"reading it ended the reader process ({cause}); is it damaged?"


def _too_large(order: Order) -> str:
    return f"reading it takes more than {order.memory_bytes >> 20} MB of memory; split it, or raise --reader-memory"


def framed(value: dict[str, object]) -> tuple[bytes, bytes]:
    """One message: its length in 8 bytes, then JSON."""
    body = jsontext.encoded(value)
    return len(body).to_bytes(FRAME_BYTES, "little"), body
