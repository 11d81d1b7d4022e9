"""Chains of your own, three sorts of them, for `lcbatch run ROWS --chain samples/chains.py:NAME`.

`triage`      a factory: lcbatch calls it once, with what `--chain-arg` gives, and runs the LCEL chain that it returns.
              lcbatch run samples/tickets.csv --chain samples/chains.py:triage --chain-arg model=gpt-5 -o triage.jsonl
`shout`       a Runnable, used as it is; it calls no model and so costs nothing.
              lcbatch run samples/prompts.jsonl --chain samples/chains.py:shout
`word_count`  a plain function of a row's fields, which runs in a thread; what it returns becomes the output.
              lcbatch run samples/prompts.jsonl --chain samples/chains.py:word_count
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

TRIAGE = """\
You sort the tickets of a support desk. Reply with exactly one of these words, and nothing else:
urgent (money, data or the whole service is at risk), bug, question, billing, praise, other."""


def triage(model: str = "gpt-5-mini", base_url: str | None = None) -> Runnable[dict[str, Any], str]:
    """Classify a ticket by its fields `subject` and `body`; the answer is one word of the prompt's list."""
    # Imported here, so that `shout` and `word_count` need not wait a second for the model's client to load.
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    prompt = ChatPromptTemplate.from_messages([("system", TRIAGE), ("user", "Subject: {subject}\n\n{body}")])
    return prompt | ChatOpenAI(model=model, base_url=base_url) | StrOutputParser()


def _upper(fields: dict[str, Any]) -> str:
    return str(fields["text"]).upper()


shout = RunnableLambda(_upper)


def word_count(fields: dict[str, Any]) -> dict[str, int]:
    """Count what stands in `text`."""
    text = str(fields["text"])
    return {"words": len(text.split()), "characters": len(text)}
