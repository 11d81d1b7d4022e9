"""Parquet: written from the store when the run ends, since it cannot be appended to. Needs pyarrow (an extra)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from lcbatch import jsontext
from lcbatch.errors import UsageError
from lcbatch.ports import Entry, Name, View
from lcbatch.records import Json
from lcbatch.sinks.appendfile import AppendFile
from lcbatch.sinks.faults import RewriteNeeded
from lcbatch.sinks.schema import Schema, Type
from lcbatch.sinks.selection import free_name
from lcbatch.sinks.table import WHOLE, Cells, Columns, Cutter, Slot, extra_object

_ROW_GROUP = 4096
_ROW_GROUP_CHARS = 32 * 1024 * 1024
"""Of JSON text in one row group: with long documents 4096 rows would be gigabytes."""


class ParquetSink:
    """Replaces the whole file at each rebuild; appending asks for a rebuild when the run ends.

    Columns are those of all rows, each of the narrowest type that holds all of its values, else JSON text (a string).
    A vector is a list of float32 of a fixed length. An output that is itself a list of numbers is list<float32>; other lists of
    numbers stay exact, and lists of texts are lists of texts.
    What a row does not have is null.
    """

    def __init__(self, view: View, file: AppendFile, cutter: Cutter) -> None:
        self.view = view
        self._file = file
        self._cutter = cutter

    @property
    def notice(self) -> str | None:
        """See FileSink."""
        return self._file.notice

    def open(self, state: Mapping[str, Json] | None, *, clean: bool) -> bool:
        """See Sink.open. Raises UsageError where pyarrow is missing, CannotCreateOutput."""
        _pyarrow()
        taken = self._file.take_up(state, clean=clean)
        return taken and state is not None and state["shape"] == self._shape()

    def append(self, entries: Sequence[Entry]) -> None:
        """Ask for a rebuild at the end."""
        if entries:
            raise RewriteNeeded(now=False)

    def sync(self) -> Mapping[str, Json]:
        """The state; the rebuild has synced."""
        return {**self._file.sync().to_json(), "shape": self._shape()}

    def rebuild(self, entries: Iterable[Entry]) -> Mapping[str, Json]:
        """Write a new file and put it in the old one's place. Iterates twice: for the types, then for the rows."""
        if iter(entries) is entries:
            raise TypeError("a rebuild needs something that can be iterated again")
        schema = Schema()
        schema.see(map(self._cells, entries))
        # Rows that came between the two looks may need more room than the first saw; then it looks once more.
        while not self._written(entries, schema):
            schema.see(map(self._cells, entries))
        return self.sync()

    def _written(self, entries: Iterable[Entry], schema: Schema) -> bool:
        """Write the file under this schema. False: some row did not fit, and the old file is still in place."""
        try:
            with self._file.replacement() as write:
                _Writer(write, schema, self._columns(schema), self._cutter.selection.output_field).write(
                    self._groups(entries)
                )
        except _Misfit:
            return False
        return True

    def _columns(self, schema: Schema) -> Columns:
        return Columns(schema.slots(), extra=schema.extra, error=self.view.failed)

    def _cells(self, entry: Entry) -> Cells:
        return {**self._cutter.fields(entry), **self._cutter.answer(entry)}

    def _groups(self, entries: Iterable[Entry]) -> Iterator[list[tuple[Entry, Cells]]]:
        rows = iter(entries)
        while True:
            group: list[tuple[Entry, Cells]] = []
            chars = 0
            for entry in islice(rows, _ROW_GROUP):
                group.append((entry, self._cells(entry)))
                chars += len(entry.fields) + len(entry.output or "")
                if chars > _ROW_GROUP_CHARS:
                    break
            if not group:
                return
            yield group

    def discard(self, names: Sequence[Name]) -> None:
        """Nothing: a row leaves by the rebuild that follows."""

    def abort(self) -> None:
        """Nothing: a file takes what it is given."""

    def close(self) -> None:
        self._file.close()

    def _shape(self) -> Json:
        return {**self._cutter.selection.shape(), "flatten": self._cutter.flatten, "failed": self.view.failed}


class _Misfit(Exception):
    """A row for which the schema has no room."""


class _Writer:
    """Writes groups of rows, one row group each."""

    def __init__(self, write: Callable[[bytes], None], schema: Schema, columns: Columns, output_field: str) -> None:
        self._arrow = _pyarrow()
        self._write = write
        self._schema = schema
        self._columns = columns
        self._names: list[str] = []
        for name in columns.names(output_field):
            self._names.append(free_name(_valid(name), self._names))
        self._output_field = output_field

    def write(self, groups: Iterable[list[tuple[Entry, Cells]]]) -> None:
        arrow = self._arrow
        types = [self._arrow_type(slot) for slot in self._columns.slots]
        types += [arrow.string()] * (len(self._names) - len(types))
        schema = arrow.schema(list(zip(self._names, types, strict=True)))
        parquet = importlib.import_module("pyarrow.parquet")
        with parquet.ParquetWriter(
            arrow.PythonFile(_Writable(self._write), mode="w"), schema, compression="zstd"
        ) as file:
            for group in groups:
                if self._schema.see(cells for _, cells in group):
                    raise _Misfit
                columns = zip(*(self._row(entry, cells) for entry, cells in group), strict=True)
                arrays = [self._array(values, kind) for values, kind in zip(columns, types, strict=True)]
                file.write_table(arrow.Table.from_arrays(arrays, schema=schema))

    def _row(self, entry: Entry, cells: Cells) -> list[Any]:
        row = [_value(self._schema.types[slot], cells.pop(slot, None)) for slot in self._columns.slots]
        if self._columns.extra:
            row.append(jsontext.dumps(extra_object(cells, self._output_field, self._names)) if cells else None)
        if self._columns.error:
            row.append(_valid(f"{entry.kind}: {entry.message or ''}") if entry.kind is not None else None)
        return row

    def _array(self, values: Sequence[Any], kind: Any) -> Any:
        """A column. Vectors of one length are put end to end, without looking at their numbers."""
        arrow = self._arrow
        if not arrow.types.is_fixed_size_list(kind):
            return arrow.array(values, type=kind)
        numpy = importlib.import_module("numpy")
        none = numpy.zeros(kind.list_size, dtype=numpy.float32)
        whole = numpy.concatenate([none if value is None else value for value in values])
        mask = arrow.array([value is None for value in values])
        return arrow.FixedSizeListArray.from_arrays(arrow.array(whole), type=kind, mask=mask)

    def _vectors(self) -> Any:
        """As vector stores want them: of a fixed length, which an output has unless its model was changed."""
        lengths = self._schema.lengths
        return self._arrow.list_(self._arrow.float32(), next(iter(lengths)) if len(lengths) == 1 else -1)

    def _arrow_type(self, slot: Slot) -> Any:
        arrow = self._arrow
        known = {
            Type.BOOL: arrow.bool_(),
            Type.INT: arrow.int64(),
            Type.LONG: arrow.int64(),
            Type.FLOAT: arrow.float64(),
            Type.TEXTS: arrow.list_(arrow.string()),
            Type.INTS: arrow.list_(arrow.int64()),
            Type.FLOATS: arrow.list_(arrow.float32() if slot == WHOLE else arrow.float64()),
            Type.VECTORS: self._vectors(),
        }
        return known.get(self._schema.types[slot], arrow.string())


class _Writable:
    """The part of a file that pyarrow writes to."""

    closed = False

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._size = 0

    def write(self, data: bytes) -> int:
        self._write(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self.closed = True


def _value(type_: Type, value: Json) -> Any:
    if value is None:
        return None
    if type_ in {Type.JSON, Type.EMPTY}:
        return jsontext.dumps(value)
    if type_ is Type.TEXTS:
        return [_valid(text) for text in value]
    if type_ is Type.FLOATS:
        return [float(number) for number in value] if int in map(type, value) else value
    return _valid(value) if isinstance(value, str) else value


def _valid(text: str) -> str:
    """Text that UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow", hint="pip install 'lcbatch[parquet]'") from error
