"""What of a row an output shows: the options that choose it, and a row's shown input fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from lcbatch import jsontext
from lcbatch.errors import UsageError
from lcbatch.job import OutputOptions
from lcbatch.ports import Entry
from lcbatch.records import ERROR_FIELD, SAMPLE_FIELD, Json
from lcbatch.vectors import as_json

META = "meta"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which fields an output shows. `keep` None keeps all of the input's; with `samples` each answer has its number.

    `vectors`: answers are packed vectors and shown as numbers, with `unit` divided by their length.
    """

    output_field: str = "output"
    keep: tuple[str, ...] | None = None
    meta: bool = False
    vectors: bool = False
    unit: bool = False
    samples: bool = False

    @classmethod
    def of(cls, options: OutputOptions, *, vectors: bool = False, samples: bool = False) -> Selection:
        """Read `--keep all|none|a,b` and its companions. Raises UsageError for an output field that cannot be."""
        if not options.output_field or (options.meta and options.output_field == META):
            raise UsageError(f"--output-field cannot be {options.output_field!r}", hint="choose another name for it")
        words = tuple(word.strip() for word in options.keep.split(",") if word.strip())
        keep = None if words == ("all",) else () if words == ("none",) else words
        return cls(
            output_field=options.output_field,
            keep=keep,
            meta=options.meta,
            vectors=vectors,
            unit=vectors and options.normalize,
            samples=samples,
        )

    def shape(self) -> Mapping[str, Json]:
        """Plain JSON that changes exactly when the output would look different."""
        shape: dict[str, Json] = jsontext.loads(jsontext.dumps(asdict(self)))
        # Outputs of older versions know nothing of these, and look the same.
        if not self.vectors:
            del shape["vectors"], shape["unit"]
        if not self.samples:
            del shape["samples"]
        return shape

    def answer(self, entry: Entry) -> str:
        """The answer as JSON text: a row's own, or the numbers of its vector."""
        if entry.kind is not None or entry.output is None:
            return "null"
        return as_json(jsontext.loads(entry.output), unit=self.unit) if self.vectors else entry.output

    def fields(self, entry: Entry) -> dict[str, Json]:
        """The input fields that are shown: `id` and `path` of a document (never its text), else what is kept; the sample."""
        given = jsontext.loads(entry.fields)
        if entry.is_document:
            shown = {"id": entry.id, "path": given.get("path", entry.id)}
        elif self.keep is None:
            shown = dict(given)
        else:
            shown = {name: given[name] for name in self.keep if name in given}
        if self.samples:
            shown.pop(SAMPLE_FIELD, None)
            shown[SAMPLE_FIELD] = entry.sample
        return shown


def free_name(name: str, taken: Iterable[str]) -> str:
    """`name`, or with as many underscores before it as make it new."""
    known = set(taken)
    while name in known:
        name = "_" + name
    return name


def error_name(fields: Iterable[str]) -> str:
    """`error`, or `_lcbatch_error` where the input has a field of that name already."""
    return ERROR_FIELD if ERROR in fields else ERROR
