"""What a simulator does, as one frozen value: from flags, from JSON, or changed while it runs."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from lcbatch.simulator.choices import LedgerDepth, RateHeaders, RetryAfterForm
from lcbatch.simulator.faults import FAULTS, parse_schedule


class SettingsError(ValueError):
    """A setting that does not exist or has a value it cannot have.

    The message names the setting and is fit for a user.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the simulated provider behaves. Zero or None switches a thing off, unless its line says otherwise.

    latency_s: seconds from a request's arrival (or its start, when it queued) to its answer; the mean, when
    latency_sigma > 0.
    latency_sigma: sigma of a lognormal latency with that mean; seeded by `seed`.
    latency_per_token_s: seconds more for each completion token; a streamed answer is spread over them.
    saturate_at: N parallel servers; what comes beyond waits in line and is never refused.
    rpm, tpm: requests and tokens a minute, as continuously refilled buckets. A call takes its prompt and its
    completion tokens on arrival.
    burst_s: the buckets' capacity, in seconds' worth of their rate. OpenAI's is a minute.
    max_concurrency: 429 beyond this many in flight.
    count_rejected: a request refused for its rate still uses up a request, as at OpenAI.
    retry_after, retry_after_s: the header's form, and its value instead of the computed wait.
    rate_headers: whose rate headers go with every response while rpm or tpm is set.
    faults: fault name to its probability, 0..1; their sum is at most 1.
    schedule: `FROM-TO:fault` (seconds since the start) or `#N-#M:fault` (by request number), each with an optional
    `@PROBABILITY`.
    quota_after: after this many admitted calls every other is refused with insufficient_quota.
    down: model requests are reset at once; /control, /stats, /ledger and /healthz still answer.
    answer_tokens, answer_sigma: words in an answer, about a token each; the mean of a lognormal (drawn from the
    request's hash) when sigma > 0.
    context_tokens: a prompt above it is refused with context_length_exceeded, a text to embed with a plain 400, as OpenAI does.
    require_key: the one API key that is let in.
    models: what GET /v1/models lists; any model name is answered.
    embedding_dimensions: the length of a vector where the request names none.
    bill_abandoned: a call whose client went away while it was being worked on is billed all the same.
    big_bytes, gzipbomb_bytes, drip_interval_s, redirect_to: the measures of those faults.
    ledger: `full` keeps every billed call, `counts` only sums, `none` as counts.
    seed: of everything random.
    """

    latency_s: float = 0.0
    latency_sigma: float = 0.0
    latency_per_token_s: float = 0.0
    saturate_at: int = 0
    rpm: float = 0.0
    tpm: float = 0.0
    burst_s: float = 60.0
    max_concurrency: int = 0
    count_rejected: bool = False
    retry_after: RetryAfterForm = "seconds"
    retry_after_s: float | None = None
    rate_headers: RateHeaders = "openai"
    faults: tuple[tuple[str, float], ...] = ()
    schedule: tuple[str, ...] = ()
    quota_after: int | None = None
    down: bool = False
    answer_tokens: int = 16
    answer_sigma: float = 0.0
    context_tokens: int = 0
    require_key: str | None = None
    models: tuple[str, ...] = ("sim", "sim-embedding")
    embedding_dimensions: int = 256
    bill_abandoned: bool = True
    big_bytes: int = 50_000_000
    gzipbomb_bytes: int = 1_000_000_000
    drip_interval_s: float = 0.05
    redirect_to: str = "http://elsewhere.invalid/v1/chat/completions"
    ledger: LedgerDepth = "full"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise SettingsError(f"{name} must be a number of at least 0, not {value!r}")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise SettingsError(f"{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if self.burst_s == 0:
            raise SettingsError("burst_s must be above 0: a bucket that holds nothing lets nothing through")
        _check_faults(self.faults)
        try:
            parse_schedule(self.schedule)
        except ValueError as exc:
            raise SettingsError(str(exc)) from exc

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with some replaced, given as JSON values.

        Raises SettingsError on an unknown key or a bad value.
        """
        return dataclasses.replace(self, **{name: _from_json(name, value) for name, value in changes.items()})

    def as_json(self) -> dict[str, Any]:
        """What `Settings().changed` turns back into these settings."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"faults": dict(self.faults), "schedule": list(self.schedule), "models": list(self.models)}


_CHOICES = {"retry_after": RetryAfterForm, "rate_headers": RateHeaders, "ledger": LedgerDepth}
_TYPES: dict[str, str] = {field.name: str(field.type) for field in dataclasses.fields(Settings)}
_NUMBERS = [name for name, kind in _TYPES.items() if kind.split(" ")[0] in {"int", "float"} and name != "seed"]


def suggestion(word: str, known: list[str]) -> str:
    """A hint at the nearest known word, to stand at a message's end; empty where none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_faults(faults: tuple[tuple[str, float], ...]) -> None:
    for name, rate in faults:
        if name not in FAULTS:
            raise SettingsError(f"unknown fault {name!r}{suggestion(name, list(FAULTS))}")
        if not 0 <= rate <= 1:
            raise SettingsError(f"the rate of fault {name!r} must be within 0 and 1, not {rate!r}")
    if sum(rate for _, rate in faults) > 1 + 1e-9:
        raise SettingsError("the rates of all faults together must be at most 1")


def _from_json(name: str, value: Any) -> Any:
    if name not in _TYPES:
        raise SettingsError(f"unknown setting {name!r}{suggestion(name, list(_TYPES))}")
    if name == "faults":
        if not isinstance(value, Mapping) or not all(_fits(rate, "float") for rate in value.values()):
            raise SettingsError("faults must be an object of fault names and rates")
        return tuple((str(fault), float(rate)) for fault, rate in value.items())
    if name in {"schedule", "models"}:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{name} must be a list of strings")
        return tuple(value)
    if not _fits(value, _TYPES[name]):
        raise SettingsError(f"{name} must be of type {_TYPES[name]}, not {value!r}")
    return value


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return "None" in kind
    wanted = kind.partition(" ")[0]
    if isinstance(value, bool) or wanted == "bool":
        return isinstance(value, bool) and wanted == "bool"
    if wanted == "float":
        return isinstance(value, int | float)
    return isinstance(value, int) if wanted == "int" else isinstance(value, str)
