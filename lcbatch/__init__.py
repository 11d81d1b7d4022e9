"""lcbatch: batch processing for LangChain chains that never pays twice and never loses a paid answer.

    from lcbatch import Job, run

    report = run(Job.of("rows.jsonl", output="out.jsonl", model="openai:gpt-5-mini", prompt="Translate: {text}"))
    print(report.snapshot.rows.done, report.exit_code)

In a notebook, where an event loop runs already, `await arun(job)` does the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbatch.errors import Failure, Kind, LcbatchError
from lcbatch.job import Job
from lcbatch.records import Done, Failed, Row

if TYPE_CHECKING:
    from lcbatch.app import Report

__all__ = ["Done", "Failed", "Failure", "Job", "Kind", "LcbatchError", "Row", "arun", "run"]


def run(job: Job) -> Report:
    """Run a job to its end and say how it ended.

    Raises LcbatchError for what was wrong before anything was touched (`error.exit_code`, `error.hint`); how a run that
    began ended stands in the report: `exit_code`, `error`, and the figures in `snapshot`. The same job again continues.
    Signals stay the caller's. Blocks; inside a running event loop use `arun`.
    """
    import asyncio  # noqa: PLC0415 - `import lcbatch` stays light

    return asyncio.run(arun(job))


async def arun(job: Job) -> Report:
    """`run`, inside an event loop. Cancelling it cuts off the calls in flight; the same job again continues."""
    from lcbatch.app import run_job  # noqa: PLC0415 - LangChain loads with the first run
    from lcbatch.world import library_world  # noqa: PLC0415

    return await run_job(job, library_world())
