"""Text of a DOCX, through docx2txt."""

from __future__ import annotations

import importlib
import re
import zipfile

from lcbatch.sources.extract import Extraction, Unreadable


def extract(asked: Extraction) -> str:
    """Headers, text and footers; paragraphs set apart by blank lines. Raises Unreadable."""
    with open(asked.path, "rb") as file:  # noqa: PTH123 - the name may hold undecodable bytes
        try:
            with zipfile.ZipFile(file) as packed:
                _check(packed, asked.max_bytes)
            text: str = importlib.import_module("docx2txt").process(file)
        except zipfile.BadZipFile as broken:
            raise Unreadable(_not_a_zip(asked.path)) from broken
        except SyntaxError as broken:  # ElementTree's ParseError is one
            raise Unreadable(
                f"its text is broken XML ({broken}); open it in a word processor and save it anew"
            ) from broken
    return re.sub(r"\n{3,}", "\n\n", text)


def _check(packed: zipfile.ZipFile, max_bytes: int) -> None:
    """The directory's sizes bound what reading gives: zipfile reads no more of a member than stands there."""
    parts = [
        entry
        for entry in packed.infolist()
        if re.match(r"word/(document|header[0-9]*|footer[0-9]*)\.xml$", entry.filename)
    ]
    if not any(entry.filename == "word/document.xml" for entry in parts):
        raise Unreadable("it is a zip file, but no DOCX: word/document.xml is missing")
    unfolded = sum(entry.file_size for entry in parts)
    if unfolded > max_bytes:
        raise Unreadable(f"its text unfolds to {unfolded} bytes, more than --max-row-bytes ({max_bytes})")


def _not_a_zip(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        old = file.read(8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    if old:
        return "it is an old Word file or has a password; save it as DOCX without one"
    return "it is broken or no DOCX; open it in a word processor and save it anew"
