"""lcbatch: batch processing for LangChain chains that never pays twice and never loses a paid answer.

    from lcbatch import Job, run

    report = run(Job.of("rows.jsonl", output="out.jsonl", model="openai:gpt-5-mini", prompt="Translate: {text}"))
    print(report.snapshot.rows.done, report.exit_code)

In a notebook, where an event loop runs already, `await arun(job)` does the same.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcbatch.app import Report
    from lcbatch.errors import Failure, Kind, LcbatchError
    from lcbatch.job import Job
    from lcbatch.records import Done, Failed, Row

__all__ = ["Done", "Failed", "Failure", "Job", "Kind", "LcbatchError", "Report", "Row", "arun", "run"]

_HOMES = {
    "Done": "records",
    "Failed": "records",
    "Row": "records",
    "Failure": "errors",
    "Kind": "errors",
    "LcbatchError": "errors",
    "Job": "job",
    "Report": "app",
}


def __getattr__(name: str) -> Any:
    """Public names load with their first use, so that `import lcbatch` (and the simulator in it) stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lcbatch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lcbatch.{_HOMES[name]}"), name)


def run(job: Job) -> Report:
    """Run a job to its end and say how it ended.

    Raises LcbatchError for what was wrong before anything was touched (`error.exit_code`, `error.hint`); how a run that
    began ended stands in the report: `exit_code`, `error`, and the figures in `snapshot`. The same job again continues.
    Signals stay the caller's. Blocks; inside a running event loop use `arun`.
    """
    import asyncio  # noqa: PLC0415 - as above

    return asyncio.run(arun(job))


async def arun(job: Job) -> Report:
    """`run`, inside an event loop. Cancelling it cuts off the calls in flight; the same job again continues."""
    from lcbatch.app import run_job  # noqa: PLC0415 - LangChain loads with the first run
    from lcbatch.world import library_world  # noqa: PLC0415

    return await run_job(job, library_world())
