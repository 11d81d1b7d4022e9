"""Documents that explode, loop or nest, made by hand: small files that ask for more than a machine has."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping

_CONTENT_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Override PartName="/word/document.xml" ContentType="application/xml"/></Types>'
)
_WORDS = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{}</w:body></w:document>'
_WORD = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"


def _pdf(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1; the first is its catalog."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))
    return bytes(out) + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


_CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
_PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<<>>>>"


def _stream(data: bytes, filters: bytes = b"") -> bytes:
    return b"<</Length %d%b>>\nstream\n%b\nendstream" % (len(data), filters, data)


def _pdf_of_a_stream(content: bytes) -> bytes:
    return _pdf(_CATALOG, b"<</Type/Pages/Kids[3 0 R]/Count 1>>", _PAGE, content)


def _flate_bomb(megabytes: int) -> bytes:
    data = zlib.compress(b"(x) Tj " * (megabytes * 1024 * 1024 // 7), 9)
    return _pdf_of_a_stream(_stream(data, b"/Filter/FlateDecode"))


def _flate_in_flate() -> bytes:
    data = zlib.compress(zlib.compress(zlib.compress(bytes(400 * 1024 * 1024), 9), 9), 9)
    return _pdf_of_a_stream(_stream(data, b"/Filter[/FlateDecode/FlateDecode/FlateDecode]"))


def _page_tree_that_doubles() -> bytes:
    """Forty levels, each with its next twice: 2^40 pages in 3 KB."""
    levels = [b"<</Type/Pages/Kids[%d 0 R %d 0 R]/Count 2>>" % (level + 3, level + 3) for level in range(40)]
    return _pdf(_CATALOG, *levels, b"<</Type/Page/MediaBox[0 0 9 9]>>")


def _docx(document: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("[Content_Types].xml", _CONTENT_TYPES)
        packed.writestr("word/document.xml", document)
    return out.getvalue()


def _entities(*, quadratic: bool) -> bytes:
    if quadratic:
        doctype = f'<!DOCTYPE d [<!ENTITY e "{"x" * 100_000}">]>'
        return _docx(doctype + _WORDS.format(_WORD.format("&e;" * 100_000)))
    ladder = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12))
    return _docx(f'<!DOCTYPE d [<!ENTITY e0 "lol">{ladder}]>' + _WORDS.format(_WORD.format("&e11;")))


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "flate.pdf": lambda: _flate_bomb(300),
    "flate-in-flate.pdf": _flate_in_flate,
    "doubling-tree.pdf": _page_tree_that_doubles,
    "kids-loop.pdf": lambda: _pdf(_CATALOG, b"<</Type/Pages/Kids[2 0 R]/Count 1>>"),
    "parent-loop.pdf": lambda: _pdf(
        _CATALOG, b"<</Type/Pages/Kids[3 0 R]/Parent 3 0 R/Count 1>>", b"<</Type/Pages/Kids[2 0 R]/Parent 2 0 R>>"
    ),
    "count.pdf": lambda: _pdf(_CATALOG, b"<</Type/Pages/Kids[]/Count 2147483647>>"),
    "deep-array.pdf": lambda: _pdf(_CATALOG, b"<</Type/Pages/Kids " + b"[" * 100_000 + b"]" * 100_000 + b"/Count 1>>"),
    "deep-dictionary.pdf": lambda: _pdf(
        _CATALOG, b"<</Type/Pages/A " + b"<</A " * 50_000 + b">>" * 50_000 + b"/Kids[]/Count 0>>"
    ),
    "length-loop.pdf": lambda: _pdf_of_a_stream(b"<</Length 4 0 R>>\nstream\nx\nendstream"),
    "prev-loop.pdf": lambda: _pdf(_CATALOG, b"<</Type/Pages/Kids[]/Count 0>>").replace(
        b"/Root 1 0 R", b"/Root 1 0 R/Prev 9"
    ),
    "xref-far.pdf": lambda: _pdf(_CATALOG, b"<</Type/Pages/Kids[]/Count 0>>").replace(
        b"xref\n0 3\n", b"xref\n0 999999999\n"
    ),
    "zip-bomb.docx": lambda: _docx(_WORDS.format(_WORD.format("x" * (300 * 1024 * 1024)))),
    "just-fits.docx": lambda: _docx(_WORDS.format(_WORD.format("<w:t>") * 0 + (_WORD.format("y") * 1_000_000))),
    "billion-laughs.docx": lambda: _entities(quadratic=False),
    "quadratic.docx": lambda: _entities(quadratic=True),
    "deep.docx": lambda: _docx(_WORDS.format("<w:p>" * 300_000 + "</w:p>" * 300_000)),
    "deep.html": lambda: b"<html><body>" + b"<div>" * 300_000 + b"x",
    "attributes.html": lambda: b"<html><body><p " + b"a='b' " * 500_000 + b">x",
    "open-tags.html": lambda: b"<html><body>" + b"<a<b" * 300_000,
    "comment.html": lambda: b"<html><body>" + b"<!--" * 500_000,
}
"""Each by its name. None of them has a text that a summary could be made of."""
