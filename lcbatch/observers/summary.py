"""The closing: what happened, in a few lines for people (`print_summary`) or as JSON for programs (`summary_json`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from lcbatch.observers.figures import CallFigures, ErrorFigure, Percentiles, RowFigures, Snapshot, StepFigures
from lcbatch.observers.format import clean_block, clean_text, count, counted, dollars, duration, rate
from lcbatch.records import Json

if TYPE_CHECKING:
    from rich.console import Group

SLOW_SHOWN = 3
SLOW_FROM_ROWS = 10
"""Fewer rows need no list of the slowest: it would name nearly all of them."""

HELD_FROM_S = 2.0
"""Below it there are only a few samples."""

MODELS_SHOWN = 3
STEPS_SHOWN = 12
MESSAGE_CHARS = 160
_LABEL_WIDTH = 9


@dataclass(frozen=True, slots=True)
class _Line:
    """One figure: `label` in the left column (empty: goes on with the one above); `grave` lines are shown in red."""

    label: str
    text: str
    grave: bool = False


def summary_text(snapshot: Snapshot, errors_path: str | None = None) -> str:
    """Aligned plain lines, each ended by a line break. `errors_path` is shown where rows failed."""
    lines = [f"{line.label:<{_LABEL_WIDTH}} {line.text}" for line in _lines(snapshot, errors_path)]
    if snapshot.continue_with:
        lines.append(f"{_continue_label(snapshot)}\n  {clean_block(snapshot.continue_with)}")
    return "".join(f"{line}\n" for line in lines)


def render_summary(snapshot: Snapshot, errors_path: str | None = None) -> Group:
    """The same lines with colours, for `rich`. Print it with `crop=False`: a cut command is no use."""
    from rich.console import Group, RenderableType  # noqa: PLC0415 - rich only where something is drawn
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 1))
    table.add_column(width=_LABEL_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for line in _lines(snapshot, errors_path):
        table.add_row(Text(line.label, style="bold"), Text(line.text, style="red" if line.grave else ""))
    parts: list[RenderableType] = [table]
    if snapshot.continue_with:
        parts.append(Text(_continue_label(snapshot), style="bold"))
        command = f"  {clean_block(snapshot.continue_with)}"
        parts.append(Text(command, style="cyan", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def print_summary(snapshot: Snapshot, stream: TextIO, *, is_terminal: bool, errors_path: str | None = None) -> None:
    """Write the closing: in colours on a terminal (NO_COLOR holds), plain elsewhere, whatever FORCE_COLOR says."""
    if not is_terminal:
        stream.write(summary_text(snapshot, errors_path))
        stream.flush()
        return
    from rich.console import Console  # noqa: PLC0415 - rich only where something is drawn

    console = Console(file=stream, force_terminal=True, highlight=False)
    with console.capture() as captured:
        console.print(render_summary(snapshot, errors_path), crop=False)
    # Not by the console itself: it ends the process with a code of its own where the reader has gone.
    stream.write(captured.get())
    stream.flush()


def summary_json(snapshot: Snapshot) -> dict[str, Json]:
    """The figures as plain JSON, for `--summary-json` and `--progress json`. Keys are stable and carry their units.

    Money is in US dollars (`cost_usd` is null as soon as one answered call had no known price; `known_cost_usd` has
    the rest), `_s` are seconds, `_per_s` are since the start (`recent_`: about the last 30 s). `rows.total` and
    `rows.left` are null while the input's size is unknown, `eta_s` while it cannot be told, `exit_code` while
    running. Percentiles are within 2 %, null while nothing was counted. Tokens, cost, calls and latency are of this
    run; `waited_s` is in call-seconds by reason, `held_s` in seconds of the run by what held it up. `steps` tells the calls by
    the step of the chain that made them; it is empty as long as there is only one.
    """
    return {
        "task": snapshot.task,
        "model": snapshot.model,
        "models": dict(snapshot.models),
        "output": snapshot.output,
        "elapsed_s": round(snapshot.elapsed_s, 3),
        "exit_code": snapshot.exit_code,
        "message": snapshot.message,
        "continue_with": snapshot.continue_with,
        "stopping": snapshot.stopping,
        "waiting_for": snapshot.waiting_for,
        "held_s": {gate: _rounded(seconds) for gate, seconds in snapshot.held_s.items()},
        "eta_s": _rounded(snapshot.eta_s),
        **_rows_json(snapshot.rows),
        **_calls_json(snapshot.calls),
        "steps": {name: _step_json(step) for name, step in snapshot.steps.items()},
        "slowest_rows": [
            {"id": row.id, "place": row.place, "latency_s": _rounded(row.latency_s)} for row in snapshot.slowest
        ],
        "errors": {
            figure.kind: {
                "count": figure.count,
                "example": {"id": figure.id, "place": figure.place, "message": figure.message},
            }
            for figure in snapshot.errors
        },
    }


def _rows_json(rows: RowFigures) -> dict[str, Json]:
    return {
        "rows": {
            "total": rows.total,
            "done": rows.done,
            "reused": rows.reused,
            "failed": rows.failed,
            "failed_before": rows.failed_before,
            "left": rows.left,
            "in_flight": rows.in_flight,
            "window": rows.window,
            "gone": rows.gone,
            "passed_over": rows.passed_over,
        },
        "rows_per_s": _rounded(rows.per_s_overall),
        "recent_rows_per_s": _rounded(rows.per_s),
        "row_latency_s": _percentiles_json(rows.latency),
    }


def _calls_json(calls: CallFigures) -> dict[str, Json]:
    return {
        "calls": {
            "attempts": calls.attempts,
            "answered": calls.answered,
            "failed": calls.failed,
            "in_flight": calls.in_flight,
            "maybe_paid": calls.maybe_paid,
            "retries": dict(calls.retries),
            "waited_s": {reason: _rounded(seconds) for reason, seconds in calls.waited_s.items()},
        },
        "call_latency_s": _percentiles_json(calls.latency),
        "tokens": {"prompt": calls.prompt_tokens, "completion": calls.completion_tokens},
        "tokens_per_s": _rounded(calls.tokens_per_s_overall),
        "recent_tokens_per_s": _rounded(calls.tokens_per_s),
        "cost_usd": None if calls.cost_usd is None else round(calls.cost_usd, 9),
        "known_cost_usd": round(calls.known_cost_usd, 9),
        "unpriced_calls": calls.unpriced,
    }


def _step_json(step: StepFigures) -> dict[str, Json]:
    return {
        "answered": step.answered,
        "failed": step.failed,
        "latency_s": _percentiles_json(step.latency),
        "tokens": {"prompt": step.prompt_tokens, "completion": step.completion_tokens},
        "cost_usd": None if step.cost_usd is None else round(step.cost_usd, 9),
        "known_cost_usd": round(step.known_cost_usd, 9),
        "unpriced_calls": step.unpriced,
    }


def _percentiles_json(figures: Percentiles) -> dict[str, Json]:
    return {
        "count": figures.count,
        "p50": _rounded(figures.p50_s),
        "p95": _rounded(figures.p95_s),
        "p99": _rounded(figures.p99_s),
        "max": _rounded(figures.max_s),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _lines(snapshot: Snapshot, errors_path: str | None) -> Iterator[_Line]:
    rows, calls = snapshot.rows, snapshot.calls
    yield _Line("rows", _outcomes(snapshot))
    speed = f", {rate(rows.per_s_overall)} rows/s" if rows.ended else ""
    yield _Line("time", duration(snapshot.elapsed_s) + speed)
    if calls.latency.count:
        yield _Line("latency", _latency(calls.latency))
    if rows.latency.count and calls.answered > rows.done:
        yield _Line("per row", f"{_latency(rows.latency)} ({counted(calls.answered, 'call')})")
    if calls.retries:
        yield _Line("retries", _retries(calls))
    if calls.tokens:
        speed = f" ({rate(calls.tokens_per_s_overall)}/s)" if snapshot.elapsed_s else ""
        yield _Line("tokens", f"{count(calls.prompt_tokens)} in, {count(calls.completion_tokens)} out{speed}")
    if calls.tokens or calls.known_cost_usd:
        yield _Line("cost", _cost(calls))
    yield from _under("by step", _steps(snapshot.steps))
    if held := held_text(snapshot.held_s):
        yield _Line("held up", held)
    yield _Line("model", _models(snapshot))
    if rows.ended >= SLOW_FROM_ROWS:
        slow = [f"{duration(row.latency_s)} {_where(row.id, row.place)}" for row in snapshot.slowest[:SLOW_SHOWN]]
        yield from _under("slowest", slow)
    yield from _under("failed", map(_error, snapshot.errors), grave=True)
    if snapshot.output:
        yield _Line("output", clean_text(snapshot.output))
    if errors_path and (rows.failed or rows.failed_before):
        yield _Line("errors", clean_text(errors_path))


def _under(label: str, texts: Iterable[str], *, grave: bool = False) -> Iterator[_Line]:
    """The label stands beside the first of them alone."""
    for text in texts:
        yield _Line(label, text, grave)
        label = ""


def _error(figure: ErrorFigure) -> str:
    message = clean_text(figure.message.removeprefix(f"{figure.place}: "), MESSAGE_CHARS)
    return f"{count(figure.count)} {figure.kind}, e.g. {_where(figure.id, figure.place)}: {message}"


def _outcomes(snapshot: Snapshot) -> str:
    rows = snapshot.rows
    parts = [f"{count(rows.done)} done"]
    for number, word in (
        (rows.reused, "reused"),
        (rows.failed, "failed"),
        (rows.failed_before, "failed before"),
        (rows.left or 0, "left"),
        (rows.gone, "gone from the input"),
        (rows.passed_over, "passed over"),
    ):
        if number:
            parts.append(f"{count(number)} {word}")
    return ", ".join(parts)


def _latency(figures: Percentiles) -> str:
    values = (("p50", figures.p50_s), ("p95", figures.p95_s), ("p99", figures.p99_s))
    return ", ".join(f"{name} {duration(value)}" for name, value in values if value is not None)


def _retries(calls: CallFigures) -> str:
    by_kind = ", ".join(f"{count(number)} {kind}" for kind, number in calls.retries.items())
    waited_s = sum(seconds for reason, seconds in calls.waited_s.items() if reason != "provider")
    paid = f"; {count(calls.maybe_paid)} may have been billed" if calls.maybe_paid else ""
    return f"{by_kind}; {duration(waited_s)} of waiting over all calls{paid}"


def held_text(held_s: Mapping[str, float]) -> str:
    """`provider 82 %, rpm 15 %, pause 3 %`: what the run waited for; nothing for a run too short to tell."""
    whole_s = sum(held_s.values())
    if whole_s < HELD_FROM_S:
        return ""
    shares = ((gate, round(100 * seconds / whole_s)) for gate, seconds in held_s.items())
    return ", ".join(f"{gate} {share} %" for gate, share in shares if share)


def _steps(steps: Mapping[str, StepFigures]) -> Iterator[str]:
    """`draft: 3 calls, p50 0.9 s, p95 1.2 s, 120 in, 60 out, $0.0012`, one line each."""
    for name, step in list(steps.items())[:STEPS_SHOWN]:
        failed = f" ({count(step.failed)} failed)" if step.failed else ""
        latency = "".join(
            f", {label} {duration(value)}"
            for label, value in (("p50", step.latency.p50_s), ("p95", step.latency.p95_s))
            if value is not None
        )
        tokens = f", {count(step.prompt_tokens)} in, {count(step.completion_tokens)} out"
        cost = f", {_cost(step)}" if step.known_cost_usd else ""
        yield f"{clean_text(name, 40)}: {counted(step.answered, 'call')}{failed}{latency}{tokens}{cost}"
    if len(steps) > STEPS_SHOWN:
        yield f"and {count(len(steps) - STEPS_SHOWN)} more (--summary-json has them all)"


def _cost(calls: CallFigures | StepFigures) -> str:
    if not calls.unpriced:
        return dollars(calls.known_cost_usd)
    if not calls.known_cost_usd:
        return "unknown: no price for this model"
    return f"{dollars(calls.known_cost_usd)} and {counted(calls.unpriced, 'call')} without a known price"


def _models(snapshot: Snapshot) -> str:
    """What was asked for, and what answered where that is more than the same name."""
    asked = clean_text(snapshot.model)
    names = [name for name in snapshot.models if name not in (snapshot.model, snapshot.model.partition(":")[2])]
    if not names:
        return asked
    by_rows = list(snapshot.models.items())
    if len(by_rows) == 1:
        return f"{asked}, answered by {clean_text(by_rows[0][0])}"
    shown = [f"{clean_text(name)} ({counted(number, 'row')})" for name, number in by_rows[:MODELS_SHOWN]]
    more = f" and {len(by_rows) - MODELS_SHOWN} more" if len(by_rows) > MODELS_SHOWN else ""
    return f"{asked}, answered by {', '.join(shown)}{more}"


def _where(row_id: str, place: str) -> str:
    """`people.csv:12 (id ada)`; a label that the place already shows is not said twice."""
    place, row_id = clean_text(place, 80), clean_text(row_id, 40)
    return f"{place} (id {row_id})" if row_id and row_id not in place else place or row_id


def _continue_label(snapshot: Snapshot) -> str:
    return "to continue:" if snapshot.exit_code else "next:"
