"""Chains: what turns a row into an output. `load_chain` builds the one that the options ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lcbatch.chains.prompt import PromptChain, RequestChain
from lcbatch.chains.schemas import AnswerSchema, load_schema
from lcbatch.chains.structured import StructuredChain
from lcbatch.chains.summarize import SummarizeChain
from lcbatch.chains.template import Template, parse_template
from lcbatch.errors import InputMissing
from lcbatch.job import SUMMARIZE, ChainOptions
from lcbatch.ports import Call, Chain
from lcbatch.records import Json


@dataclass(frozen=True, slots=True)
class Templates:
    """The user's own templates, and the schema of the answers, read and parsed."""

    prompt: Template | None
    system: Template | None
    schema: AnswerSchema | None = None


def load_templates(options: ChainOptions) -> Templates:
    """Read what -p, --system and --schema give.

    Raises InputMissing for a file that is not there, and for the schema UsageError and ConfigError.
    """
    return Templates(_template(options.prompt), _template(options.system), schema_of(options))


def schema_of(options: ChainOptions) -> AnswerSchema | None:
    """The schema that --schema gives, None without one. Raises UsageError, ConfigError, InputMissing."""
    if options.schema is None:
        return None
    return load_schema(options.schema, app_dir=options.app_dir, version=options.chain_version)


def load_chain(
    task: str,
    options: ChainOptions,
    templates: Templates,
    call: Call,
    *,
    model_identity: Mapping[str, Json],
    document_alone: bool,
    row_models: bool,
) -> Chain:
    """The built-in chain for a task over one model's call stack. A user's own chain comes from `custom.load_custom`."""
    prompt, system = templates.prompt, templates.system
    if task == SUMMARIZE:
        return SummarizeChain(
            call=call,
            words=options.words,
            language=options.language,
            focus=options.focus,
            prompt=prompt,
            system=system,
            document_alone=document_alone,
            model_identity=model_identity,
        )
    asking: PromptChain | RequestChain
    if prompt is None:
        asking = RequestChain(call, system, model_identity, row_models)
    else:
        asking = PromptChain(call, prompt, system, model_identity)
    if templates.schema is None:
        return asking
    return StructuredChain(asking, call, templates.schema, options.parse_retries)


def _template(text: str | None) -> Template | None:
    """A template given as it is, or in a file after `@`. Raises InputMissing for a file that is not there."""
    if text is None:
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputMissing(f"cannot read the template {text[1:]}: {error.strerror}") from error
    return parse_template(text)
