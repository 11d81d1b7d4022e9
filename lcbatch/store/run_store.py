"""The run store as the rest of lcbatch sees it."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from lcbatch import jsontext
from lcbatch.errors import Kind, LcbatchError
from lcbatch.events import RowsShared
from lcbatch.ports import SETTLED, Entry, Keyed, Name, Placed, View
from lcbatch.records import Json, Outcome, Row
from lcbatch.store import answers, marks, projections, reading, sharing, standing
from lcbatch.store.boot import boot_id
from lcbatch.store.damage import told
from lcbatch.store.facts import Answered, Lineage, ProjectionState, Requeued, Spent, answered_of
from lcbatch.store.placing import Gone, Placing
from lcbatch.store.replies import StoredReplies
from lcbatch.store.reserve import Reserve
from lcbatch.store.rows import restored_row
from lcbatch.store.schema import connect
from lcbatch.store.views import Views
from lcbatch.store.writer import Writer

_PAGE = 256


class RunStore:
    """One output's store, open for writing. Made by `open_store`; everything async waits for its commit.

    Implements ports.Projectable besides its own methods; `replies` are the answers of single calls. Raises OutputFailed once it
    cannot be written; answers that come after that land in the reserve.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, reserve: Reserve, name: str, *, is_new_name: bool
    ) -> None:
        self.path = path
        self._name = name
        self._is_new_name = is_new_name
        self._reserve = reserve
        self._chain_id = answers.output_chain(connection) or 0
        self._placing = Placing(0, 1 + standing.last_seq(connection), reading.generation(connection))
        self._first_new_row = 1 + answers.last_row(connection)
        self._dedupe = False
        self._run_id = 0
        self.mark = secrets.token_hex(8)
        self.beats = 0
        self._reader = connect(path, read_only=True)
        self._view_reader = connect(path, read_only=True)
        self._views = Views(
            self._view_reader,
            lambda: self._placing.generation,
            without_reopened=True,
            first_new_row=self._first_new_row,
        )
        self._writer = Writer(connection, path, reserve.write)
        self.replies = StoredReplies(self._reader, self._writer, self._first_new_row)

    def when_failed(self, tell: Callable[[LcbatchError], None]) -> None:
        """`tell` hears once of the first write that fails, as it does: calls may all be waiting for their replies by then."""
        self._writer.when_failed = tell

    @property
    def failed(self) -> bool:
        """Whether a write has failed: nothing more can be made durable, and the process has to leave without closing."""
        return self._writer.failure is not None

    @property
    def holds_rows(self) -> bool:
        """Whether an earlier run placed rows here."""
        return self._first_new_row > 1

    async def knows(self, mark: str, name: str) -> bool:
        """Whether the run that wrote a projection last is known here, up to the last of its positions."""
        return await self._writer.submit(lambda connection: marks.knows(connection, mark, name))

    def is_another_than(self, mark: str) -> bool:
        """Whether the run of this mark worked with another store. False for a store that got its name only in this opening."""
        return not self._is_new_name and not marks.is_of_store(mark, self._name)

    def mark_of(self, beat: int, *, ended: bool) -> str:
        """By what the lock file knows the run under way."""
        return marks.mark(self.mark, beat, self._name, ended=ended)

    async def left(self, name: str) -> Mapping[str, Json] | None:
        """The state in which the last run left a projection; None where there was none."""
        text = await self._writer.submit(lambda connection: projections.state_of(connection, name))
        return self._parsed(text)

    def _parsed(self, text: str | None) -> Mapping[str, Json] | None:
        """An object of the store's. Raises RefusedError where it is none."""
        with told(self.path):
            return None if text is None else dict(jsontext.loads(text))

    # --- before the first row

    async def lineage(self, identity: Mapping[str, Json]) -> Lineage:
        """Register the chain; say whether it is the one that the output was made with. Changes nothing that counts."""
        text = jsontext.canonical(identity).decode()
        fingerprint = jsontext.digest(text.encode())
        chain_id, previous_id, previous, answered = await self._writer.submit(
            lambda connection: answers.register_chain(connection, fingerprint, text)
        )
        return Lineage(chain_id, fingerprint, self._parsed(previous), previous_id in {None, chain_id}, answered)

    async def adopt(self, lineage: Lineage, *, keep_answers: bool, forget: bool = False) -> None:
        """From now on the output is made with this chain; `keep_answers` lets those of the last one count as its own.

        Otherwise every row is asked anew, and what stands is replaced by what comes; `forget` takes it away at once.
        """
        self._answer_under(lineage)
        self._placing = Placing(lineage.chain_id, self._placing.next_seq, self._placing.generation)
        await self._writer.submit(
            lambda connection: answers.adopt_chain(
                connection, lineage.chain_id, keep_answers=keep_answers, forget=forget
            )
        )

    async def answer_with(self, lineage: Lineage) -> None:
        """Answers of this run are made by another chain, and count for the output's own (`retry -m OTHER`)."""
        self._answer_under(lineage)

        def work(connection: sqlite3.Connection) -> None:
            base = answers.output_chain(connection)
            if base is not None:
                answers.accept(connection, base, lineage.chain_id)

        await self._writer.submit(work)

    def _answer_under(self, lineage: Lineage) -> None:
        self._chain_id = lineage.chain_id
        self.replies.chain_fingerprint = lineage.fingerprint

    async def ever_succeeded(self) -> bool:
        """Whether any model call was ever answered here."""
        return await self._writer.submit(answers.any_reply)

    async def spent(self) -> Spent:
        """What was ever spent on this output, counting what was perhaps billed in vain. One pass over the replies."""

        def work(connection: sqlite3.Connection) -> Spent:
            (usd, tokens), (perhaps_usd, perhaps_tokens) = answers.paid(connection), answers.perhaps_paid(connection)
            return Spent(usd + perhaps_usd, tokens + perhaps_tokens)

        return await self._writer.submit(work)

    async def begin_run(self, command: str, job: Mapping[str, Json], *, in_flight: int) -> None:
        """Note who runs; take the reserve's space."""
        self._reserve.prepare(in_flight)
        text = jsontext.dumps(job)
        self._run_id = await self._writer.submit(
            lambda connection: answers.begin_run(connection, command, text, boot_id(), self.mark)
        )

    async def note_figures(self, figures: Mapping[str, Json]) -> None:
        """Keep the run's figures as they are now, for whoever asks how it goes."""
        text = jsontext.dumps(figures)
        await self._writer.submit(lambda connection: answers.note_figures(connection, self._run_id, text))

    async def end_run(self, exit_code: int) -> None:
        """Note how the run ended; all is safe from power loss on return."""
        await self._writer.submit(lambda connection: answers.end_run(connection, self._run_id, exit_code), durable=True)

    # --- placing the input

    async def hold(self) -> None:
        """Open one transaction over everything until `release`: what is planned in it can be taken back whole."""
        await self._writer.hold()

    async def release(self, *, commit: bool) -> None:
        """Keep what was done since `hold`, or none of it."""
        await self._writer.release(commit=commit)

    async def begin_placing(self, *, dedupe: bool = False) -> None:
        """Read the input from its beginning. With `dedupe` rows that are equal for the chain share what one of them comes to."""
        self._dedupe = dedupe
        await self._writer.submit(partial(self._placing.begin, dedupe=dedupe))

    async def place(self, batch: Sequence[Keyed]) -> list[Placed]:
        """Give the next items of the input their rows."""
        return await self._writer.submit(lambda connection: self._placing.place(connection, batch))

    async def gone(self) -> list[Gone]:
        """What stands in the output and is no longer in the input. Call at the input's end."""
        return await self._writer.submit(self._placing.gone)

    async def documents(self) -> tuple[frozenset[str], frozenset[str]]:
        """Ids of documents: those that stood in the output before what is held was done, and those placed since."""
        stood = reading.standing_documents(self._reader)
        here = await self._writer.submit(
            lambda connection: reading.placed_documents(connection, self._placing.generation, self._placing.ordinal)
        )
        return stood, here

    async def failed_count(self) -> int:
        """Rows that stand failed."""
        return await self._writer.submit(standing.failed_count)

    async def standing_count(self) -> int:
        """Rows that stand in the output, done or failed."""
        return await self._writer.submit(standing.standing_count)

    async def stood_count(self) -> int:
        """Rows that stood in the output, done or failed, when this reading of the input began."""
        return await self._writer.submit(lambda _: self._placing.stood)

    async def all_stand(self) -> bool:
        """Whether every row of the input as it was read stands in the output, done or failed."""
        return await self._writer.submit(lambda connection: standing.all_stand(connection, self._placing.generation))

    async def end_placing(self, gone: Sequence[Gone]) -> None:
        """The input was read to its end: its places count from now on, and what is `gone` leaves the output.

        What was edited leaves once its successor stands; what is marked to stay is only given a name of its own, where
        another row has its id.
        """

        def work(connection: sqlite3.Connection) -> None:
            standing.drop(connection, [row.row_id for row in gone if not row.stays and row.successor is None])
            for row in gone:
                if row.stays and row.namesake:
                    standing.rename(connection, row.row_id, -row.row_id)
            standing.succeed(connection, [(row.row_id, row.successor) for row in gone if row.successor is not None])
            self._placing.finish(connection)

        await self._writer.submit(work)

    async def settle(self) -> None:
        """No more rows are asked in this run: what was to be asked again, and was not, stands as it did before.

        Call it before the outputs are finished. A run that did not come to that is made up for when the store is opened.
        """

        def work(connection: sqlite3.Connection) -> None:
            self._placing.next_seq = standing.settle(connection, self._placing.next_seq)

        await self._writer.submit(work)

    async def departed(self) -> list[Name]:
        """Names of rows that left the output or lost their answer, and are perhaps still in a sink."""
        return await self._writer.submit(standing.departed)

    async def forget_departed(self) -> None:
        """No sink holds them any more."""
        await self._writer.submit(standing.forget_departed)

    # --- rows from the store alone

    async def requeue(self, kinds: frozenset[Kind] | None, *, dedupe: bool = False) -> Requeued:
        """Take failed rows (of these kinds) up again; their failed call is asked anew, with `dedupe` one for all equal rows.

        All that stand failed are chosen from, wherever the input's last reading came to. They stand so until something comes
        of it: those that an earlier retry took up and did not come to are among them, and what it did ask is not asked again.
        """

        self._dedupe = dedupe

        def work(connection: sqlite3.Connection) -> Requeued:
            chosen = standing.failed_rows(connection, kinds)
            for row_id, kind in chosen:
                answers.supersede(connection, row_id, kind)
                standing.reopen(connection, row_id)
            standing.choose(connection, [row_id for row_id, _ in chosen])
            answered = 0
            if dedupe:
                sharing.begin(connection)
                answered, self._placing.next_seq = sharing.share_chosen(
                    connection, answers.output_chain(connection) or 0, self._placing.next_seq
                )
            standing.remember_todo(connection)
            return Requeued(len(chosen), answered)

        return await self._writer.submit(work)

    async def pending(self, *, only_requeued: bool = False) -> AsyncGenerator[list[Row]]:
        """Placed rows that do not stand yet, or the requeued ones, in input order, a page at a time.

        What ends meanwhile is not repeated.
        """

        def page(connection: sqlite3.Connection, after: int) -> list[standing.Columns]:
            if only_requeued:
                return standing.todo_page(connection, after, _PAGE)
            return standing.pending_page(connection, self._placing.generation, after, _PAGE)

        after = -1
        while columns := await self._writer.submit(partial(page, after=after)):
            after = columns[-1][-1]
            with told(self.path):
                rows = [restored_row(row[:-2], row[-2]) for row in columns]
            yield rows

    # --- parsed again

    async def output_identity(self) -> Mapping[str, Json] | None:
        """The chain that the output is made with, None where no run ever began."""

        def work(connection: sqlite3.Connection) -> str | None:
            chain_id = answers.output_chain(connection)
            return None if chain_id is None else answers.identity_of(connection, chain_id)

        text = await self._writer.submit(work)
        return self._parsed(text)

    async def answered(self) -> AsyncGenerator[list[Answered]]:
        """All that stands and counts for the output's chain as it is now, a page at a time, in the order of the output.

        What is replaced meanwhile is not given again.
        """
        chain_id, last = await self._writer.submit(
            lambda connection: (answers.output_chain(connection) or 0, standing.last_seq(connection))
        )
        page = partial(standing.answered_page, chain_id=chain_id, last=last, size=_PAGE)
        after = 0
        while columns := await self._writer.submit(partial(page, after=after)):
            after = columns[-1][0]
            with told(self.path):
                group = [answered_of(row) for row in columns]
            yield group

    async def replace(self, outcomes: Sequence[Outcome]) -> None:
        """Let these stand in the place of what rows had, under the chain that was adopted last."""
        columns = [answers.outcome_columns(outcome, self._chain_id) for outcome in outcomes]

        def work(connection: sqlite3.Connection) -> None:
            self._placing.next_seq = answers.replace_outcomes(connection, columns, self._placing.next_seq)

        await self._writer.submit(work)

    # --- answers

    async def put(self, outcomes: Sequence[Outcome]) -> RowsShared:
        """Make outcomes stand, for rows that waited for them too. Returns when they are committed; how many waited.

        Raises OutputFailed when they could not be, and are in the reserve.
        """
        columns = [answers.outcome_columns(outcome, self._chain_id) for outcome in outcomes]

        def work(connection: sqlite3.Connection) -> RowsShared:
            next_seq = answers.insert_outcomes(connection, columns, self._placing.next_seq)
            shared = RowsShared()
            if self._dedupe:
                shared, next_seq = sharing.share(connection, [row[0] for row in columns], next_seq)
            self._placing.next_seq = next_seq
            return shared

        return await self._writer.submit(work, rescue=lambda: [answers.rescue_line("outcome", row) for row in columns])

    # --- projections

    async def projection(self, view: View, options: Mapping[str, Json]) -> ProjectionState:
        """What was kept of this projection; other options than last time make it stale."""
        text = jsontext.canonical(options).decode()
        position, kept, stale, boot = await self._writer.submit(
            lambda connection: projections.load_projection(connection, view, text)
        )
        state = self._parsed(kept)
        state = None if state is None else marks.plain(state)
        # Cut off, and the machine has started since: what was never synced may be anything.
        torn = state is not None and not state.get(SETTLED) and boot not in {None, boot_id()}
        return ProjectionState(position, state, stale or torn)

    async def is_stale(self, view: View) -> bool:
        """Whether something that the view showed has changed since its last rebuild."""
        return await self._writer.submit(lambda connection: projections.projection_is_stale(connection, view.name))

    async def commit_position(self, name: str, position: int, state: Mapping[str, Json]) -> int:
        """Make everything before it, and this position, safe from power loss (after the sink's own sync)."""
        self.beats = beat = self.beats + 1
        text = marks.stamped(state, self.mark, beat)
        await self._writer.submit(
            lambda connection: projections.save_projection(connection, name, position, text, boot_id()), durable=True
        )
        return beat

    def entries(self, view: View, after: int) -> Iterator[list[Entry]]:
        """ports.Projectable: groups of entries after a position."""
        return self._views.after(view, after)

    def all_entries(self, view: View) -> Iterator[Entry]:
        """ports.Projectable: everything that stands."""
        return self._views.all(view)

    def has_unplaced(self) -> bool:
        """ports.Projectable: whether rows stand that have no place in the input."""
        return self._views.has_unplaced()

    async def close(self) -> None:
        """Finish what waits and close, unless a write has failed: then nothing is touched."""
        if not self.failed:
            self._reader.close()
            self._view_reader.close()
        await self._writer.close()
        if not self.failed:
            self._reserve.release()
