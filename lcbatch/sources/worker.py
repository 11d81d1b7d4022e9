"""What a worker process runs: reads orders from its stdin, answers on its stdout, ends with its stdin."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from typing import BinaryIO, Final

from lcbatch import jsontext
from lcbatch.allocator import give_back
from lcbatch.errors import ConfigError, Kind
from lcbatch.records import Json
from lcbatch.sources.extract import Extraction, NoText, Unreadable
from lcbatch.sources.workers import FRAME_BYTES, framed

_ADDRESSES_BYTES: Final = 2 * 1024**3
"""Address space of a worker. What asks for more than that at once is refused before it is noticed how much it takes."""

_LONGEST_CAUSE: Final = 400
_MODULES: Final = {"html": "from_html", "pdf": "from_pdf", "docx": "from_docx", "loader": "from_loader"}


def main() -> None:
    """Serve until stdin ends. Whatever a library prints goes nowhere: stdout carries the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_memory()
    orders = os.fdopen(os.dup(0), "rb")
    with contextlib.suppress(BrokenPipeError):
        waiting = _Inbox(orders)
        sys.path += [entry for entry in waiting.next()["sys_path"] if entry not in sys.path]
        while True:
            for part in framed(_answer(waiting.next())):
                answers.write(part)
            answers.flush()


class _Inbox:
    """Takes orders from a thread, so that the end of the parent ends this process even in the middle of a document."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._arrived = threading.Semaphore(0)
        self._orders: list[dict[str, Json]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> dict[str, Json]:
        self._arrived.acquire()
        return self._orders.pop(0)

    def _listen(self) -> None:
        while size := int.from_bytes(self._stream.read(FRAME_BYTES), "little"):
            self._orders.append(jsontext.loads(self._stream.read(size)))
            self._arrived.release()
        os._exit(0)


def _limit_memory() -> None:
    give_back()
    with contextlib.suppress(ImportError, ValueError, OSError):
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES_BYTES, _ADDRESSES_BYTES))


def _answer(order: dict[str, Json]) -> dict[str, object]:
    asked = Extraction(order["path"], order["max_bytes"], order["encoding"], order["loader"])
    try:
        text = _read(order["kind"], asked, order["size"])
    except NoText as none:
        return {"text": str(none), "failure": Kind.NO_TEXT.value}
    except Unreadable as problem:
        return {"text": str(problem), "failure": Kind.BAD_ROW.value}
    except ConfigError as wrong:
        return {"text": wrong.message, "failure": "", "missing": wrong.hint}
    except Exception as problem:  # noqa: BLE001 - a library may raise anything on a broken file
        return {"text": _sentence(problem), "failure": Kind.BAD_ROW.value}
    return {"text": text, "failure": ""}


def _sentence(problem: Exception) -> str:
    if isinstance(problem, MemoryError):
        return "reading it takes too much memory; is it damaged?"
    if isinstance(problem, RecursionError):
        return "it is nested too deep to be read"
    return f"cannot be read ({type(problem).__name__}: {problem})"[:_LONGEST_CAUSE]


def _read(kind: str, asked: Extraction, size: int) -> str:
    try:
        if os.stat(asked.path).st_size != size:  # noqa: PTH116 - the name may hold undecodable bytes
            raise Unreadable("it changed since it was listed; run the same command again")
    except OSError as problem:
        raise Unreadable(f"cannot be read ({problem.strerror})") from problem
    extract = importlib.import_module(f"lcbatch.sources.{_MODULES[kind]}").extract
    text: str = extract(asked)
    if os.stat(asked.path).st_size != size:  # noqa: PTH116
        raise Unreadable("it changed while it was read; run the same command again")
    if not text.strip():
        raise NoText("there is no text in it")
    return text
