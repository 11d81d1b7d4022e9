"""curator's LLM over a dataset, with its cache on disk, its own limits a minute put out of reach."""

from __future__ import annotations

import json

# curator counts tokens by a table that tiktoken would fetch; litellm, which curator imports anyway, has it and says where.
import litellm.litellm_core_utils.default_encoding  # type: ignore[import-not-found]  # noqa: F401
from bespokelabs import curator  # type: ignore[import-not-found]  # installed in an environment of its own

from bench.clients.common import MODEL, prompt_for, task_from_argv

_OUT_OF_REACH = 1_000_000_000


def main() -> None:
    task = task_from_argv()
    model = curator.LLM(
        model_name=MODEL,
        backend="openai",
        backend_params={
            "base_url": task.base_url,
            "api_key": task.api_key,
            "max_concurrent_requests": task.concurrency,
            "max_requests_per_minute": _OUT_OF_REACH,
            "max_tokens_per_minute": _OUT_OF_REACH,
        },
    )
    answers = model(list(map(prompt_for, task.rows()))).dataset
    with task.out.open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in answers)


if __name__ == "__main__":
    main()
