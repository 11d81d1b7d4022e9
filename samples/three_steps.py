"""Three calls one after the other, for `lcbatch run ROWS --chain samples/three_steps.py:report`.

Facts are taken out of a text, doubted, and put into a report. Every step has a name: the summary at a run's end tells calls,
tokens, cost and latency by these names. What a step has answered is kept: should a later one fail, or the machine, no earlier
one is asked, or paid, again.

    lcbatch run samples/prompts.jsonl --chain samples/three_steps.py:report --limit 3 -o reports.jsonl
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough, RunnablePick
from langchain_openai import ChatOpenAI

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

FACTS = "List the facts that this text states, one a line, and nothing else:\n\n{text}"
DOUBTS = "Which of these facts does the text not bear out? List them, or answer 'none'.\n\n{facts}\n\nThe text:\n{text}"
REPORT = "Write two sentences that say what is known for certain.\n\nFacts:\n{facts}\n\nDoubtful:\n{doubts}"


def report(model: str = "gpt-5-mini", base_url: str | None = None) -> Runnable[dict[str, Any], dict[str, Any]]:
    """The fields `facts`, `doubts` and `report` of a row's `text`."""
    chat = ChatOpenAI(model=model, base_url=base_url)

    def step(template: str) -> Runnable[Any, str]:
        return ChatPromptTemplate.from_template(template) | chat | StrOutputParser()

    return (
        RunnablePassthrough.assign(facts=step(FACTS))
        | RunnablePassthrough.assign(doubts=step(DOUBTS))
        | RunnablePassthrough.assign(report=step(REPORT))
        | RunnablePick(["facts", "doubts", "report"])
    )
