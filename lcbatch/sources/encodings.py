"""From the bytes of a file to UTF-8 bytes: byte order marks, other encodings, and what is no text."""

from __future__ import annotations

import codecs
from typing import Final

from lcbatch.errors import UsageError

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""UTF-32 before UTF-16: the little-endian mark of the first begins with that of the second."""

_UTF8: Final = frozenset({"utf-8", "utf-8-sig"})

UNDECODABLE: Final = b"\xff"
"""Stands for bytes that are no text in the source's encoding: no UTF-8 has it, so the row that holds it fails."""

_LONE: Final = "surrogatepass"
"""A lone surrogate that a codec lets through becomes bytes that are no UTF-8, as `UNDECODABLE` does."""

_STEP: Final = 4096


def checked_encoding(name: str) -> str:
    """The codec's own name. Raises UsageError for one that Python does not know or that is no text encoding."""
    try:
        codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError) as problem:
        raise UsageError(
            f"--encoding cannot be {name!r}", hint="such as utf-8, latin-1, cp1252, shift_jis"
        ) from problem
    return codecs.lookup(name).name


class Transcoder:
    """Turns pieces of a file into pieces of UTF-8. A byte order mark at the beginning decides over `encoding`.

    UTF-8 passes through unchecked: the parsers check row by row.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._head: bytes | None = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, piece: bytes) -> bytes:
        if self._head is not None:
            head = self._head + piece
            if _may_become_mark(head):
                self._head = head
                return b""
            piece = self._begin(head)
        return piece if self._decoder is None else self._decode(piece, final=False)

    def finish(self) -> bytes:
        """What is left when the file ends, a cut character as `UNDECODABLE`."""
        rest = b"" if self._head is None else self._begin(self._head)
        return rest if self._decoder is None else self._decode(rest, final=True)

    def _begin(self, head: bytes) -> bytes:
        self._head = None
        mark, encoding = found if (found := mark_of(head)) else (b"", self._encoding)
        if encoding not in _UTF8:
            self._decoder = codecs.getincrementaldecoder(encoding)()
        return head.removeprefix(mark)

    def _decode(self, piece: bytes, *, final: bool) -> bytes:
        assert self._decoder is not None
        before = self._decoder.getstate()
        try:
            return self._decoder.decode(piece, final).encode("utf-8", _LONE)
        except UnicodeError:
            self._decoder.setstate(before)
        # Only pieces with faults come here; short steps keep a file full of faults from quadratic time.
        steps = [piece[at : at + _STEP] for at in range(0, len(piece), _STEP)] or [b""]
        return b"".join(self._decode_around(step, final=final and at == len(steps)) for at, step in enumerate(steps, 1))

    def _decode_around(self, piece: bytes, *, final: bool) -> bytes:
        assert self._decoder is not None
        parts: list[bytes] = []
        while True:
            before = self._decoder.getstate()
            try:
                parts.append(self._decoder.decode(piece, final).encode("utf-8", _LONE))
            except UnicodeDecodeError as fault:
                self._decoder.setstate((b"", before[1]))
                parts += [self._decoder.decode(fault.object[: fault.start]).encode("utf-8", _LONE), UNDECODABLE]
                piece = fault.object[max(fault.end, fault.start + 1) :]
            else:
                return b"".join(parts)


def mark_of(head: bytes) -> tuple[bytes, str] | None:
    """The byte order mark at the beginning and its encoding."""
    return next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), None)


def _may_become_mark(head: bytes) -> bool:
    """Whether more bytes are needed to tell. Text decides with its first byte, so a slow pipe is not held up."""
    return any(mark.startswith(head) and mark != head for mark, _ in _MARKS)


_EVERY_OTHER_NUL: Final = 0.3
_LOOK_CHARS: Final = 64 * 1024
_MOST_CONTROLS: Final = 0.05
"""Share of control characters above which a file is taken for pictures, archives and the like."""

_CONTROLS: Final = str.maketrans(
    "", "", "".join(chr(code) for code in range(32) if chr(code) not in "\t\n\r\f\v\b\x1b")
)
"""Takes them out of a text. Logs of terminals are text: what they colour and overstrike with counts for nothing."""


class NotText(ValueError):
    """A document that is no text, or not in its encoding: `problem` says what is wrong and where, `remedy` how to mend it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


def decode_text(raw: bytes, encoding: str) -> str:
    """A whole document as text, line ends as newlines.

    A byte order mark decides, then `encoding`; where that is UTF-8, UTF-16 without a mark is recognised by its NULs.
    Raises NotText for bytes that are no text in it, and for what is evidently binary: a model would be paid to read
    characters that nobody wrote.
    """
    mark, name = found if (found := mark_of(raw)) else (b"", encoding)
    if not mark and encoding in _UTF8:
        name = unmarked_utf16(raw) or encoding
    try:
        text = raw[len(mark) :].decode(name)
    except UnicodeError as problem:
        if not mark and encoding in _UTF8:
            check_text(raw[:_LOOK_CHARS].decode("latin-1"))
        raise _not_in(name, raw, problem, len(mark)) from problem
    check_text(text)
    # Not by a pattern: it would keep every line as a string of its own, which takes more than the text.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_text(text: str) -> None:
    """Raise NotText for what nobody has written as text: with NULs in it, or begun with many control characters."""
    nul = text.find("\0")
    head = text[:_LOOK_CHARS]
    if nul >= 0:
        why = f"there is a NUL at position {nul + 1}"
    elif len(head) - len(head.translate(_CONTROLS)) > len(head) * _MOST_CONTROLS:
        why = "it is full of control characters"
    else:
        return
    raise NotText(f"does not look like text ({why})", "unpack or convert it first")


def _not_in(name: str, raw: bytes, problem: UnicodeError, skipped: int) -> NotText:
    what = str(problem)
    if isinstance(problem, UnicodeDecodeError):
        at = skipped + problem.start
        what = f"byte 0x{raw[at : at + 1].hex()} at position {at + 1} is no {name.removesuffix('-sig').upper()}"
    return NotText(what, "--encoding latin-1 (or what it is in)")


def unmarked_utf16(raw: bytes) -> str | None:
    """Which UTF-16 it seems to be, by NULs in every other byte of its beginning."""
    head = raw[:2000]
    if head.count(0) < len(head) * _EVERY_OTHER_NUL:
        return None
    return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
