"""What `--dry-run` tells: the survey of the rows, the forecast of their time, and both as one Outlook."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from lcbatch.bounds import model_name
from lcbatch.errors import exit_code_of
from lcbatch.forecast import Forecast, Scene, forecast
from lcbatch.job import EXTRACTIVE, Job
from lcbatch.observers.outlook import CostAhead, DocumentAhead, Outlook, RowsAhead, TimeAhead
from lcbatch.sources.rows import printable
from lcbatch.survey import Survey, survey_of
from lcbatch.world import World

InLoop = Callable[[Coroutine[Any, Any, Survey]], Survey]


def dry_run(job: Job, world: World, in_loop: InLoop) -> Outlook:
    """What a run of the job would do. `in_loop` runs a coroutine on a loop of its own, to its end.

    Raises LcbatchError for all that would stop the run before it touches anything, but for another chain and too many rows gone,
    and for an input that cannot be read to its end: these are told in the Outlook.
    """
    survey = in_loop(survey_of(job, world))
    seen_ahead = forecast(survey.scene) if survey.scene is not None else None
    return outlook_of(survey, seen_ahead)


def outlook_of(survey: Survey, ahead: Forecast | None) -> Outlook:
    """Both as figures to show."""
    run, refusal, damaged = survey.job.run, survey.refusal, survey.damaged
    end = refusal or damaged
    return Outlook(
        task=survey.job.task,
        model=survey.label,
        output=printable(survey.job.output.output or "-"),
        rows=_rows(survey),
        cost=_cost(survey),
        time=None if ahead is None or survey.scene is None else _time(survey.scene, ahead),
        unknown="your own chain is not run, and no earlier call of it is known here",
        spent_usd=survey.known.spent.usd,
        spent_tokens=survey.known.spent.tokens,
        max_cost_usd=run.max_cost,
        max_total_tokens=run.max_total_tokens,
        max_time_s=run.max_time,
        place=survey.seen.first.place if survey.seen.first else "",
        prompt=survey.prompt,
        refusal=refusal.message if refusal else "",
        damage=damaged.message if damaged else "",
        hint=end.hint if end else "",
        exit_code=exit_code_of(end) if end else 0,
        notes=survey.notes,
        documents=_documents(survey),
    )


def _documents(survey: Survey) -> list[DocumentAhead]:
    """What would be done to which document, and why: those that were looked at, then the deleted ones."""
    asked = [
        DocumentAhead(
            id=one.row.id,
            why=survey.seen.why(one.row, survey.changed),
            calls=len(one.requests),
            parts=one.parts,
            parts_to_map=one.parts_to_map,
            failure=one.failure.message if one.failure else "",
        )
        for one in sorted(survey.sample, key=lambda one: one.row.ordinal)
        if one.row.document is not None
    ]
    return asked + [DocumentAhead(id=name, why=_why_missing(survey)) for name in sorted(survey.missing)]


def _why_missing(survey: Survey) -> str:
    """Of a document whose text is still in the input only the name is gone."""
    run, gone = survey.job.run, survey.figures.gone
    if run.on_removed == "keep" or run.limit is not None:
        return "missing, and kept"
    if not gone:
        return "moved"
    return "deleted" if gone == len(survey.missing) else "moved or deleted"


def _rows(survey: Survey) -> RowsAhead:
    seen, figures = survey.seen, survey.figures
    changed = len(survey.changed)
    total = figures.total or 0
    by_themselves = figures.reused + figures.failed_before + seen.to_call + seen.beyond_limit
    return RowsAhead(
        total=total,
        reused=figures.reused,
        failed_before=figures.failed_before,
        to_call=seen.to_call,
        new=seen.to_call - seen.stale - seen.again - changed,
        changed=changed,
        stale=seen.stale,
        again=seen.again,
        unreadable=seen.unreadable,
        beyond_limit=seen.beyond_limit,
        gone=figures.gone,
        passed_over=figures.passed_over,
        shared=max(0, total - by_themselves) if survey.job.chain.dedupe else 0,
    )


def _cost(survey: Survey) -> CostAhead | None:
    cost, method = survey.cost, survey.basis.method
    if cost is None:
        return None
    return CostAhead(
        sampled=cost.sampled,
        calls=cost.calls,
        prompt_tokens=cost.prompt_tokens,
        answer_tokens=cost.answer_tokens,
        usd=cost.usd,
        most_usd=cost.most_usd,
        prompt_method=method.prompt,
        answer_method=method.answer,
        allowed=_allowed(survey),
    )


def _allowed(survey: Survey) -> int | None:
    """Rows that the caps leave room for, None where that is all of them."""
    run, cost, spent = survey.job.run, survey.cost, survey.known.spent
    rooms: list[float] = []
    if cost is not None and run.max_cost is not None and cost.usd:
        rooms.append((run.max_cost - spent.usd) / cost.usd)
    if cost is not None and run.max_total_tokens is not None and cost.tokens:
        rooms.append((run.max_total_tokens - spent.tokens) / cost.tokens)
    allowed = max(0, int(min(rooms))) if rooms else survey.seen.to_call
    return allowed if allowed < survey.seen.to_call else None


def _time(scene: Scene, ahead: Forecast) -> TimeAhead:
    most_s = scene.job.run.max_time
    return TimeAhead(
        seconds=ahead.seconds,
        rows_per_s=ahead.rows_per_s,
        simulated=ahead.simulated,
        peak_calls=ahead.peak_calls,
        throttled=ahead.throttled,
        failed=ahead.failed,
        failure=ahead.failure,
        held=ahead.held,
        latency_method=scene.basis.method.latency,
        limits_method=_limits(scene),
        by_max_time=ahead.rows_by(most_s) if most_s is not None and most_s < ahead.seconds else None,
    )


def _limits(scene: Scene) -> str:
    """Whose limits a minute the forecast keeps to."""
    job = scene.job
    ends = [end for line in scene.lines[:1] for end in line.ends]
    if job.run.rpm or job.run.tpm or any(end.rpm or end.tpm for end in ends):
        return "as given"
    if model_name(job) == EXTRACTIVE:
        return "none"
    heard = [name for known in scene.limits.values() for name, limit in known.items() if limit]
    return "as the last run learned them" if heard else "none known; the provider's own may make it longer"
