"""What tokens cost. An unknown price is None, never zero; what runs on this machine costs nothing."""

from __future__ import annotations

import re

from lcbatch.errors import UsageError
from lcbatch.ports import Price
from lcbatch.records import Usage

_PER = 1_000_000
"""Prices are said for a million tokens."""


def price_of(provider: str, *, local: bool, given: str | None = None) -> Price:
    """US dollars for one call's tokens to a model of this provider.

    `given` is what the user says (--price); else prices are those that genai-prices ships. Raises UsageError.
    """
    if given is not None:
        return _given(given)
    if local:
        return lambda _model, _usage: 0.0
    unknown: set[str] = set()

    def price(model: str, usage: Usage) -> float | None:
        if model in unknown:
            return None
        from genai_prices import Usage as Tokens  # noqa: PLC0415 - 40 ms, and only where there is something to price
        from genai_prices import calc_price  # noqa: PLC0415

        try:
            tokens = Tokens(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
            return float(calc_price(tokens, model_ref=model, provider_id=_PROVIDER_IDS.get(provider)).total_price)
        except LookupError:
            unknown.add(model)
            return None
        except ValueError:  # counts that make no sense: an answer is not lost over its price
            return None

    return price


def _given(text: str) -> Price:
    """`in=0.25,out=2`: US dollars for a million tokens of prompt, and of answer."""
    match = re.fullmatch(r"in=(\d+(?:\.\d+)?),\s*out=(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        raise UsageError(f"--price cannot be {text!r}", hint="US dollars for a million tokens, as in in=0.25,out=2")
    per_input, per_output = float(match[1]) / _PER, float(match[2]) / _PER
    return lambda _model, usage: usage.prompt_tokens * per_input + usage.completion_tokens * per_output


def known_by(name: str, price: Price) -> Price:
    """The same, falling back to the model by the name it was asked for: answers name snapshots that price lists lack."""

    def either(model: str, usage: Usage) -> float | None:
        cost_usd = price(model, usage)
        return price(name, usage) if cost_usd is None and model != name else cost_usd

    return either


_PROVIDER_IDS = {"openai": "openai", "anthropic": "anthropic", "azure_openai": "azure", "google_genai": "google"}
