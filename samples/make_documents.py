"""Make the binary documents of `samples/docs` from the texts in `samples/sources`.

    python samples/make_documents.py [FOLDER]        default: samples/docs

needs `reportlab` and `python-docx` (both in the extra `dev`). With the same versions of these the files come out the
same to the byte, on every machine: dates are those of the text, ids are fixed, and nothing is compressed, because
builds of zlib differ in what they write.

A source is a header of `Name: value` lines, a blank line, and blocks set apart by blank lines: `# Heading`,
`## Subheading`, `- item` lines, `| cell | cell |` lines (the first is the table's head), and paragraphs.
"""

from __future__ import annotations

import datetime as dt
import io
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import docx
from docx.document import Document
from reportlab.lib import colors  # type: ignore[import-untyped]
from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]
from reportlab.lib.styles import getSampleStyleSheet  # type: ignore[import-untyped]
from reportlab.lib.units import cm  # type: ignore[import-untyped]
from reportlab.platypus import (  # type: ignore[import-untyped]
    ListFlowable,
    ListItem,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"

PDFS = ("night-bus-pilot",)
DOCXS = ("repair-workshop",)

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
PARTS_OF_NO_USE = ("stylesWithEffects", "thumbnail", "customXml")
STYLES_USED = frozenset({"Normal", "Title", "Subtitle", "Heading1", "Heading2", "ListBullet", "TableGrid", "Header"})


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed text: `blocks` are (kind, lines), kind being `h1`, `h2`, `list`, `table` or `text`."""

    title: str
    author: str
    date: dt.date
    running_head: str
    blocks: tuple[tuple[str, tuple[str, ...]], ...]


def read_source(path: Path) -> Source:
    head, _, body = path.read_text(encoding="utf-8").partition("\n\n")
    names = dict(line.split(": ", 1) for line in head.splitlines())
    return Source(
        title=names["Title"],
        author=names["Author"],
        date=dt.date.fromisoformat(names["Date"]),
        running_head=names["Running head"],
        blocks=tuple(_blocks(body)),
    )


def _blocks(body: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    prefixes = {"# ": "h1", "## ": "h2", "- ": "list", "| ": "table"}
    for block in body.strip().split("\n\n"):
        prefix = next((p for p in prefixes if block.startswith(p)), "")
        lines = tuple(line.removeprefix(prefix) for line in block.splitlines())
        yield prefixes.get(prefix, "text"), lines


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


# ── PDF ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_pdf(source: Source) -> bytes:
    """A4, the running head and the page's number on every page, as reports have them."""

    def furniture(canvas: Any, doc: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(2.4 * cm, A4[1] - 1.4 * cm, source.running_head)
        canvas.drawRightString(A4[0] - 2.4 * cm, 1.3 * cm, f"Page {doc.page}")

    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=2.4 * cm,
        rightMargin=2.4 * cm,
        topMargin=2.2 * cm,
        bottomMargin=2.2 * cm,
        title=source.title,
        author=source.author,
        invariant=1,
        pageCompression=0,
    )
    document.build(_flowables(source), onFirstPage=furniture, onLaterPages=furniture)
    return buffer.getvalue()


def _flowables(source: Source) -> list[Any]:
    styles = getSampleStyleSheet()
    text = styles["BodyText"]
    text.fontName, text.fontSize, text.leading = "Times-Roman", 11, 14.5
    story: list[Any] = [
        Paragraph(escape(source.title), styles["Title"]),
        Paragraph(f"{escape(source.author)}, {_written(source.date)}", styles["Italic"]),
        Spacer(1, 10),
    ]
    for kind, lines in source.blocks:
        if kind == "table":
            story += [_pdf_table([_cells(line) for line in lines]), Spacer(1, 8)]
        elif kind == "list":
            items = [ListItem(Paragraph(escape(line), text)) for line in lines]
            story.append(ListFlowable(items, bulletType="bullet", start="•"))
        else:
            style = {"h1": styles["Heading2"], "h2": styles["Heading3"]}.get(kind, text)
            story += [Paragraph(escape(line), style) for line in lines]
    return story


def _pdf_table(rows: list[list[str]]) -> Any:
    table = Table(rows, hAlign="LEFT", spaceBefore=6)
    table.setStyle(
        [
            ("FONT", (0, 0), (-1, -1), "Helvetica", 9),
            ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 9),
            ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.lightgrey),
        ]
    )
    return table


# ── DOCX ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_docx(source: Source) -> bytes:
    document = docx.Document()
    _drop_ballast(document)
    _set_properties(document, source)
    document.sections[0].header.paragraphs[0].text = source.running_head
    document.add_heading(source.title, level=0)
    document.add_paragraph(f"{source.author}, {_written(source.date)}", style="Subtitle")
    for kind, lines in source.blocks:
        if kind == "table":
            _docx_table(document, [_cells(line) for line in lines])
        else:
            style = {"h1": "Heading 1", "h2": "Heading 2", "list": "List Bullet"}.get(kind, "Normal")
            for line in lines:
                document.add_paragraph(line, style=style)
    buffer = io.BytesIO()
    document.save(buffer)
    return _same_zip_everywhere(buffer.getvalue())


def _docx_table(document: Document, rows: list[list[str]]) -> None:
    table = document.add_table(rows=0, cols=len(rows[0]), style="Table Grid")
    for row in rows:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.add_paragraph()


def _set_properties(document: Document, source: Source) -> None:
    at = dt.datetime.combine(source.date, dt.time(9, 0), tzinfo=dt.UTC)
    properties = document.core_properties
    properties.title, properties.author, properties.last_modified_by = source.title, source.author, source.author
    properties.created = properties.modified = at
    properties.comments, properties.revision = "", 1


def _drop_ballast(document: Document) -> None:
    """python-docx starts from a template of 800 KB, nearly all of it styles that this document does not use."""
    for relations in (document.part.rels, document.part.package.rels):
        for key in [key for key, relation in relations.items() if relation.reltype.endswith(PARTS_OF_NO_USE)]:
            relations.pop(key)
    styles = document.styles.element
    styles.remove(document.styles.latent_styles.element)
    for style in list(styles.style_lst):
        if style.styleId not in STYLES_USED and not style.default:
            styles.remove(style)


def _same_zip_everywhere(data: bytes) -> bytes:
    """The same members in the same order, stored, with no trace of when and where they were written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name, ZIP_EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16
            new.writestr(member, old.read(name))
    return buffer.getvalue()


def _written(date: dt.date) -> str:
    """`30 April 2025`, in English whatever the locale: strftime would follow it."""
    return f"{date.day} {MONTHS[date.month - 1]} {date.year}"


def make_all(folder: Path) -> list[Path]:
    """Write every document into `folder`, which is created; returns the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [(f"{name}.pdf", make_pdf(read_source(SOURCES / f"{name}.txt"))) for name in PDFS]
    made += [(f"{name}.docx", make_docx(read_source(SOURCES / f"{name}.txt"))) for name in DOCXS]
    for name, data in made:
        (folder / name).write_bytes(data)
    return [folder / name for name, _ in made]


if __name__ == "__main__":
    for path in make_all(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "docs"):
        sys.stdout.write(f"{path}  {path.stat().st_size} bytes\n")
