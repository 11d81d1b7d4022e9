"""From the output's options to its sink."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lcbatch.errors import OutputFailed, UsageError
from lcbatch.job import EMBED, SUMMARIZE, OutputOptions
from lcbatch.ports import Order, Sink, View
from lcbatch.sinks.appendfile import AppendFile
from lcbatch.sinks.csvtable import CsvTable
from lcbatch.sinks.filesink import FileSink
from lcbatch.sinks.folder import FolderSink
from lcbatch.sinks.lines import Format, Lines, error_line, row_line
from lcbatch.sinks.parquet import ParquetSink
from lcbatch.sinks.paths import TABLES, Form, form_of, is_special
from lcbatch.sinks.plain import plain_text
from lcbatch.sinks.selection import Selection
from lcbatch.sinks.stream import StreamSink
from lcbatch.sinks.table import Cutter

OUTPUT_VIEW = "output"
ERRORS_VIEW = "errors"
_PRIVATE = 0o600
_WITH_FAILED = frozenset({Form.CSV, Form.TSV})


def open_sink(
    options: OutputOptions, *, task: str, stdout_fd: int | None, stdout_is_terminal: bool, samples: bool = False
) -> Sink:
    """The sink that `-o` names; nothing is created until its `open`. Raises UsageError for an unknown suffix.

    With `samples` each answer is shown with its number among those to its row.
    """
    form = form_of(options.output, task)
    view = _view(options, form)
    if form is Form.STDOUT or options.output is None:
        if stdout_is_terminal and task == SUMMARIZE and stdout_fd is not None:
            return _plain(view, stdout_fd, samples=samples)
        selection = Selection.of(options, vectors=task == EMBED, samples=samples)
        return _stdout(view, selection, fd=stdout_fd, is_terminal=stdout_is_terminal)
    path = Path(options.output)
    selection = Selection.of(options, vectors=task == EMBED, samples=samples)
    if form is Form.FOLDER and selection.vectors:
        raise UsageError("vectors go into one file", hint="end its name with .parquet or .jsonl")
    if form is Form.FOLDER:
        return FolderSink(view, path, selection)
    special = is_special(path)
    if form is Form.PARQUET:
        if special:
            raise UsageError(f"Parquet cannot be written into {path}, which is no regular file")
        return ParquetSink(view, AppendFile(path), Cutter(selection, flatten=options.flatten, arrays=True))
    format_ = _format(options, selection, form, view, in_pipe=special)
    return StreamSink(view, path, format_) if special else FileSink(view, AppendFile(path), format_)


def errors_sink(path: Path, *, keep_empty: bool = False) -> Sink:
    """The sink of the failed rows: JSON lines, 0600, there only while some row stands failed (unless `keep_empty`).

    A file of that name that is not ours is set aside rather than refused: with a pipe's output and `--errors` the
    store goes away after a good run and its errors file stays, and the next one of a cron job must not stop at
    that.
    """
    view = View(ERRORS_VIEW, Order.FINISHED, done=False, failed=True)
    if is_special(path):
        return StreamSink(view, path, Lines(error_line, {}))
    file = AppendFile(path, mode=_PRIVATE, keep_empty=keep_empty, foreign="aside")
    return FileSink(view, file, Lines(error_line, {}))


def _view(options: OutputOptions, form: Form) -> View:
    by_input = options.ordered if options.ordered is not None else form in TABLES
    if form is Form.PARQUET:
        by_input = True
    elif form is Form.FOLDER:
        by_input = False
    failed = options.failed_rows == "include" if options.failed_rows else form in _WITH_FAILED
    order = Order.INPUT if by_input else Order.FINISHED
    return View(OUTPUT_VIEW, order, done=True, failed=failed and form is not Form.FOLDER)


def _format(options: OutputOptions, selection: Selection, form: Form, view: View, *, in_pipe: bool) -> Format:
    if form is Form.JSONL:
        return Lines(row_line(selection), selection.shape())
    return CsvTable(
        Cutter(selection, flatten=options.flatten),
        delimiter="\t" if form is Form.TSV else ",",
        error=view.failed,
        safe=options.csv_safe,
        in_pipe=in_pipe,
    )


def _plain(view: View, fd: int, *, samples: bool) -> Sink:
    columns = shutil.get_terminal_size().columns if not os.isatty(fd) else os.get_terminal_size(fd).columns
    return StreamSink(view, fd, Lines(plain_text(columns, samples=samples), {}, is_json=False))


def _stdout(view: View, selection: Selection, *, fd: int | None, is_terminal: bool) -> Sink:
    if fd is None:
        raise OutputFailed("there is no standard output to write to", hint="name a file with -o")
    return StreamSink(view, fd, Lines(row_line(selection), selection.shape(), for_terminal=is_terminal))
