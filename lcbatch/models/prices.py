"""What tokens cost. An unknown price is None, never zero; what runs on this machine costs nothing."""

from __future__ import annotations

from collections.abc import Callable

from lcbatch.records import Usage


def price_of(provider: str, *, local: bool) -> Callable[[str, Usage], float | None]:
    """US dollars for one call's tokens to a model of this provider, from the prices that genai-prices ships."""
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


_PROVIDER_IDS = {"openai": "openai", "anthropic": "anthropic", "azure_openai": "azure", "google_genai": "google"}
