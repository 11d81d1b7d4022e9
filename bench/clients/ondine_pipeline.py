"""ondine's pipeline: a call a row, no limit of its own but the concurrency."""

from __future__ import annotations

import json
from decimal import Decimal

import pandas  # type: ignore[import-untyped]
from ondine import PipelineBuilder  # type: ignore[import-not-found]  # installed in an environment of its own

from bench.clients.common import MODEL, PROMPT, task_from_argv


def main() -> None:
    task = task_from_argv()
    frame = pandas.DataFrame(task.rows())
    pipeline = (
        PipelineBuilder.create()
        .from_dataframe(frame, input_columns=["text"], output_columns=["output"])
        .with_prompt(PROMPT)
        .with_llm(
            provider="openai_compatible",
            model=MODEL,
            base_url=task.base_url,
            api_key=task.api_key,
            input_cost_per_1k_tokens=Decimal(0),
            output_cost_per_1k_tokens=Decimal(0),
        )
        .with_concurrency(task.concurrency)
        .build()
    )
    answers = pipeline.execute().data
    with task.out.open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in answers.to_list())


if __name__ == "__main__":
    main()
