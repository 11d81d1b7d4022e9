"""Text of a PDF, through pypdf; through pypdfium2 (an extra) where pypdf gives up.

Measured on two manuals and the samples both find the same words. pypdf writes them more cleanly (pdfium puts U+FFFE
where a word is hyphenated) and needs ten times the CPU, 0.4 s for 30 pages, which is little beside a model call. So
the text is the same on every machine, whether the extra is installed or not.
"""

from __future__ import annotations

import importlib
from typing import Any

from lcbatch.sources.extract import Extraction, NoText, Unreadable

_SCANNED = "there is no text in it, only pictures; run OCR first, e.g. ocrmypdf in.pdf out.pdf"
_ENCRYPTED = "it is encrypted; remove its password first, e.g. qpdf --decrypt --password=... in.pdf out.pdf"


def extract(asked: Extraction) -> str:
    """The pages' text, set apart by blank lines. Raises NoText for scans, Unreadable for the encrypted and broken."""
    pypdf = importlib.import_module("pypdf")
    broken: Exception | None = None
    text = ""
    try:
        with open(asked.path, "rb") as file:  # noqa: PTH123 - the name may hold undecodable bytes
            text = _pages(pypdf.PdfReader(file), asked.max_bytes)
    except (Unreadable, MemoryError):
        raise
    except pypdf.errors.DependencyError as missing:
        raise Unreadable(f"{_ENCRYPTED}, or pip install 'pypdf[crypto]' ({missing})") from missing
    except Exception as problem:  # noqa: BLE001 - on broken files pypdf raises its own errors and many others
        broken = problem
    text = text if text.strip() else _rescued(asked)
    if not text.strip():
        if broken is not None:
            raise Unreadable(f"it is broken or no PDF ({broken}); try qpdf in.pdf out.pdf") from broken
        raise NoText(_SCANNED)
    return text


def _pages(reader: Any, max_bytes: int) -> str:
    # Many PDFs are encrypted with an empty password, only to forbid printing: any viewer opens them.
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable(_ENCRYPTED)
    parts: list[str] = []
    size = 0
    for page in reader.pages:
        parts.append(page.extract_text().strip())
        size += len(parts[-1])
        if size > max_bytes:
            raise Unreadable(f"its text is larger than --max-row-bytes ({max_bytes})")
    return "\n\n".join(part for part in parts if part)


def _rescued(asked: Extraction) -> str:
    """What pdfium finds, nothing where it is not installed or gives up too."""
    try:
        pdfium = importlib.import_module("pypdfium2")
        document = pdfium.PdfDocument(asked.path)
        parts = [page.get_textpage().get_text_range().strip() for page in document]
    except Exception:  # noqa: BLE001 - pypdf's verdict stands
        return ""
    text = "\n\n".join(part for part in parts if part).replace("\r\n", "\n")
    return text if len(text) <= asked.max_bytes else ""
