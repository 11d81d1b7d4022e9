"""Where rows come from: files, folders and pipes in many formats, read as one stream of items."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lcbatch.errors import InputMissing
from lcbatch.job import InputOptions
from lcbatch.ports import Source
from lcbatch.sources.folders import Walk
from lcbatch.sources.inputs import Sort, matches, name_inputs
from lcbatch.sources.ways import Ways, rules_of

__all__ = ["files_taken_in", "open_source"]


def open_source(
    inputs: Sequence[str],
    options: InputOptions,
    *,
    documents: bool,
    own_outputs: frozenset[Path],
    stdin: BinaryIO | None,
) -> Source:
    """The input that the arguments name, in their order; `-` is `stdin`. Nothing is opened until it is iterated.

    `documents`: every file is a document (unless --input-format says otherwise); else folders give documents and files
    give rows by format, suffix or their beginning. `own_outputs` are passed over inside folders and globs. A batch of a
    regular file or a folder can be read again; of a pipe not.

    Raises UsageError for an own output by name and for options that cannot be, InputMissing for a name that does not
    exist; while it is iterated also InputMissing for a folder without documents and for a stream that is damaged,
    UsageError for a CSV header that is no header, ConfigError where an extra is not installed. A row or document that
    cannot be read never raises: it is an item with a failure.
    """
    own = frozenset(os.path.realpath(path) for path in own_outputs)
    named = name_inputs(inputs, own)
    if stdin is None and any(one.sort is Sort.STDIN for one in named):
        raise InputMissing("there is no stdin to read", hint="name a file or a folder")
    return Ways(named, options, documents=documents, own_outputs=own, stdin=stdin).source()


def files_taken_in(inputs: Sequence[str], options: InputOptions) -> Iterator[str]:
    """Paths of all that the arguments come to, lcbatch's own outputs too; folders are walked. What is missing is left out."""
    for argument in inputs:
        if argument == "-":
            continue
        for path in [argument] if os.path.lexists(argument) else matches(argument):
            if os.path.isdir(path):  # noqa: PTH112 - the name may hold undecodable bytes
                yield from (found.path for found in Walk(path, rules_of(options)) if found.problem is None)
            else:
                yield path
