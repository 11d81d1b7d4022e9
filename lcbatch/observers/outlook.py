"""What a dry run found, in lines for people (`outlook_text`) or as JSON for programs (`outlook_json`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lcbatch.observers.format import clean_block, clean_text, count, counted, dollars, duration, rate
from lcbatch.records import Json

_LABEL_WIDTH = 9
_PROMPT_CHARS = 2000
_SHARES_SHOWN = 3
_DOCUMENTS_SHOWN = 20
_FIRST = {"changed": 0, "failed before": 1, "deleted": 2, "moved or deleted": 2, "moved": 3, "new": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsAhead:
    """Rows of the input by what a run would do with them.

    `to_call` = `stale` (answered under another prompt or model) + `again` (failed, and worth another try) + `changed` (documents
    of which another version was answered) + `new`, as far as --limit lets them; `beyond_limit` are the others. `shared` rows get
    an equal row's answer (--dedupe). `unreadable` of those to call fail without a call. `gone` rows stand in the output and are
    no longer in the input.
    """

    total: int
    reused: int
    failed_before: int
    to_call: int
    new: int
    stale: int
    again: int
    unreadable: int
    beyond_limit: int
    gone: int
    passed_over: int
    changed: int = 0
    shared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentAhead:
    """What would be done to a document, and `why`: new, changed, stale, failed before, deleted, moved.

    Of one that is longer than the context `parts` are summarized, of which `parts_to_map` are not answered yet.
    """

    id: str
    why: str
    calls: int = 0
    parts: int = 0
    parts_to_map: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostAhead:
    """What a row takes on average, told from `sampled` rows, and by which methods. US dollars; None is unknown.

    `allowed` are the rows that --max-cost and --max-total-tokens leave room for, None without a cap that would bind.
    """

    sampled: int
    calls: float
    prompt_tokens: float
    answer_tokens: float
    usd: float | None
    most_usd: float | None
    prompt_method: str
    answer_method: str
    allowed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAhead:
    """How long the rows to call take. `simulated` of them were run in virtual time; `held` are shares of the time.

    `by_max_time` are the rows that end within --max-time, None where all of them do. `failed` simulated rows would fail, the
    first of them with `failure`.
    """

    seconds: float
    rows_per_s: float
    simulated: int
    peak_calls: int
    throttled: int
    held: Mapping[str, float]
    latency_method: str
    limits_method: str
    by_max_time: int | None = None
    failed: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a run would do. `refusal` is why it would not; `prompt` the first row's messages as (role, text), of `place`.

    `damage` is what of the input could not be read: the figures are of the rows that could. `hint` is on the refusal, or on that.
    """

    task: str
    model: str
    output: str
    rows: RowsAhead
    cost: CostAhead | None
    time: TimeAhead | None
    unknown: str = ""
    spent_usd: float = 0.0
    spent_tokens: int = 0
    max_cost_usd: float | None = None
    max_total_tokens: int | None = None
    max_time_s: float | None = None
    place: str = ""
    prompt: Sequence[tuple[str, str]] = ()
    refusal: str = ""
    damage: str = ""
    hint: str = ""
    exit_code: int = 0
    notes: Sequence[str] = field(default_factory=tuple)
    documents: Sequence[DocumentAhead] = field(default_factory=tuple)


def outlook_text(outlook: Outlook) -> str:
    """Aligned plain lines, each ended by a line break; then the first prompt."""
    lines = [f"{label:<{_LABEL_WIDTH}} {text}" for label, text in _lines(outlook)]
    lines += _prompt(outlook)
    return "".join(f"{line}\n" for line in lines)


def outlook_json(outlook: Outlook) -> dict[str, Json]:
    """The same as plain JSON, for `--summary-json`. Keys are stable and carry their units.

    `per_row` are means; `tokens`, `cost_usd` and `most_cost_usd` are of all rows to call, null where unknown. `time` is null
    where nothing would be called or nothing is known.
    """
    rows, cost, time = outlook.rows, outlook.cost, outlook.time
    return {
        "dry_run": True,
        "task": outlook.task,
        "model": outlook.model,
        "output": outlook.output,
        "exit_code": outlook.exit_code,
        "would_refuse": outlook.refusal or None,
        "damaged": outlook.damage or None,
        "hint": outlook.hint or None,
        "rows": {name: getattr(rows, name) for name in RowsAhead.__slots__},
        "per_row": None if cost is None else _per_row_json(cost),
        "tokens": None if cost is None else _tokens_json(cost, rows.to_call),
        "cost_usd": None if cost is None or cost.usd is None else round(cost.usd * rows.to_call, 6),
        "most_cost_usd": None if cost is None or cost.most_usd is None else round(cost.most_usd * rows.to_call, 6),
        "spent": {"usd": round(outlook.spent_usd, 9), "tokens": outlook.spent_tokens},
        "max_cost_usd": outlook.max_cost_usd,
        "max_total_tokens": outlook.max_total_tokens,
        "rows_within_caps": None if cost is None else cost.allowed,
        "time": None if time is None else _time_json(time),
        "first_prompt": [{"role": role, "content": text} for role, text in outlook.prompt],
        "documents": [{name: getattr(one, name) for name in DocumentAhead.__slots__} for one in outlook.documents],
        "notes": list(outlook.notes),
    }


def _per_row_json(cost: CostAhead) -> dict[str, Json]:
    return {
        "sampled_rows": cost.sampled,
        "calls": round(cost.calls, 6),
        "prompt_tokens": round(cost.prompt_tokens, 1),
        "completion_tokens": round(cost.answer_tokens, 1),
        "cost_usd": None if cost.usd is None else round(cost.usd, 9),
        "most_cost_usd": None if cost.most_usd is None else round(cost.most_usd, 9),
        "prompt_tokens_method": cost.prompt_method,
        "completion_tokens_method": cost.answer_method,
    }


def _tokens_json(cost: CostAhead, rows: int) -> dict[str, Json]:
    return {"prompt": round(cost.prompt_tokens * rows), "completion": round(cost.answer_tokens * rows)}


def _time_json(time: TimeAhead) -> dict[str, Json]:
    return {
        "time_s": round(time.seconds, 3),
        "rows_per_s": round(time.rows_per_s, 6),
        "simulated_rows": time.simulated,
        "peak_calls": time.peak_calls,
        "throttled_calls": time.throttled,
        "failed_rows": time.failed,
        "failure": time.failure or None,
        "held_share": {gate: round(share, 4) for gate, share in time.held.items()},
        "latency_method": time.latency_method,
        "limits_method": time.limits_method,
        "rows_by_max_time": time.by_max_time,
    }


def _lines(outlook: Outlook) -> Iterator[tuple[str, str]]:
    """(label, text); an empty label goes on with the one above."""
    rows = outlook.rows
    yield "dry run", "nothing was called, nothing was written"
    if outlook.refusal:
        first, *rest = clean_block(outlook.refusal).splitlines()
        yield "refused", f"the run itself would refuse: {first}"
        yield from (("", line) for line in rest)
        yield "", clean_text(outlook.hint)
    if outlook.damage:
        first, *rest = clean_block(outlook.damage).splitlines()
        yield "damaged", f"all that can be read is counted here, and not: {first}"
        yield from (("", line) for line in rest)
        if not outlook.refusal:
            yield "", clean_text(outlook.hint)
    yield "rows", _rows(rows)
    if rows.to_call:
        yield "to call", _to_call(rows)
    yield from _documents(outlook.documents)
    if rows.to_call:
        yield from _cost(outlook)
        yield from _time(outlook)
    yield "model", clean_text(outlook.model)
    yield "output", clean_text(outlook.output)
    yield from (("note", clean_text(note)) for note in outlook.notes)


def _rows(rows: RowsAhead) -> str:
    parts = [
        (rows.reused, "reused"),
        (rows.failed_before, "failed before and left so"),
        (rows.shared, "equal to others and answered with them"),
        (rows.beyond_limit, "left by --limit"),
        (rows.gone, "gone from the input"),
        (rows.passed_over, "passed over"),
    ]
    named = "".join(f", {count(number)} {word}" for number, word in parts if number)
    return f"{count(rows.total)} in the input{named}, {count(rows.to_call)} to call"


def _documents(documents: Sequence[DocumentAhead]) -> Iterator[tuple[str, str]]:
    """The changed ones first: where much is new, they are what one looks for."""
    order = sorted(documents, key=lambda one: _FIRST.get(one.why, len(_FIRST)))
    for index, one in enumerate(order[:_DOCUMENTS_SHOWN]):
        yield "" if index else "documents", f"{one.why}: {clean_text(one.id)}{_work(one)}"
    if len(order) > _DOCUMENTS_SHOWN:
        yield "", f"and {count(len(order) - _DOCUMENTS_SHOWN)} more"


def _work(one: DocumentAhead) -> str:
    if one.failure:
        return f" (will fail: {clean_text(one.failure)})"
    if not one.parts:
        return ""
    others = one.calls - one.parts_to_map
    return f" ({count(one.parts_to_map)} of {counted(one.parts, 'part')} to map, {counted(others, 'merging')})"


def _to_call(rows: RowsAhead) -> str:
    parts = [
        (rows.new, "new"),
        (rows.changed, "changed"),
        (rows.stale, "stale (answered under another prompt or model)"),
        (rows.again, "tried again"),
    ]
    named = ", ".join(f"{count(number)} {word}" for number, word in parts if number)
    return named + (f"; {count(rows.unreadable)} cannot be read and will fail" if rows.unreadable else "")


def _cost(outlook: Outlook) -> Iterator[tuple[str, str]]:
    cost, rows = outlook.cost, outlook.rows.to_call
    if cost is None:
        yield "tokens", f"unknown: {outlook.unknown}"
    else:
        calls = "" if round(cost.calls, 2) in {0, 1} or cost.calls < 1 else f" in {cost.calls:.3g} calls"
        yield "tokens", f"about {_number(cost.prompt_tokens)} in, {_number(cost.answer_tokens)} out a row{calls}"
        requests = "" if not 0 < cost.calls < 1 else f", in about {counted(math.ceil(cost.calls * rows), 'request')}"
        whole = f"{count(round(cost.prompt_tokens * rows))} in, {count(round(cost.answer_tokens * rows))} out in all"
        yield "", whole + requests
        yield "", f"in: {cost.prompt_method}; out: {cost.answer_method}; from {counted(cost.sampled, 'row')}"
        yield "cost", _money(cost, rows)
    if outlook.max_cost_usd is not None or outlook.max_total_tokens is not None or outlook.spent_usd:
        yield "spent", _caps(outlook)


def _number(value: float) -> str:
    return count(round(value)) if value >= 10 or value == 0 else f"{value:.1f}"  # noqa: PLR2004 - two figures are enough


def _money(cost: CostAhead, rows: int) -> str:
    if cost.usd is None:
        return "unknown: no price for this model; give --price in=..,out=.. in US dollars for a million tokens"
    if cost.usd == 0:
        return "$0"
    most = (
        "" if cost.most_usd is None else f", at most {dollars(cost.most_usd * rows)} with the longest answers allowed"
    )
    return f"about {dollars(cost.usd)} a row, {dollars(cost.usd * rows)} in all{most}"


def _caps(outlook: Outlook) -> str:
    text = f"{dollars(outlook.spent_usd)} and {counted(outlook.spent_tokens, 'token')} on this output so far"
    if outlook.max_cost_usd is not None:
        text += f"; --max-cost leaves {dollars(max(0.0, outlook.max_cost_usd - outlook.spent_usd))}"
    if outlook.max_total_tokens is not None:
        text += f"; --max-total-tokens leaves {count(max(0, outlook.max_total_tokens - outlook.spent_tokens))}"
    if outlook.cost is not None and outlook.cost.allowed is not None:
        text += f", enough for about {count(outlook.cost.allowed)} of the {counted(outlook.rows.to_call, 'row')}"
    return text


def _time(outlook: Outlook) -> Iterator[tuple[str, str]]:
    time = outlook.time
    if time is None:
        yield "time", f"unknown: {outlook.unknown}"
        return
    yield (
        "time",
        f"about {duration(time.seconds)}, {rate(time.rows_per_s)} rows/s, up to {counted(time.peak_calls, 'call')} in flight",
    )
    yield "", f"latency: {time.latency_method}; limits: {time.limits_method}"
    if time.simulated < outlook.rows.to_call:
        yield "", f"{count(time.simulated)} rows were simulated, the others go on at their rate"
    if held := ", ".join(f"{gate} {share:.0%}".replace("%", " %") for gate, share in _shares(time)):
        throttled = f"; {counted(time.throttled, 'call')} turned away by the limit" if time.throttled else ""
        yield "held up", held + throttled
    if time.failed:
        yield "fail", f"{count(time.failed)} of {count(time.simulated)} simulated rows, e.g. {clean_text(time.failure)}"
    if time.by_max_time is not None and outlook.max_time_s is not None:
        yield "", f"--max-time {duration(outlook.max_time_s)} ends it after about {count(time.by_max_time)} rows"


def _shares(time: TimeAhead) -> list[tuple[str, float]]:
    return [(gate, share) for gate, share in time.held.items() if share >= 0.005][:_SHARES_SHOWN]  # noqa: PLR2004 - rounds to 0


def _prompt(outlook: Outlook) -> Iterator[str]:
    """The first row's prompt, role by role, cut where it is very long."""
    if not outlook.prompt:
        return
    yield f"the first prompt, of {clean_text(outlook.place)}:"
    left = _PROMPT_CHARS
    for role, text in outlook.prompt:
        yield f"  [{clean_text(role)}]"
        shown = clean_block(text[: 2 * left])[:left]
        yield from (f"  {line}" for line in shown.splitlines())
        left -= len(shown)
        if len(text) > len(shown) and left <= 0:
            yield f"  … ({count(len(text))} characters in all)"
            return
