"""An agent with two tools, for `lcbatch run ROWS --chain samples/agent.py:agent`.

It looks up what the desk knows of a ticket's customer, works out by when an answer is due, and then writes that answer.
Each turn of it is a call of the model: lcbatch keeps every reply, retries, limits and counts them all.

    lcbatch run samples/tickets.csv --chain samples/agent.py:agent --limit 3 -o replies.jsonl
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Literal

from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

if TYPE_CHECKING:
    from langchain_core.prompt_values import ChatPromptValue
    from langchain_core.runnables import Runnable

DESK = """\
You answer the tickets of a support desk. Look up the customer, and work out by when an answer is due, before you write one.
Then answer in at most four sentences, politely and without promising what you do not know."""


TICKET = "From: {customer}, on {created}\nSubject: {subject}\n\n{body}"


@tool
def look_up_customer(name: str) -> str:
    """What the desk knows of a customer: the plan that they pay for, and since when."""
    plan, since = ("business", 2019) if len(name) % 2 else ("starter", 2024)
    return f"{name}: plan {plan}, customer since {since}"


@tool
def due_date(priority: Literal["urgent", "normal", "low"], received: str) -> str:
    """The day by which a ticket is to be answered. `received` is a date as 2026-03-31."""
    days = {"urgent": 1, "normal": 3, "low": 7}[priority]
    try:
        return str(date.fromisoformat(received[:10]) + timedelta(days=days))
    except ValueError:
        return f"{days} days after it was received"  # the model wrote no date: it is told what can be told


def _as_state(prompt: ChatPromptValue) -> dict[str, Any]:
    return {"messages": prompt.to_messages()}


def _last_words(state: dict[str, Any]) -> str:
    return str(state["messages"][-1].text)


def agent(model: str = "gpt-5-mini", base_url: str | None = None) -> Runnable[dict[str, Any], str]:
    """Answer a ticket. `create_agent` gives a graph from messages to messages: the steps around it suit it to rows."""
    graph = create_agent(
        ChatOpenAI(model=model, base_url=base_url), tools=[look_up_customer, due_date], system_prompt=DESK
    )
    ask: Any = ChatPromptTemplate.from_template(TICKET)
    return ask | RunnableLambda(_as_state) | graph | RunnableLambda(_last_words)
