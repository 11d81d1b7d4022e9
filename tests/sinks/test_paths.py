from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lcbatch.errors import OutputFailed, UsageError
from lcbatch.job import RUN, SUMMARIZE, OutputOptions
from lcbatch.ports import Order, Sink
from lcbatch.sinks import open_sink, output_paths
from lcbatch.sinks.filesink import FileSink
from lcbatch.sinks.folder import FolderSink
from lcbatch.sinks.parquet import ParquetSink
from lcbatch.sinks.paths import Form, form_of
from lcbatch.sinks.stream import StreamSink

from .fakes import entry


def sink_for(output: str | None, task: str = RUN, **options: Any) -> Sink:
    return open_sink(OutputOptions(output=output, **options), task=task, stdout_fd=1, stdout_is_terminal=False)


@pytest.mark.parametrize(
    ("name", "task", "form"),
    [
        ("a.jsonl", RUN, Form.JSONL),
        ("a.NDJSON", RUN, Form.JSONL),
        ("a.b.csv", SUMMARIZE, Form.CSV),
        ("a.tsv", RUN, Form.TSV),
        ("a.parquet", RUN, Form.PARQUET),
        ("out/", RUN, Form.FOLDER),
        ("out", SUMMARIZE, Form.FOLDER),
        ("/tmp", RUN, Form.FOLDER),  # noqa: S108 - only looked at
        ("-", RUN, Form.STDOUT),
        ("/dev/stdout", SUMMARIZE, Form.STDOUT),
        (None, RUN, Form.STDOUT),
        ("/dev/null", RUN, Form.JSONL),
    ],
)
def test_the_name_says_the_form(name: str | None, task: str, form: Form) -> None:
    assert form_of(name, task) is form


@pytest.mark.parametrize(("name", "task"), [("a.xlsx", RUN), ("a.json", RUN), ("out", RUN), ("a.txt", SUMMARIZE)])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str, task: str) -> None:
    with pytest.raises(UsageError) as refused:
        sink_for(name, task)
    assert ".jsonl" in refused.value.hint
    assert ".parquet" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "options", "order", "failed"),
    [
        ("a.jsonl", {}, Order.FINISHED, False),
        ("a.jsonl", {"ordered": True, "failed_rows": "include"}, Order.INPUT, True),
        ("a.csv", {}, Order.INPUT, True),
        ("a.csv", {"ordered": False, "failed_rows": "omit"}, Order.FINISHED, False),
        ("a.parquet", {"ordered": False}, Order.INPUT, False),
        ("out/", {"ordered": True, "failed_rows": "include"}, Order.FINISHED, False),
        (None, {"ordered": True}, Order.INPUT, False),
    ],
)
def test_each_form_has_its_order_and_its_failed_rows(
    name: str | None,
    options: dict[str, Any],
    order: Order,
    failed: bool,  # noqa: FBT001
) -> None:
    view = sink_for(name, **options).view
    assert (view.order, view.done, view.failed) == (order, True, failed)


def test_nothing_is_touched_before_a_sink_is_opened(tmp_path: Path) -> None:
    for name, kind in [("a.jsonl", FileSink), ("a.parquet", ParquetSink), ("out/", FolderSink)]:
        assert isinstance(sink_for(f"{tmp_path}/new/{name}"), kind)
    assert list(tmp_path.iterdir()) == []


def test_a_fifo_and_a_device_are_streams_and_cannot_be_parquet(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.csv", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
    assert isinstance(sink_for(str(tmp_path / "pipe")), StreamSink)
    assert isinstance(sink_for(str(tmp_path / "pipe.csv")), StreamSink)
    assert isinstance(sink_for("/dev/full"), StreamSink)
    with pytest.raises(UsageError):
        sink_for(str(tmp_path / "pipe.parquet"))


def test_an_output_field_that_clashes_with_meta_is_refused() -> None:
    with pytest.raises(UsageError):
        sink_for("a.jsonl", meta=True, output_field="meta")


def test_without_a_stdout_there_must_be_a_name() -> None:
    with pytest.raises(OutputFailed):
        open_sink(OutputOptions(), task=RUN, stdout_fd=None, stdout_is_terminal=False)


@pytest.mark.parametrize(
    ("terminal", "task", "plain"), [(True, SUMMARIZE, True), (True, RUN, False), (False, SUMMARIZE, False)]
)
def test_only_summaries_on_a_terminal_are_plain_text(terminal: bool, task: str, plain: bool) -> None:  # noqa: FBT001
    reader, writer = os.pipe()
    sink = open_sink(OutputOptions(), task=task, stdout_fd=writer, stdout_is_terminal=terminal)
    sink.open(None, clean=True)
    sink.append([entry(1, id_="a", fields={"q": 1}, output="short")])
    sink.close()
    os.close(writer)
    expected = b"a\nshort\n\n" if plain else b'{"q":1,"output":"short"}\n'
    assert os.read(reader, 999) == expected
    os.close(reader)


def test_what_belongs_to_a_file_lies_beside_it(tmp_path: Path) -> None:
    paths = output_paths(OutputOptions(output=f"{tmp_path}/out.jsonl"), RUN)
    assert paths.output == tmp_path / "out.jsonl"
    assert paths.store == tmp_path / "out.jsonl.lcbatch"
    assert paths.errors == tmp_path / "out.jsonl.errors.jsonl"
    ends = ("", "-wal", "-shm", "-journal", ".lock", ".reserve")
    assert {tmp_path / f"out.jsonl.lcbatch{end}" for end in ends} < paths.all()
    assert paths.owns(tmp_path / "out.jsonl.errors.jsonl")
    assert not paths.owns(tmp_path / "rows.jsonl")


def test_what_belongs_to_a_folder_lies_beside_it_and_it_owns_what_is_inside(tmp_path: Path) -> None:
    paths = output_paths(OutputOptions(output=f"{tmp_path}/out/"), SUMMARIZE)
    assert paths.output == tmp_path / "out"
    assert paths.store == tmp_path / "out.lcbatch"
    assert paths.errors == tmp_path / "out.errors.jsonl"
    assert paths.owns(tmp_path / "out" / "a" / "b.md")
    assert not paths.owns(tmp_path / "out2" / "b.md")


def test_own_files_are_known_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    paths = output_paths(OutputOptions(output=f"{tmp_path}/link/out.csv"), RUN)
    assert paths.owns(tmp_path / "real" / "out.csv")


def test_pipes_and_devices_have_no_files_unless_named() -> None:
    for output in (None, "-", "/dev/null"):
        paths = output_paths(OutputOptions(output=output), RUN)
        assert (paths.output, paths.store, paths.errors) == (None, None, None)
        assert paths.all() == frozenset()
    named = output_paths(OutputOptions(store="s.lcbatch", errors="e.jsonl"), RUN)
    assert named.store == Path.cwd() / "s.lcbatch"
    assert named.errors == Path.cwd() / "e.jsonl"
