"""The text of documents: what comes out, what fails and how, and that one bad file harms no other."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import os
import random
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import CallFailed, ConfigError, Kind
from lcbatch.records import Document
from lcbatch.sources.encodings import decode_text
from lcbatch.sources.readers import DocumentText

from .reading import read_items

PROJECT = Path(__file__).parents[2]
SAMPLES = PROJECT / "samples" / "docs"
DATA = PROJECT.parent / "shared" / "data"


def document_of(path: Path, **changes: Any) -> Document:
    raw = path.read_bytes()
    plain = {"path": str(path), "digest": blake2b(raw, digest_size=16).hexdigest(), "size": len(raw)}
    return Document(**{**plain, **changes})


def texts_of(documents: Sequence[Document], **options: Any) -> list[str | CallFailed]:
    """What one reader says of documents that it is given all at once."""

    async def read() -> list[str | CallFailed]:
        async with DocumentText(**options) as reader:

            async def one(document: Document) -> str | CallFailed:
                try:
                    return await reader(document)
                except CallFailed as failed:
                    return failed

            return list(await asyncio.gather(*map(one, documents)))

    return asyncio.run(read())


def text_of(path: Path, **changes: Any) -> str:
    (text,) = texts_of([document_of(path, **changes)])
    assert isinstance(text, str), text
    return text


def failure_of(path: Path, *, max_row_bytes: int = 10**7, **changes: Any) -> tuple[Kind, str]:
    (failed,) = texts_of([document_of(path, **changes)], max_row_bytes=max_row_bytes)
    assert isinstance(failed, CallFailed), failed
    assert failed.failure.message.startswith(str(path))
    return failed.failure.kind, failed.failure.message


def pdf(path: Path, *lines: str, password: str | None = None) -> Path:
    canvas = importlib.import_module("reportlab.pdfgen.canvas").Canvas(str(path), encrypt=password)
    for line in lines:
        canvas.drawString(72, 700, line)
        canvas.showPage()
    if not lines:
        canvas.rect(10, 10, 100, 100)
    canvas.save()
    return path


def docx(path: Path, *paragraphs: str) -> Path:
    document = importlib.import_module("docx").Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    document.save(str(path))
    return path


@pytest.mark.parametrize(
    ("raw", "encoding", "text"),
    [
        ("größer\r\nzwei\rdrei\n".encode(), "utf-8", "größer\nzwei\ndrei\n"),
        ("größer".encode("utf-8-sig"), "utf-8", "größer"),
        ("größer".encode("utf-16"), "utf-8", "größer"),
        ("größer".encode("utf-32-le"), "utf-32-le", "größer"),
        ("a plain sentence".encode("utf-16-le"), "utf-8", "a plain sentence"),
        ("a plain sentence".encode("utf-16-be"), "utf-8", "a plain sentence"),
        ("größer".encode("utf-32"), "utf-8", "größer"),
        ("größer".encode("cp1252"), "cp1252", "größer"),
        (bytes(range(0xA0, 0x100)), "latin-1", "".join(map(chr, range(0xA0, 0x100)))),
        (b"\x1b[31mred\x1b[0m and o\x08over\f", "utf-8", "\x1b[31mred\x1b[0m and o\x08over\f"),
        ("already lost: \ufffd\ufffd".encode(), "utf-8", "already lost: \ufffd\ufffd"),
        (b"", "utf-8", ""),
    ],
)
def test_text_is_decoded_by_its_mark_or_as_told(raw: bytes, encoding: str, text: str) -> None:
    assert decode_text(raw, encoding) == text


NOISE = random.Random(4).randbytes(4000)  # noqa: S311 - no secret

NO_TEXT = {
    "latin-1": (b"caf\xe9 ok", "utf-8", "byte 0xe9 at position 4 is no UTF-8; --encoding latin-1 (or what it is in)"),
    "cp1252": (b"caf\x81", "cp1252", "byte 0x81 at position 4 is no CP1252; --encoding latin-1"),
    "cut off": ("größ".encode()[:-1], "utf-8", "byte 0xc3 at position 5 is no UTF-8"),
    "behind a mark": (b"\xef\xbb\xbfcaf\xe9", "utf-8", "byte 0xe9 at position 7 is no UTF-8"),
    "marked and cut off": ("ab".encode("utf-16")[:-1], "utf-8", "at position 5 is no UTF-16-LE"),
    "a NUL": (b"NUL \x00 here", "utf-8", "does not look like text (there is a NUL at position 5); unpack or convert"),
    "noise": (NOISE[:400], "utf-8", "does not look like text"),
    "noise as told": (NOISE[:400], "latin-1", "does not look like text"),
    "controls": (bytes(range(1, 32)) * 4, "utf-8", "does not look like text (it is full of control characters)"),
}


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".log"])
def test_a_document_that_is_no_text_or_in_another_encoding_fails_by_name(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    raw, encoding, message = NO_TEXT[kind]
    (tmp_path / f"a{suffix}").write_bytes(raw)
    found, said = failure_of(tmp_path / f"a{suffix}", encoding=encoding)
    assert found is Kind.BAD_ROW
    assert message in said


def test_html_that_is_evidently_binary_fails_by_name(tmp_path: Path) -> None:
    noise = NOISE.replace(b"\0", b"")
    for name, raw in {"noise.html": noise, "nul.html": b"<html><p>" + b"a NUL \0" * 100}.items():
        (tmp_path / name).write_bytes(raw)
        found, said = failure_of(tmp_path / name)
        assert found is Kind.BAD_ROW
        assert "does not look like text" in said


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.markdown", "unknown.log", "no-suffix"])
def test_text_files_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes("# Überschrift\r\n\r\nEin *Satz*.".encode())
    assert text_of(path) == "# Überschrift\n\nEin *Satz*."


def test_a_packed_text_is_unpacked(tmp_path: Path) -> None:
    for name in ("a.txt.gz", "a.md.gz", "a.gz", "in-name-only.txt.gz"):
        raw = "Ein größerer Satz.".encode()
        (tmp_path / name).write_bytes(raw if "only" in name else gzip.compress(raw))
        assert text_of(tmp_path / name) == "Ein größerer Satz."


PACKED = {
    "cut.txt.gz": (gzip.compress(b"text" * 100)[:-9], "cannot be unpacked to its end: it ends in the middle; copy it"),
    "sum.txt.gz": (gzip.compress(b"text")[:-8] + bytes(8), "cannot be unpacked to its end"),
    "bomb.txt.gz": (gzip.compress(bytes(10**7)), "unpacked it is larger than 100000 bytes; raise --max-row-bytes"),
    "latin.txt.gz": (gzip.compress(b"caf\xe9"), "byte 0xe9 at position 4 is no UTF-8"),
    "a.pdf.gz": (gzip.compress(b"%PDF-1.7"), "of packed documents only text is read, and this is PDF; unpack it first"),
    "page.gz": (gzip.compress(b"<!DOCTYPE html>"), "only text is read, and this is HTML"),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_document_that_cannot_be_read_fails_by_name(name: str, tmp_path: Path) -> None:
    raw, message = PACKED[name]
    (tmp_path / name).write_bytes(raw)
    kind, said = failure_of(tmp_path / name, max_row_bytes=100_000)
    assert kind is Kind.BAD_ROW
    assert message in said
    assert said.count(name) == 1


TEXTLESS = {
    "empty.txt": (b"", Kind.NO_TEXT, "no text in it"),
    "blank.md": (b" \r\n ", Kind.NO_TEXT, "no text in it"),
    "photo.png": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, Kind.BAD_ROW, "does not look like text"),
    "a.pdf": (b"no pdf at all", Kind.BAD_ROW, "broken or no PDF"),
    "empty.pdf": (b"", Kind.BAD_ROW, "broken or no PDF"),
    "a.docx": (b"no zip at all", Kind.BAD_ROW, "broken or no DOCX"),
    "old.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), Kind.BAD_ROW, "old Word file"),
    "a.html": (b"<html><script>var a = 1;</script><body> </body></html>", Kind.NO_TEXT, "no text in it"),
    "empty.html": (b"", Kind.NO_TEXT, "no text in it"),
}


def test_what_has_no_text_fails_with_a_sentence(tmp_path: Path) -> None:
    for name, (content, _, _) in TEXTLESS.items():
        (tmp_path / name).write_bytes(content)
    answers = texts_of([document_of(tmp_path / name) for name in TEXTLESS])
    for (name, (_, kind, message)), failed in zip(TEXTLESS.items(), answers, strict=True):
        assert isinstance(failed, CallFailed), name
        assert (name, failed.failure.kind) == (name, kind)
        assert failed.failure.message.startswith(str(tmp_path / name))
        assert message in failed.failure.message


def test_pdf_pages_are_read_in_order(tmp_path: Path) -> None:
    assert text_of(pdf(tmp_path / "a.pdf", "First page.", "Second page.")) == "First page.\n\nSecond page."
    pdf(tmp_path / "no-suffix", "Seen by its beginning.")
    assert text_of(tmp_path / "no-suffix") == "Seen by its beginning."


def test_a_scanned_pdf_asks_for_ocr(tmp_path: Path) -> None:
    kind, message = failure_of(pdf(tmp_path / "scan.pdf"))
    assert kind is Kind.NO_TEXT
    assert message.endswith("run OCR first, e.g. ocrmypdf in.pdf out.pdf")


def test_an_encrypted_pdf_says_so(tmp_path: Path) -> None:
    kind, message = failure_of(pdf(tmp_path / "secret.pdf", "hidden", password="canary"))
    assert kind is Kind.BAD_ROW
    assert "it is encrypted; remove its password first" in message
    assert "canary" not in message


def test_docx_paragraphs_are_set_apart(tmp_path: Path) -> None:
    assert text_of(docx(tmp_path / "a.docx", "Erster Absatz.", "Zweiter.")) == "Erster Absatz.\n\nZweiter."


def test_a_docx_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("word/document.xml", b" " * 20_000_000)
    kind, message = failure_of(path)
    assert kind is Kind.BAD_ROW
    assert "unfolds to 20000000 bytes, more than --max-row-bytes" in message


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [("other.xml", b"<a/>", "word/document.xml is missing"), ("word/document.xml", b"<a", "broken XML")],
)
def test_a_zip_that_is_no_docx_says_so(member: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(member, content)
    assert message in failure_of(path)[1]


PAGE = """<html><head><title>t</title><meta charset="{charset}"></head><body><nav>Home About</nav>
<article><h1>Über Bäume</h1><p>{paragraph}</p><p>{paragraph}</p></article><script>x()</script></body></html>"""


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_html_gives_its_main_text_in_its_own_charset(charset: str, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    paragraph = "Die Bäume der Straße wachsen seit zehn Jahren, und niemand hat sie gezählt. " * 3
    path.write_bytes(PAGE.format(charset=charset, paragraph=paragraph).encode(charset))
    text = text_of(path)
    assert "Die Bäume der Straße" in text
    assert "x()" not in text


def test_html_without_a_main_text_gives_all_that_is_visible(tmp_path: Path) -> None:
    path = tmp_path / "a.htm"
    path.write_text("<style>p {}</style><td>Tea</td><td>3 &euro;</td><p>ok")
    assert text_of(path).split() == ["Tea", "3", "€", "ok"]


def test_a_document_that_changed_since_it_was_listed_fails(tmp_path: Path) -> None:
    text, page = tmp_path / "a.txt", pdf(tmp_path / "a.pdf", "page")
    text.write_text("before")
    for path in (text, page):
        listed = document_of(path)
        path.write_bytes(path.read_bytes() + b" and more")
        (failed,) = texts_of([listed])
        assert isinstance(failed, CallFailed)
        assert "it changed since it was listed" in failed.failure.message


def test_a_document_that_is_gone_fails(tmp_path: Path) -> None:
    for name in ("a.txt", "a.pdf"):
        (failed,) = texts_of([Document(str(tmp_path / name), "", 5)])
        assert isinstance(failed, CallFailed)
        assert "cannot be read (No such file or directory)" in failed.failure.message


LOADERS = """
import os, signal, sys

class Parts:
    def __init__(self, path): self.path = path
    def load(self):
        print("noise that must not reach the protocol")
        return [type("D", (), {"page_content": part}) for part in ("one", open(self.path).read())]

class Dies(Parts):
    def load(self): os.kill(os.getpid(), signal.SIGKILL)

class Hangs(Parts):
    def load(self): signal.pause()

class Hungry(Parts):
    def load(self): return bytearray(1 << 40)

class Lacks(Parts):
    def load(self): import a_module_that_nobody_has

class Raises(Parts):
    def load(self): raise RuntimeError("out of cheese")
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_loaders.py").write_text(LOADERS)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "a.txt"
    path.write_text("two")
    return path


def test_a_loaders_parts_are_joined(loaded: Path) -> None:
    assert text_of(loaded, loader="own_loaders:Parts") == "one\n\ntwo"


@pytest.mark.parametrize(
    ("name", "message"),
    [("Raises", "RuntimeError: out of cheese"), ("Hungry", "takes too much memory"), ("Dies", "SIGKILL")],
)
def test_a_loader_that_fails_fails_its_row_alone(name: str, message: str, loaded: Path) -> None:
    bad, good = (document_of(loaded, loader=f"own_loaders:{one}") for one in (name, "Parts"))
    answers = texts_of([good, bad, good, bad, good], processes=1)
    assert [answer for answer in answers if isinstance(answer, str)] == ["one\n\ntwo"] * 3
    for failed in (answers[1], answers[3]):
        assert isinstance(failed, CallFailed)
        assert failed.failure.kind is Kind.BAD_ROW
        assert message in failed.failure.message


def test_a_document_that_takes_too_much_memory_fails_alone_and_by_name(tmp_path: Path) -> None:
    large, small = tmp_path / "large.html", tmp_path / "small.html"
    large.write_text("<html><body>" + "<p>word</p>" * 500_000)
    small.write_text("<html><body><p>word</p>")
    failed, text = texts_of([document_of(large), document_of(small)], processes=1, memory_bytes=100 * 1024**2)
    assert isinstance(failed, CallFailed)
    assert failed.failure.kind is Kind.BAD_ROW
    assert failed.failure.message.endswith(
        "large.html: reading it takes more than 100 MB of memory; split it, or raise --reader-memory"
    )
    assert text == "word"


def test_a_document_that_hangs_is_given_up(loaded: Path) -> None:
    hangs, good = document_of(loaded, loader="own_loaders:Hangs"), document_of(loaded, loader="own_loaders:Parts")
    failed, text = texts_of([hangs, good], processes=1, timeout_s=1.5)
    assert isinstance(failed, CallFailed)
    assert "took longer than 1.5 s" in failed.failure.message
    assert text == "one\n\ntwo"


def test_leaving_waits_for_no_hung_document(loaded: Path) -> None:
    async def leave() -> None:
        async with DocumentText(processes=1) as reader:
            document = document_of(loaded, loader="own_loaders:Hangs")
            hung = asyncio.create_task(reader(document))
            assert await reader(document_of(loaded)) == "two"
            hung.cancel()
            with suppress(asyncio.CancelledError):
                await hung

    asyncio.run(leave())


@pytest.mark.parametrize(
    ("loader", "message", "hint"),
    [
        ("no_such_package.loaders:Loader", "cannot be imported", "pip install no-such-package"),
        ("own_loaders:Nobody", "own_loaders has no Nobody", "check the class's name"),
        ("own_loaders", "--loader cannot be", "write it like package.module:Class"),
        ("own_loaders:Lacks", "needs a package that is not installed", "pip install a-module-that-nobody-has"),
    ],
)
def test_a_loader_that_cannot_be_had_ends_the_run(loader: str, message: str, hint: str, loaded: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        texts_of([document_of(loaded, loader=loader)])
    assert caught.value.hint == hint


def test_a_loader_of_langchain_community_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("langchain_text_splitters")
    if importlib.util.find_spec("langchain_community") is None:
        pytest.skip("langchain-community is an extra and not installed")
    path = tmp_path / "a.txt"
    path.write_text("read by langchain-community")
    assert text_of(path, loader="langchain_community.document_loaders.text:TextLoader") == "read by langchain-community"


def test_the_working_directory_is_no_place_to_import_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pypdf.py").write_text("raise SystemExit('imported from the working directory')")
    page = pdf(tmp_path / "a.pdf", "page")
    monkeypatch.chdir(tmp_path)
    assert text_of(page) == "page"


def test_names_that_are_no_text_reach_the_worker(tmp_path: Path) -> None:
    path = pdf(tmp_path / "plain.pdf", "page")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.pdf")
    path.rename(odd)
    (item,) = read_items(tmp_path, documents=True)
    assert item.document is not None
    assert texts_of([item.document]) == ["page"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="samples/docs is not there")
def test_every_sample_document_has_text() -> None:
    documents = [item.document for item in read_items(SAMPLES, documents=True) if item.document]
    texts = texts_of(documents)
    assert len(documents) >= 10
    assert all(isinstance(text, str) and len(text) > 1000 for text in texts)


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_real_documents_are_read_whole() -> None:
    items = read_items(DATA / "peps", DATA / "pride-and-prejudice.txt", documents=True)
    documents = [item.document for item in items if item.document]
    texts = texts_of(documents)
    assert len(documents) == 101
    assert all(isinstance(text, str) and "\r" not in text and "\ufeff" not in text for text in texts)
