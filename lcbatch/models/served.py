"""The models of a job: the first, and those that stand in for it; each behind one or several endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from lcbatch.errors import UsageError
from lcbatch.job import EXTRACTIVE, ModelOptions
from lcbatch.models import LoadedModel, Told, load_model
from lcbatch.optionvalues import Endpoint


@dataclass(frozen=True, slots=True)
class Served:
    """One model and where it is served: each endpoint with its own client. `at` None: the provider's own address."""

    label: str
    endpoints: tuple[tuple[Endpoint | None, LoadedModel], ...]

    @property
    def model(self) -> LoadedModel:
        """What all endpoints have in common: identity, price, longest answer."""
        return self.endpoints[0][1]

    async def aclose(self) -> None:
        """Close all connections."""
        for _, model in self.endpoints:
            await model.aclose()


Load = Callable[..., LoadedModel]
"""`load_model`, or what takes the same arguments."""


def load_models(
    options: ModelOptions, *, env: Mapping[str, str], connections: int, told: Told = None, load: Load = load_model
) -> tuple[Served, ...]:
    """The model that `options.model` names, then its fallbacks in their order.

    A fallback takes the options that hold for any model (temperature, output tokens, reasoning effort, timeout); address, key,
    price and other arguments are the first one's own. Raises ConfigError, UsageError.
    """
    assert options.model is not None
    if options.endpoints and options.base_url:
        raise UsageError("--base-url and [[endpoints]] both say where the model is", hint="give one of them")
    if options.endpoints and options.model == EXTRACTIVE:
        raise UsageError(f"{EXTRACTIVE} runs here and has no [[endpoints]]", hint="name a served model with -m")
    load_one = partial(load, env=env, connections=connections, told=told)
    at = options.endpoints or (None,)
    first = Served(options.model, tuple((one, load_one(_at(options, one))) for one in at))
    others = [Served(name, ((None, load_one(_instead(options, name))),)) for name in options.fallback]
    return (first, *others)


def _at(options: ModelOptions, endpoint: Endpoint | None) -> ModelOptions:
    if endpoint is None:
        return options
    key = endpoint.api_key_env or options.api_key_env
    return replace(options, base_url=endpoint.base_url, api_key_env=key)


def _instead(options: ModelOptions, name: str) -> ModelOptions:
    return replace(
        options,
        model=name,
        base_url=None,
        api_key_env=None,
        price=None,
        model_arg=(),
        endpoints=(),
        schema_method="auto",
    )
