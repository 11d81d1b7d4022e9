"""What a job's options choose: its models and its chain. Whatever can be wrong with them is found out here, before any call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, replace
from typing import Protocol

from lcbatch.bounds import bounds_of, model_name
from lcbatch.chains import Templates, load_chain, load_templates, summarizing
from lcbatch.chains.context import DEFAULT_CONTEXT_TOKENS, Context
from lcbatch.chains.custom import load_custom
from lcbatch.chains.pieces import Pieces
from lcbatch.chains.structured import StructuredChain
from lcbatch.chains.summarize import MAP_REDUCE, STUFF, Reading
from lcbatch.errors import UsageError
from lcbatch.job import EMBED, EXTRACTIVE, SUMMARIZE, ChainOptions, InputOptions, Job, ModelOptions
from lcbatch.models import Told, load_model
from lcbatch.models.embedders import load_embedder
from lcbatch.models.served import Served, load_models
from lcbatch.ports import Call, Chain, Layouts
from lcbatch.records import Reply, Request, Usage


def wire_models(job: Job, env: Mapping[str, str], row_model: str | None, told: Told = None) -> tuple[Served, ...]:
    """The job's model and its fallbacks; none for a chain that brings its own. `row_model` is what the rows name themselves."""
    name = model_name(job)
    if job.chain.chain is not None:
        return ()
    if name is None and row_model is not None:
        name = f"openai:{row_model}"
    if name is None:
        known = "text-embedding-3-small" if job.task == EMBED else "gpt-5-mini"
        raise UsageError("which model?", hint=f"name it with -m, as in -m openai:{known}, or set LCBATCH_MODEL")
    if job.task == EMBED and job.model.fallback:  # no command has it, but Python does
        raise UsageError("vectors of two models lie in different spaces", hint="leave out fallback")
    load = load_embedder if job.task == EMBED else load_model
    models = load_models(replace(job.model, model=name), env=env, connections=bounds_of(job).most, told=told, load=load)
    for served in models:
        _check_bounded(job, served)
    return models


def unused_of(job: Job) -> str | None:
    """What to say of options that decide nothing in this job.

    Where the job's chain is the user's, the model that answers, and the address that a key is sent to, are the ones in its code.
    """
    if job.chain.chain is not None:
        models = {spec.name for spec in fields(job.model)} - {"price", "timeout"}
        given = [*_given(job.chain, {"prompt", "system"}), *_given(job.model, models)]
        why = f"not used, as --chain asks models of its own: {', '.join(given)} (--chain-arg gives it what it takes)"
        return why if given else None
    given = [*_given(job.chain, {"chain_arg"}), *_given(job.input, {"key"})]
    if given:
        return f"not used without --chain: {', '.join(given)}"
    if job.task == SUMMARIZE and (job.chain.strategy == STUFF or model_name(job) == EXTRACTIVE):
        given = _given(job.chain, {"context_tokens"})
        return f"not used, as documents are taken whole: {', '.join(given)}" if given else None
    given = [*_given(job.chain, {"parse_retries"}), *_given(job.model, {"schema_method"})]
    return f"not used without --schema: {', '.join(given)}" if given and job.chain.schema is None else None


def _given(group: ChainOptions | InputOptions | ModelOptions, names: Set[str]) -> list[str]:
    """Which of these options differ from their defaults, as they are written."""
    return [
        f"--{spec.name.replace('_', '-')}"
        for spec in fields(group)
        if spec.name in names and getattr(group, spec.name) != spec.default
    ]


def _check_bounded(job: Job, served: Served) -> None:
    """Raise UsageError for a cap that could not be kept: unknown is never taken for zero."""
    if job.run.max_cost is None and job.run.max_total_tokens is None:
        return
    if served.model.max_output_tokens is None and not served.model.local:
        raise UsageError(
            f"a cap needs to know how long an answer of {served.label} can get", hint="give --max-output-tokens N"
        )
    name = served.label.partition(":")[2]
    if job.run.max_cost is not None and served.model.price(name, Usage(1, 1)) is None:
        raise UsageError(
            f"--max-cost: no price is known for {served.label}",
            hint="give --price in=..,out=.. in US dollars for a million tokens",
        )


class Over(Protocol):
    """Puts a chain over a call stack; `layouts` remember how documents were cut, where there is a store."""

    def __call__(self, call: Call, layouts: Layouts | None = None) -> Chain: ...


def prepare_chain(job: Job, models: Sequence[Served]) -> Over:
    """Find out now all that can be wrong with the chain; what comes back puts it over a call stack, and cannot fail.

    Raises ConfigError, UsageError, InputMissing.
    """
    if job.chain.chain is not None:
        if job.chain.schema is not None:
            raise UsageError(
                "--schema is for lcbatch's own chains, and --chain brings its own",
                hint="let the chain itself ask for structured output",
            )
        own = load_custom(job.chain, job.input.key)
        return lambda call, layouts=None: own  # noqa: ARG005 - it calls its models itself
    model = models[0].model
    templates = load_templates(job.chain)
    if model.takes_document_alone and templates.schema is not None:
        raise UsageError(f"{model.label} knows no --schema", hint="name a model that writes with -m")
    if job.task == SUMMARIZE:
        return _summarizing(job, models, templates)
    return lambda call, layouts=None: load_chain(  # noqa: ARG005 - one call a row: nothing is cut
        job.task,
        job.chain,
        templates,
        call,
        model_identity=model.identity,
        document_alone=model.takes_document_alone,
        row_models=job.model.model is None,
    )


def rehearsed(over: Over) -> Over:
    """The same chain for answers that are made up: it asks once, and does not ask for a better one."""

    def chain_over(call: Call, layouts: Layouts | None = None) -> Chain:
        chain = over(call, layouts)
        return chain.rehearsed() if isinstance(chain, StructuredChain) else chain

    return chain_over


def _summarizing(job: Job, models: Sequence[Served], templates: Templates) -> Over:
    model, options = models[0].model, job.chain
    if model.takes_document_alone and templates.any_own:
        raise UsageError(
            f"{model.label} reads no prompt", hint="name a model that does with -m; --words and --focus work with both"
        )
    if model.takes_document_alone and options.strategy == MAP_REDUCE:
        raise UsageError(f"{model.label} takes documents whole, however long", hint="leave out --strategy")
    tokens = options.context_tokens
    if tokens is None:  # the smallest: what does not fit a fallback would fail there
        prompted = [served.model for served in models if not served.model.takes_document_alone]
        tokens = min(
            (one.max_input_tokens or DEFAULT_CONTEXT_TOKENS for one in prompted), default=DEFAULT_CONTEXT_TOKENS
        )
    context = Context(tokens, job.model.max_output_tokens)
    reading = Reading(
        strategy=options.strategy,
        alone=model.takes_document_alone,
        context=context,
        given_context_tokens=options.context_tokens,
    )
    made = summarizing(options, templates, _nobody, reading, model.identity)
    return lambda call, layouts=None: replace(made, call=call, reading=replace(reading, layouts=layouts))


async def _nobody(request: Request) -> Reply:  # noqa: ARG001 - ports.Call
    raise AssertionError("a chain that is only looked at calls nobody")


def pieces_of(job: Job) -> Pieces | None:
    """How documents are cut, None where they are taken whole. Raises UsageError."""
    if job.task != EMBED:
        return None
    tokens, overlap = job.input.chunk_tokens, job.input.chunk_overlap
    if tokens < 1:
        raise UsageError(f"--chunk-tokens cannot be {tokens}", hint="1 or more")
    if 2 * overlap > tokens:
        raise UsageError(f"--chunk-overlap {overlap} is more than half of --chunk-tokens {tokens}", hint="give less")
    return Pieces(tokens, overlap)
