"""Calls told apart by the step of the chain that made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lcbatch.events import CallEnded
from lcbatch.observers.figures import StepFigures
from lcbatch.observers.histogram import Histogram

STEPS = 32
"""Most steps that are told apart. A name that is made of a row's own text must not fill the memory."""

OTHERS = "(others)"


@dataclass(slots=True)
class StepCount:
    """Counts of one step's attempts, tokens and money."""

    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    known_cost_usd: float = 0.0
    unpriced: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def count(self, event: CallEnded) -> None:
        """One more attempt."""
        self.prompt_tokens += event.usage.prompt_tokens
        self.completion_tokens += event.usage.completion_tokens
        self.known_cost_usd += event.cost_usd or 0.0
        if event.failure is not None:
            self.failed += 1
            return
        self.answered += 1
        self.unpriced += event.cost_usd is None
        self.latency.add(event.latency_s)

    def figures(self) -> StepFigures:
        """As they stand."""
        return StepFigures(
            answered=self.answered,
            failed=self.failed,
            latency=self.latency.percentiles(),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            known_cost_usd=self.known_cost_usd,
            unpriced=self.unpriced,
        )


class Steps:
    """As long as there is one step, `only`, the totals are its figures, and it costs nothing to count it."""

    def __init__(self) -> None:
        self.only: str | None = None
        self._counts: dict[str, StepCount] = {}

    def count(self, event: CallEnded, before: Callable[[], StepCount]) -> None:
        """Count an attempt of another step than `only`. `before` gives the totals of all attempts before this one."""
        counts = self._counts
        if not counts:
            if self.only is None:
                self.only = event.step
                return
            counts[self.only] = before()
            self.only = None
        name = event.step if event.step in counts or len(counts) < STEPS else OTHERS
        step = counts.get(name)
        if step is None:
            step = counts[name] = StepCount()
        step.count(event)

    def figures(self) -> dict[str, StepFigures]:
        """By name, in the order in which they first ended; empty as long as there is only one."""
        return {name: step.figures() for name, step in self._counts.items()}
