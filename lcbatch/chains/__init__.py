"""Chains: what turns a row into an output. `load_chain` builds the one that the options ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lcbatch.chains.embed import EmbedChain
from lcbatch.chains.prompt import PromptChain, RequestChain
from lcbatch.chains.summarize import SummarizeChain
from lcbatch.chains.template import Template, parse_template
from lcbatch.errors import InputMissing
from lcbatch.job import EMBED, SUMMARIZE, ChainOptions
from lcbatch.ports import Call, Chain
from lcbatch.records import Json


@dataclass(frozen=True, slots=True)
class Templates:
    """The user's own templates, read and parsed."""

    prompt: Template | None
    system: Template | None


def load_templates(options: ChainOptions) -> Templates:
    """Read what -p and --system give. Raises InputMissing for a file that is not there."""
    return Templates(_template(options.prompt), _template(options.system))


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
    if task == EMBED:
        return EmbedChain(call, prompt, model_identity)
    if prompt is None:
        return RequestChain(call, system, model_identity, row_models)
    return PromptChain(call, prompt, system, model_identity)


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
