"""Which way each input is read: decided by its name and the options alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from lcbatch.errors import UsageError
from lcbatch.job import InputOptions
from lcbatch.sources.documents import Taking, document_batches
from lcbatch.sources.encodings import checked_encoding
from lcbatch.sources.folders import Found, Rules, Walk
from lcbatch.sources.formats import DOCUMENT, PARQUET, Reading, checked_delimiter, format_of
from lcbatch.sources.inputs import Named, Sort, label_prefix
from lcbatch.sources.parquet import parquet_batches
from lcbatch.sources.source import BATCH_ITEMS, Inputs, Part, row_batches, text_batches
from lcbatch.sources.streams import Chunks, file_chunks, path_reader, pipe_chunks, stdin_reader


def rules_of(options: InputOptions, own_outputs: frozenset[str] = frozenset()) -> Rules:
    """What counts in a folder that is read with these options."""
    return Rules(options.include, options.exclude, options.loader is not None, own_outputs)


class Ways:
    """Builds the source for named inputs. Raises UsageError for options that cannot be."""

    def __init__(
        self,
        named: list[Named],
        options: InputOptions,
        *,
        documents: bool,
        own_outputs: frozenset[str],
        stdin: BinaryIO | None,
    ) -> None:
        encoding = checked_encoding(options.encoding)
        self._named = named
        self._stdin = stdin
        self._format = options.input_format or (DOCUMENT if documents else None)
        self._has_row_format = options.input_format not in {None, DOCUMENT}
        self._reading = Reading(options.max_row_bytes, checked_delimiter(options.delimiter), encoding)
        self._taking = Taking(options.max_row_bytes, encoding, options.loader)
        self._rules = rules_of(options, own_outputs)
        self._walks: list[Walk] = []

    def source(self) -> Inputs:
        parts = [
            part
            for is_document, group in groupby(self._named, self._is_document_file)
            for part in (self._document_files(group) if is_document else map(self._part, group))
        ]
        rereadable = all(one.sort in {Sort.FILE, Sort.FOLDER} for one in self._named)
        return Inputs(parts, self._walks, rereadable=rereadable)

    def _format_of(self, named: Named) -> str | None:
        if self._format or named.sort is not Sort.FILE:
            return self._format
        return format_of(named.path)

    def _is_document_file(self, named: Named) -> bool:
        return named.sort is Sort.FILE and self._format_of(named) == DOCUMENT

    def _document_files(self, group: Iterator[Named]) -> Iterator[Part]:
        """Documents named one after another as one part, so that they share batches."""
        alone = len(self._named) == 1
        found = [
            Found(
                os.path.abspath(one.path),  # noqa: PTH100 - links stay, and the name may hold undecodable bytes
                one.shown,
                label_prefix(os.path.basename(one.shown) if alone else one.shown),  # noqa: PTH119
            )
            for one in group
        ]
        yield partial(document_batches, found, self._taking)

    def _part(self, named: Named) -> Part:
        """How one input that is no document file is read."""
        if named.sort is Sort.FOLDER:
            return self._folder(named)
        format_name, name = self._format_of(named), named.shown
        if format_name == PARQUET:
            if named.sort is not Sort.FILE:
                raise UsageError("Parquet cannot be read from a pipe", hint="save it to a file and name that")
            return partial(parquet_batches, Path(named.path), name, BATCH_ITEMS)
        if format_name == DOCUMENT:
            return lambda: text_batches(self._chunks(named), name, self._taking)
        return lambda: row_batches(self._chunks(named), name, format_name, self._reading)

    def _folder(self, named: Named) -> Part:
        if self._has_row_format:
            raise UsageError(
                f"{named.shown} is a folder, and a folder gives documents", hint=f"name its files: {named.shown}/*"
            )
        prefix = f"{label}/" if len(self._named) > 1 and (label := label_prefix(named.path)) else ""
        walk = Walk(named.path, self._rules, prefix)
        self._walks.append(walk)
        return partial(document_batches, walk, self._taking)

    def _chunks(self, named: Named) -> Chunks:
        if named.sort is Sort.FILE:
            return file_chunks(Path(named.path))
        if named.sort is Sort.STDIN and self._stdin is not None:
            return pipe_chunks(partial(stdin_reader, self._stdin))
        return pipe_chunks(partial(path_reader, Path(named.path)))
