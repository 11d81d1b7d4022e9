"""What is to be done: the input's rows with their identities, held against what the store answers.

A first run, and any run that reads a pipe, places rows as they arrive. A run over an input that can be read twice, on a
store that holds rows already, places the whole input first, inside one transaction: what it finds is judged before anything
is touched, and taken back whole when it is refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice

from lcbatch import jsontext
from lcbatch.chains.structured import StructuredChain
from lcbatch.errors import ConfigError, Failure, InputDamaged, Kind, LcbatchError, RefusedError, UsageError
from lcbatch.events import InputRead, InputSize, Notice, RowsPlanned
from lcbatch.job import EMBED, Job
from lcbatch.optionvalues import suggestion
from lcbatch.ports import Chain, Emit, Keyed, Placed, Source, State
from lcbatch.records import RAW_FIELD, SAMPLE_FIELD, Document, Fields, Item, Json, Row
from lcbatch.sinks.paths import TABLES, form_of
from lcbatch.store.facts import Lineage
from lcbatch.store.placing import Gone
from lcbatch.store.run_store import RunStore

_HEAD_ROWS = 100
"""So many rows may lack a field before that is taken for a mistake in the template."""

_GROUP_ROWS = 256
"""So many rows are placed at once, also where each item is a hundred of them."""

_REMOVED_SHARE = 0.10


@dataclass(slots=True)
class Plan:
    """One run's plan over one store.

    `placed` says that the whole input, as far as it can be read, has its places: the rows to run come from the store then.
    `exhausted` says, afterwards, that all rows to run were handed out, and `damaged` what of the input could not be read: what
    stands there is unknown, so nothing counts as gone. `lenient` is for pipes, whose store is only a memory of what an earlier
    run of the same command did not deliver: nothing is refused, and nothing stays that was not read this time.
    """

    job: Job
    store: RunStore
    chain: Chain
    source: Source
    emit: Emit
    stop_reason: Callable[[], LcbatchError | None]
    lenient: bool = False
    rows_read: int = 0
    placed: bool = False
    exhausted: bool = False
    damaged: InputDamaged | None = None
    _called: int = 0

    @property
    def samples(self) -> int:
        """How many answers each item of the input is to get."""
        return self.job.chain.samples or 1

    @property
    def rows_placed(self) -> int:
        """Rows that the items read so far have become."""
        return self.rows_read * self.samples

    async def adopt_chain(self) -> None:
        """Take up the chain, if the output was made with it or the user wants the change. Raises RefusedError."""
        identity = self.identity_of(self.chain)
        lineage = await self.store.lineage(identity)
        mode = "redo" if self.lenient else self.job.run.on_change
        if not lineage.same and lineage.answered and mode == "refuse":
            raise _changed(lineage, identity)
        if (
            not lineage.same
            and mode == "keep"
            and lineage.previous
            and lineage.previous.get("uses") != identity["uses"]
        ):
            raise RefusedError(
                "the prompt names other fields than before, so old answers cannot be matched to rows",
                hint="ask everything anew with --on-change redo",
            )
        await self.store.adopt(lineage, keep_answers=mode == "keep", forget=self.lenient)

    @staticmethod
    def identity_of(chain: Chain) -> Mapping[str, Json]:
        """The chain's identity as the store keeps it: with the fields that it uses, which decide the rows' keys."""
        return {**chain.identity, "uses": sorted(chain.uses) if chain.uses is not None else None}

    async def rows(self) -> AsyncGenerator[Row]:
        """The rows to run, in input order, no more than --limit."""
        limit = self.job.run.limit
        pages = self._placed_pages() if self.placed else self._streamed_pages()
        async with aclosing(pages):
            async for page in pages:
                for row in page:
                    if limit is not None and self._called >= limit:
                        return
                    self._called += 1
                    yield row
        self.exhausted = self.damaged is None

    async def place_everything(self) -> None:
        """Place the whole input in the transaction that is held. Raises RefusedError, ConfigError, UsageError."""
        await self.store.begin_placing(dedupe=self.job.chain.dedupe)
        async with aclosing(self._place()) as placing:
            async for _ in placing:
                if reason := self.stop_reason():
                    raise reason
        await self._finish_reading()

    async def _placed_pages(self) -> AsyncGenerator[list[Row]]:
        async with aclosing(self.store.pending()) as pages:
            async for page in pages:
                yield page

    async def _streamed_pages(self) -> AsyncGenerator[list[Row]]:
        await self.store.begin_placing(dedupe=self.job.chain.dedupe)
        async with aclosing(self._place()) as placing:
            async for placed in placing:
                yield [one.row for one in placed if one.row is not None]
        if self.damaged is None:
            await self._finish_reading()

    async def _place(self) -> AsyncGenerator[list[Placed]]:
        async with aclosing(self._checked_batches()) as batches:
            async for batch in batches:
                rows = self._samples_of(batch)
                while group := list(islice(rows, _GROUP_ROWS)):
                    placed = await self.store.place(group)
                    self.emit(_tally(placed))
                    yield placed
                self.rows_read += len(batch)

    async def _finish_reading(self) -> None:
        """The input has been read as far as it can be: what is gone from it is judged, and leaves the output."""
        gone = await self._judged_gone(await self.store.gone())
        await self.store.end_placing(gone)
        self.placed = True
        if not self.rows_read and self.damaged is None:
            self.emit(Notice("there are no rows in the input"))
        self.emit(RowsPlanned(gone=sum(not row.stays and not row.edited and row.sample < self.samples for row in gone)))
        self.emit(InputRead(self.rows_placed, to_the_end=self.damaged is None, passed_over=self.source.passed_over))
        self.emit(InputSize(self.rows_placed))

    async def _judged_gone(self, gone: Sequence[Gone]) -> list[Gone]:
        """What stays although it is gone from the input is marked. Raises RefusedError.

        Edited rows do not count as gone, and rows of a chain that is no longer asked count for nothing. Samples beyond
        --samples are not gone from the input: they are no longer asked for, and leave the output whatever --on-removed says.
        """
        if self.lenient:
            return [replace(row, successor=None) for row in gone]
        run = self.job.run
        surplus = {row.row_id for row in gone if row.sample >= self.samples}
        partly_seen = run.limit is not None or self.damaged is not None
        removed = [row for row in gone if not row.edited and not row.stale and row.row_id not in surplus]
        keep = run.on_removed == "keep"
        if removed and run.on_removed == "refuse" and not partly_seen:
            stood = await self.store.stood_count() - len(surplus)
            if not self.rows_read or len(removed) > _REMOVED_SHARE * stood:
                if self.source.rereadable:
                    raise _removed(removed, stood, self.rows_read)
                # A pipe is judged when it has been answered, and paid for.
                keep = True
                self.emit(Notice(_not_piped(len(removed))))
        if surplus and not partly_seen:
            self.emit(Notice(_fewer_samples(len(surplus), self.samples, 1 + max(row.sample for row in gone))))
        return [
            replace(
                row, stays=not row.edited and (partly_seen or (keep and not row.stale and row.row_id not in surplus))
            )
            for row in gone
        ]

    async def _checked_batches(self) -> AsyncGenerator[list[Item]]:
        """The source's batches, held back until one row has all that the chain needs."""
        held: list[Item] = []
        fits = False
        async with aclosing(self._readable_batches()) as batches:
            async for batch in batches:
                held += batch
                fits = fits or any(self._judged(item).failure is None for item in batch)
                if fits or len(held) >= _HEAD_ROWS:
                    self._check_head(held, fits=fits)
                    yield [self._judged(item) for item in held]
                    held = []
                    fits = True
        if held:
            self._check_head(held, fits=fits)
            yield [self._judged(item) for item in held]

    async def _readable_batches(self) -> AsyncGenerator[list[Item]]:
        """The source's batches; what could not be read behind them is noted."""
        async with aclosing(self.source.batches()) as batches:
            try:
                async for batch in batches:
                    yield batch
            except InputDamaged as damaged:
                self.damaged = damaged

    def _judged(self, item: Item) -> Item:
        """The item, failed when it lacks what the chain needs."""
        if item.failure is not None or (name := self.chain.missing(_offered(item))) is None:
            return item
        return replace(item, failure=Failure(Kind.BAD_ROW, f"{item.place}: there is no field {name!r}"))

    def _check_head(self, items: Sequence[Item], *, fits: bool) -> None:
        if self.rows_read:
            return
        readable = [item for item in items if RAW_FIELD not in item.fields]
        for item in readable:
            _refuse_clash(item, self.job)
            if isinstance(self.chain, StructuredChain):
                refuse_column_clash(item.fields, self.job, self.chain.schema.names)
        self._look_for_kept(readable)
        # A document that cannot be read lacks its text for a reason of its own, which says nothing about the template.
        whole = (item for item in readable if item.failure is None)
        lacking = next((name for item in whole if (name := self.chain.missing(_offered(item)))), None)
        if not fits and lacking is not None:
            known = {name: None for item in readable for name in _offered(item)}
            what = (
                "none of the rows has" if len(readable) < _HEAD_ROWS else f"none of the first {len(readable)} rows has"
            )
            raise ConfigError(
                f"{what} a field {lacking!r}",
                hint=_instead(lacking, known, readable, self.job),
            )

    def _look_for_kept(self, items: Sequence[Item]) -> None:
        """Say which names in --keep no row has: a misspelled one would be missed in a finished output."""
        if self.job.output.keep in {"all", "none"} or not items:
            return
        known = {name: None for item in items for name in ("id", *_offered(item))}
        for name in sorted(name for name in _kept({}, self.job) if name not in known):
            rows = "row has" if len(items) == 1 else f"{len(items)} rows have"
            self.emit(Notice(f"--keep: the first {rows} no field {name!r}; {suggestion(name, known)}"))

    def _samples_of(self, batch: Sequence[Item]) -> Iterator[Keyed]:
        """The rows that the items become: one each, or as many as --samples, one after the other.

        The first has the identity that the item has without --samples, so that its answer counts for both.
        """
        for keyed in map(self._keyed, batch):
            yield keyed
            for sample in range(1, self.samples):
                content = jsontext.digest(keyed.content, b"sample", sample.to_bytes(8, "little"))
                yield replace(keyed, content=content, sample=sample)

    def _keyed(self, item: Item) -> Keyed:
        """The item's identities. A document counts by its bytes, never by where it lies, unless the template says so."""
        uses = self.chain.uses
        document = item.document.digest.encode() if item.document is not None and _wants_text(uses) else b""
        used = item.fields if uses is None else {name: item.fields[name] for name in uses if name in item.fields}
        if item.failure is not None or (item.document is not None and uses is None):
            used = {name: value for name, value in item.fields.items() if item.document is None or name != "path"}
        content = jsontext.digest_of(used, document)
        rest = [
            item.id,
            item.document and [item.document.path, item.document.digest, *_read_as(item.document)],
            item.failure and item.failure.message,
        ]
        return Keyed(item, content, jsontext.digest_of([item.fields, rest]))


def _read_as(document: Document) -> list[str]:
    """What decides beside its bytes whether a document can be read. It makes no other row: an answer stays its answer."""
    return [] if document.encoding == "utf-8" else [document.encoding]


def _wants_text(uses: frozenset[str] | None) -> bool:
    return uses is None or "text" in uses


def _offered(item: Item) -> Fields:
    """The fields that a chain will see: a document's text is read when it is run."""
    return item.fields if item.document is None else {**item.fields, "text": ""}


def _tally(placed: Sequence[Placed]) -> RowsPlanned:
    states = [one.state for one in placed]
    return RowsPlanned(
        reused=states.count(State.ANSWERED),
        failed_before=states.count(State.FAILED_BEFORE),
        pending=states.count(State.PENDING),
    )


def refuse_column_clash(fields: Fields, job: Job, names: Sequence[str]) -> None:
    """Raise UsageError where a field of the answers would be a column beside an input field of the same name."""
    if not job.output.flatten or form_of(job.output.output, job.task) not in TABLES:
        return
    kept = _kept(fields, job)
    for name in names:
        if name in fields and name in kept:
            raise UsageError(
                f"the input has a field {name!r} already, and so has the --schema",
                hint="leave the input's out with --keep, or keep the answer in one column with --no-flatten",
            )


def _kept(fields: Fields, job: Job) -> Collection[str]:
    keep = job.output.keep
    return fields if keep == "all" else {name.strip() for name in keep.split(",")}


def _refuse_clash(item: Item, job: Job) -> None:
    if job.chain.samples is not None and job.output.output_field == SAMPLE_FIELD:
        raise UsageError(f"--output-field cannot be {SAMPLE_FIELD!r} with --samples", hint="choose another name for it")
    if item.document is not None:
        return
    kept = _kept(item.fields, job)
    out = "leave the field out with --keep"
    ours = {job.output.output_field: f"name the answer otherwise with --output-field, or {out}"}
    if job.output.meta:
        ours["meta"] = out
    if job.chain.samples is not None:
        ours[SAMPLE_FIELD] = f"--samples numbers the answers there: {out}, or rename it"
    for name, hint in ours.items():
        if name in item.fields and name in kept:
            raise UsageError(f"the input has a field {name!r} already", hint=hint)


def _instead(lacking: str, known: Mapping[str, None], items: Sequence[Item], job: Job) -> str:
    """What to do about a field that no row has. A user's own chain asks for fields of its own."""
    if job.chain.chain is not None:
        wanted = "; a chain that takes one value gets the field that --key names" if lacking == "input" else ""
        return suggestion(lacking, known) + wanted
    if job.chain.prompt is not None or lacking != ("text" if job.task == EMBED else "prompt"):
        return suggestion(lacking, known)
    return _without_template(items, job.task)


def _without_template(items: Sequence[Item], task: str) -> str:
    """Suggest a template over the field that holds the most text."""
    offered = _offered(items[0]) if items else {}
    name = max(offered, key=lambda name: len(str(offered[name])), default="text")
    if task == EMBED:
        return f"say what to embed with -p, as in -p '{{{name}}}'"
    return f'say what to ask with -p, as in -p "Summarize: {{{name}}}"'


def _changed(lineage: Lineage, identity: Mapping[str, Json]) -> RefusedError:
    assert lineage.previous is not None
    names = sorted(set(lineage.previous) | set(identity))
    before = lineage.previous
    changes = [
        f"  {name}: {in_a_line(_apart(before.get(name), identity.get(name)))}"
        f" -> {in_a_line(_apart(identity.get(name), before.get(name)))}"
        for name in names
        if before.get(name) != identity.get(name)
    ]
    return RefusedError(
        f"the chain changed since this output was made, which concerns {lineage.answered} rows:\n" + "\n".join(changes),
        hint="--on-change redo asks them all anew, --on-change keep leaves answers as they are; nothing was touched",
    )


def _apart(value: Json, other: Json) -> Json:
    """Of two objects what is not alike: in a schema that is cut to a line, the difference would be behind the cut."""
    if not (isinstance(value, dict) and isinstance(other, dict)):
        return value
    return {
        name: _apart(one, other.get(name))
        for name, one in sorted(value.items())
        if name not in other or one != other[name]
    }


def in_a_line(value: Json) -> str:
    """A value as JSON, cut to what fits a message."""
    text = jsontext.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."  # noqa: PLR2004 - a line's worth


def _fewer_samples(surplus: int, samples: int, before: int) -> str:
    rows = "1 answer leaves" if surplus == 1 else f"{surplus} answers leave"
    back = f"--samples {before} brings {'it' if surplus == 1 else 'them'} back"
    return f"{rows} the output, since --samples is {samples} now; the store keeps what was paid: {back}"


def _not_piped(removed: int) -> str:
    rows = "1 row" if removed == 1 else f"{removed} rows"
    return f"kept, although not piped in this time: {rows} of this output (--on-removed drop takes them out)"


def _removed(removed: Sequence[Gone], stood: int, rows_read: int) -> RefusedError:
    read = "nothing was read" if not rows_read else f"{rows_read} rows were read"
    return RefusedError(
        f"{len(removed)} of the {stood} rows in this output are no longer in the input ({read})",
        hint="--on-removed drop takes them out of the output, --on-removed keep leaves them in; nothing was touched",
    )
