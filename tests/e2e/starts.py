"""`python -m lcbatch`, started in a tenth of its time: a process that has loaded the libraries forks one for each start.

Most of what an end-to-end test costs is the loading of Python and LangChain. `python -m tests.e2e.starts SOCKET` is that
process; `Starts` is how a test speaks to it, one start a connection, from any thread. What is started has the environment,
the working directory, the descriptors, `__main__` and `sys.path` that it would have; only its modules are there already,
so that what a start loads, how long it takes and how it looks to `ps` is for tests with processes of their own.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

CAN_FORK = sys.platform == "linux"
"""Elsewhere the system's own libraries do not survive a fork."""

_LOADED = (
    "lcbatch.cli.commands",
    "lcbatch.app",
    "typer._adapters",
    "uvloop",
    "langchain_openai",
    "lcbatch.models.lane",
)
"""None of them starts a thread when it is loaded, which a fork would lose."""

_STARTED_WITHIN_S = 60.0
_MOST_BYTES = 1 << 20
_NUMBER = struct.Struct("!i")


class Starts:
    """Owns that process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lcbatch-starts-")
        self._path = os.path.join(self._folder.name, "socket")  # noqa: PTH118 - the name that both ends are given
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.starts", self._path],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,  # it ends when we do
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the process that forks did not come up"

    def run(
        self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str | None, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end, as subprocess.run does. Raises subprocess.TimeoutExpired, with it killed."""
        with ExitStack() as stack:
            line = stack.enter_context(socket.socket(socket.AF_UNIX))
            line.settimeout(timeout_s)
            line.connect(self._path)
            their_in, our_in = (os.open(os.devnull, os.O_RDWR),) * 2 if stdin is None else os.pipe()
            (our_out, their_out), (our_err, their_err) = os.pipe(), os.pipe()
            wanted = json.dumps({"argv": list(arguments), "cwd": str(cwd), "env": dict(env)}).encode()
            socket.send_fds(line, [_NUMBER.pack(len(wanted))], [their_in, their_out, their_err])
            line.sendall(wanted)
            for fd in {their_in, their_out, their_err} - {our_in}:
                os.close(fd)
            feeding = threading.Thread(target=_feed, args=(our_in, (stdin or "").encode()))
            said, complained = _Reading(our_out), _Reading(our_err)
            for thread in (feeding, said, complained):
                thread.start()
            pid = _NUMBER.unpack(_exactly(line, _NUMBER.size))[0]
            try:
                code = _NUMBER.unpack(_exactly(line, _NUMBER.size))[0]
            except TimeoutError as error:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout_s) from error
            finally:
                for thread in (feeding, said, complained):
                    thread.join()
        return subprocess.CompletedProcess(list(arguments), code, said.text, complained.text)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(_STARTED_WITHIN_S)
        self._folder.cleanup()


@functools.cache
def starts() -> Starts:
    """The one of this process, started when it is first asked for."""
    running = Starts()
    atexit.register(running.close)
    return running


class _Reading(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self.text = ""

    def run(self) -> None:
        with os.fdopen(self._fd, encoding="utf-8") as pipe:
            self.text = pipe.read()


def _feed(fd: int, data: bytes) -> None:
    try:
        with os.fdopen(fd, "wb") as pipe:
            pipe.write(data)
    except BrokenPipeError:
        return  # it ended without reading all of it


def _exactly(line: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = line.recv(size - len(got))
        assert more, "the process that forks is gone"
        got += more
    return got


def _serve(path: str) -> None:
    """Fork for each connection one that waits for the run's end and tells it."""
    for name in _LOADED:
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread that no fork would have"  # noqa: PTH208 - it is counted
    gc.collect()
    gc.freeze()  # or each child's first collection would copy all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those that wait have ended
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while _is_called(door):
            line, _ = door.accept()
            with line:
                if os.fork() == 0:
                    door.close()
                    _attend(line)


def _is_called(door: socket.socket) -> bool:
    """Wait for a connection. False when stdin has ended, and with it whoever started us."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(door, select.POLLIN)
    return 0 not in {fd for fd, _ in poll.poll()}


def _attend(line: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, descriptors, _, _ = socket.recv_fds(line, _NUMBER.size, 3)
    wanted = json.loads(_exactly(line, _NUMBER.unpack(head)[0]))
    pid = os.fork()
    if pid == 0:
        line.close()
        _live(wanted, descriptors)
    for fd in descriptors:
        os.close(fd)
    line.sendall(_NUMBER.pack(pid))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    line.sendall(_NUMBER.pack(code))
    os._exit(0)


def _live(wanted: Mapping[str, object], descriptors: Sequence[int]) -> NoReturn:
    """Become the run: what a fresh process would have is set, and what this one has is let go."""
    for number, fd in enumerate(descriptors):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(str(wanted["cwd"]))
    os.environ.clear()
    os.environ.update(wanted["env"])  # type: ignore[call-overload]
    time.tzset()
    random.seed()
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as `python -m` has it
    sys.argv = ["lcbatch", *wanted["argv"]]  # type: ignore[misc]
    runpy.run_module("lcbatch", run_name="__main__", alter_sys=True)
    raise SystemExit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
